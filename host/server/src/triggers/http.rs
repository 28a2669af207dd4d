//! The HTTP trigger: requests whose method and path a manifest binds, from clients, and from operators under
//! `/admin/v1/`.

use std::sync::Arc;

use super::hooks::{PinnedHooks, divide, join};
use super::state::Triggers;
use crate::calls::{HttpIn, Reach};
use switchboard_contract::http::{Request, Response};
use switchboard_contract::types::Problem;
use switchboard_core::ids::RequestId;
use switchboard_core::manifest::OPERATORS;
use switchboard_protocol::wire::percent;
use switchboard_protocol::wire::problem::Code;
use switchboard_releases::CallOrigin;
use switchboard_releases::registry::Found;
use switchboard_runtime::export::{self, Calls as _};
use switchboard_runtime::{Call, LoadedRelease};

impl Triggers {
    pub(super) fn client_reach(&self, method: &str, path: &str) -> Reach {
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

    pub(super) async fn answer_client(&self, request: HttpIn) -> Result<Response, Problem> {
        if is_for_operators(&request.path) { Err(nothing()) } else { self.answer(request).await }
    }

    pub(super) async fn answer_operator(&self, request: HttpIn) -> Result<Response, Problem> {
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
        let caller = request.caller.as_ref();
        let origin = CallOrigin {
            subject: caller.map(|caller| caller.user_id.as_str()).unwrap_or(&call.id),
            roles: caller.map(|caller| caller.roles.as_slice()).unwrap_or_default(),
            groups: &request.groups,
            tester: request.tester.as_deref(),
        };
        let release = Arc::clone(route.entry.pick_for(&origin));
        let pattern = route.pattern.to_owned();
        let hooks = route.action.and_then(|action| PinnedHooks::of(&bindings, action, &origin));
        drop(bindings);

        let id = request.id;
        let request = Request {
            id: id.to_string(),
            method: request.method,
            route: pattern,
            params,
            query: request.query,
            headers: request.headers,
            body: request.body.into(),
            caller: request.caller,
        };
        match hooks {
            None => self.call_http(&release, call, request).await,
            // Boxed, because a request without hooks must not carry the memory of these.
            Some(hooks) => Box::pin(self.act(hooks, id, &release, call, request)).await,
        }
    }

    async fn call_http(
        &self,
        release: &Arc<LoadedRelease>,
        call: Call,
        request: Request,
    ) -> Result<Response, Problem> {
        match self.runtime.call::<export::Http>(release, call, request).await {
            Ok(answer) => answer,
            Err(failure) => Err(failure.problem()),
        }
    }

    /// Asks the hooks of the route's action first.
    async fn act(
        &self,
        hooks: PinnedHooks,
        id: RequestId,
        release: &Arc<LoadedRelease>,
        mut call: Call,
        mut request: Request,
    ) -> Result<Response, Problem> {
        let payload = join(&request.body, &request.params)?;
        let deadline_ms = release.manifest.limits.deadline_ms;
        let action = hooks.begin(self, deadline_ms, export::Http::cause(&request));
        let had_body = !request.body.is_empty();
        let params = &request.params;
        let check = |changed: &str| divide(changed, params, had_body).map(drop);
        let changed = action.decide(&id, request.caller.as_ref(), &payload, check).await?;
        // `check` and `join` have made sure that it can be divided.
        let divided = divide(changed.as_ref().unwrap_or(&payload), &request.params, had_body);
        (request.params, request.body) = divided.map_err(|rule| Code::Malformed.problem(rule))?;
        // It is that of the client's body.
        request.headers.retain(|(name, _)| name != "content-length");
        action.bound(&mut call);
        self.call_http(release, call, request).await
    }
}

fn nothing() -> Problem {
    Code::NotFound.problem("nothing answers this method and path")
}

/// Returns true for a path of operators, in a request or in a manifest.
fn is_for_operators(path: &str) -> bool {
    path.starts_with(OPERATORS)
}
