//! Answer HTTP requests. `wit/http.wit`.
//!
//! The readers of query and body return a [`Problem`] that names the field and the rule.

use serde::Serialize;

pub use crate::bindings::http::exports::switchboard::host::http::{Guest as Handler, Request, Response};
pub use crate::http_export as export;
use crate::{Id, Principal, Problem, json};

impl Request {
    /// The method, and the route as the manifest states it: `match request.endpoint() { ("POST",
    /// "/api/v1/…/{id}") => … }`.
    pub fn endpoint(&self) -> (&str, &str) {
        (&self.method, &self.route)
    }

    /// The caller. A request on a route that is not `public` always has one.
    pub fn caller(&self) -> Result<&Principal, Problem> {
        self.caller.as_ref().ok_or_else(|| Problem::unauthorized("a token is needed"))
    }

    /// A parameter of the path; empty if the route has no parameter of this name.
    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// A path parameter that is an id. Any other text is answered with `not_found` for `what`.
    pub fn param_id(&self, name: &str, what: &str) -> Result<Id, Problem> {
        Id::of_path(self.param(name), what)
    }

    /// The first value of a header. Header names are lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The last value of a query parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A query parameter that is a whole number, zero or more.
    pub fn query_number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(raw) = self.query(name) else { return Ok(None) };
        let number = raw.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
        number.map(Some).ok_or_else(|| Problem::invalid(name, "is not a whole number, zero or more"))
    }

    /// The page size, `limit`. A value out of range is refused, not clamped.
    pub fn limit(&self, default: u64, most: u64) -> Result<u64, Problem> {
        match self.query_number("limit")? {
            None => Ok(default),
            Some(limit) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(Problem::invalid("limit", format!("is not between 1 and {most}"))),
        }
    }

    /// The body, which must be a JSON object. A `content-type` header, if there is one, must name a JSON
    /// type.
    pub fn json(&self) -> Result<json::Object, Problem> {
        self.check_media_type()?;
        json::Object::parse(&self.body)
    }

    /// The same as [`Self::json`], but an empty body counts as an empty object.
    pub fn json_or_empty(&self) -> Result<json::Object, Problem> {
        if !self.body.is_empty() {
            self.check_media_type()?;
        }
        json::Object::parse_or_empty(&self.body)
    }

    fn check_media_type(&self) -> Result<(), Problem> {
        let Some(declared) = self.header("content-type") else { return Ok(()) };
        let essence = declared.split(';').next().unwrap_or_default().trim();
        let is_json = essence.eq_ignore_ascii_case("application/json")
            || essence.to_ascii_lowercase().ends_with("+json");
        if is_json { Ok(()) } else { Err(Problem::unsupported_media_type("send application/json")) }
    }
}

impl Response {
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        Self::text(status, serde_json::to_string(body).expect("plain data becomes JSON"))
    }

    /// A response whose body is JSON text already, for instance a cell that Postgres made.
    pub fn text(status: u16, body: String) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.into_bytes(),
        }
    }

    pub fn no_content() -> Self {
        Self { status: 204, headers: Vec::new(), body: Vec::new() }
    }
}

/// The answer to a route that the manifest binds and the code does not handle: it logs an error and returns
/// `internal`.
pub fn unknown_endpoint<T>(request: &Request) -> Result<T, Problem> {
    crate::log::error(
        "bound to a route it does not answer",
        &[("method", &request.method), ("route", &request.route)],
    );
    Err(Problem::internal())
}

#[macro_export]
#[doc(hidden)]
macro_rules! http_export {
    ($handler:ident) => {
        const _: () = {
            use $crate::http::{Handler, Request, Response};

            struct Exported;
            impl Handler for Exported {
                fn handle(request: Request) -> Result<Response, $crate::Problem> {
                    $crate::panics::report();
                    <$handler as Handler>::handle(request)
                }
            }
            $crate::bindings::http::export_http!(Exported);
        };
    };
}
