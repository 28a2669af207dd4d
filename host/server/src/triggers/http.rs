//! The HTTP trigger: requests whose method and path a manifest binds, from clients, and from operators under
//! `/admin/v1/`.

use std::sync::Arc;

use bytes::Bytes;

use super::state::Triggers;
use switchboard_contract::http::{Request, Response};
use switchboard_contract::types::{Principal, Problem};
use switchboard_core::ids::RequestId;
use switchboard_core::manifest::OPERATORS;
use switchboard_protocol::wire::percent;
use switchboard_protocol::wire::problem::Code;
use switchboard_releases::registry::Found;
use switchboard_runtime::{Call, export};

/// A request from the gateway. Its size is checked, its caller is verified, and its query is decoded.
pub struct HttpIn {
    pub id: RequestId,
    pub method: String,
    /// Still percent-encoded, so that an encoded slash stays inside its segment.
    pub path: String,
    pub query: Vec<(String, String)>,
    /// Lower-case names, without credentials.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub caller: Option<Principal>,
}

/// Whether a handler answers a request; known before the body is read and the token checked.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    Bound { public: bool },
    MethodNotAllowed { allow: Vec<String> },
    Nothing,
}

impl Triggers {
    /// Returns whether a handler answers a client's request.
    pub fn reach(&self, method: &str, path: &str) -> Reach {
        if is_for_operators(path) {
            return Reach::Nothing;
        }
        match self.registry.current().http(method, path) {
            Found::Route(route) => Reach::Bound { public: route.public },
            Found::MethodNotAllowed { allow } => {
                Reach::MethodNotAllowed { allow: allow.into_iter().map(str::to_owned).collect() }
            }
            Found::Nothing => Reach::Nothing,
        }
    }

    /// Answers a client's request.
    pub async fn http(&self, request: HttpIn) -> Result<Response, Problem> {
        if is_for_operators(&request.path) { Err(nothing()) } else { self.answer(request).await }
    }

    /// Answers an operator's request. The admin listener has checked the operator's token.
    pub async fn operator(&self, request: HttpIn) -> Result<Response, Problem> {
        if is_for_operators(&request.path) { self.answer(request).await } else { Err(nothing()) }
    }

    async fn answer(&self, request: HttpIn) -> Result<Response, Problem> {
        let bindings = self.registry.current();
        // The route is looked up again, because a release may have changed since `reach`, and a call uses one
        // release.
        let Found::Route(route) = bindings.http(&request.method, &request.path) else {
            return Err(nothing());
        };
        // A pattern that begins with a parameter matches operators' paths too.
        if is_for_operators(route.pattern) != is_for_operators(&request.path) {
            return Err(nothing());
        }
        if request.caller.is_none() && !route.public {
            return Err(Code::Unauthorized.problem("a token is needed"));
        }
        let params = route
            .params
            .iter()
            .map(|(name, raw)| Some(((*name).to_owned(), percent::decode(raw)?)))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Code::Malformed.problem("the path contains a wrong percent escape"))?;

        let call = Call { request: Some(request.id.clone()), ..Call::new(None) };
        let user = request.caller.as_ref().map(|caller| caller.user_id.as_str());
        let release = Arc::clone(route.entry.pick(user.unwrap_or(&call.id)));
        let pattern = route.pattern.to_owned();
        drop(bindings);

        let request = Request {
            id: request.id.to_string(),
            method: request.method,
            route: pattern,
            params,
            query: request.query,
            headers: request.headers,
            body: request.body.into(),
            caller: request.caller,
        };
        match self.runtime.call::<export::Http>(&release, call, request).await {
            Ok(answer) => answer,
            Err(failure) => Err(failure.problem()),
        }
    }
}

fn nothing() -> Problem {
    Code::NotFound.problem("nothing answers this method and path")
}

/// Returns true for a path of operators, in a request or in a manifest.
fn is_for_operators(path: &str) -> bool {
    path.starts_with(OPERATORS)
}
