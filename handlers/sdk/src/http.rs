//! Answer HTTP requests. `wit/http.wit`.

use serde::Serialize;

pub use crate::bindings::http::export_http as export;
pub use crate::bindings::http::exports::switchboard::host::http::{Guest as Handler, Request, Response};
use crate::{Id, Principal, Problem, json};

impl Request {
    /// Method and route as the manifest wrote it: `match request.endpoint() { ("POST", "/api/v1/…/{id}") => … }`.
    pub fn endpoint(&self) -> (&str, &str) {
        (&self.method, &self.route)
    }

    /// Who asks. On a route that is not `public` there is always somebody.
    pub fn caller(&self) -> Result<&Principal, Problem> {
        self.caller.as_ref().ok_or_else(|| Problem::unauthorized("a token is needed"))
    }

    pub fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// An id out of the path; what is no id names nothing.
    pub fn param_id(&self, name: &str, what: &str) -> Result<Id, Problem> {
        Id::of_path(self.param(name), what)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The last value of a query key.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn query_number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(raw) = self.query(name) else { return Ok(None) };
        let number = raw.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
        number.map(Some).ok_or_else(|| Problem::invalid(name, "is not a whole number, zero or more"))
    }

    /// A page size: out of range is refused, not clamped.
    pub fn limit(&self, default: u64, most: u64) -> Result<u64, Problem> {
        match self.query_number("limit")? {
            None => Ok(default),
            Some(limit) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(Problem::invalid("limit", format!("is not between 1 and {most}"))),
        }
    }

    /// The body, a JSON object, whose declared type must not say otherwise.
    pub fn json(&self) -> Result<json::Object, Problem> {
        self.check_media_type()?;
        json::Object::parse(&self.body)
    }

    /// The same for requests that may come without a body.
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

    /// JSON that is text already, for instance a cell made by Postgres.
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

/// For the last arm of a handler's match: the manifest binds a route that the code does not know.
pub fn unknown_endpoint<T>(request: &Request) -> Result<T, Problem> {
    crate::log::error(
        "bound to a route it does not answer",
        &[("method", &request.method), ("route", &request.route)],
    );
    Err(Problem::internal())
}
