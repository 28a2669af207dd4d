//! The refusal of a request, as HTTP and the WebSocket handshake answer it.

use hyper::StatusCode;
use hyper::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, WWW_AUTHENTICATE};

use switchboard_contract::types::Problem;
use switchboard_http::answers::{self, Answer};
use switchboard_protocol::wire::problem::Code;

/// A problem, with an additional header of the answer.
pub(super) struct Refusal {
    problem: Problem,
    header: Option<(HeaderName, String)>,
}

impl Refusal {
    pub(super) fn with(problem: Problem, header: HeaderName, value: impl Into<String>) -> Self {
        Self { problem, header: Some((header, value.into())) }
    }

    pub(super) fn answer(self, request_id: &str) -> Answer {
        let mut answer = answers::problem(&self.problem, request_id);
        if self.problem.status == 401 {
            let scheme = HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        if self.problem.status == 413 {
            // The rest of the body is not read, so no request can follow it.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some((name, value)) = self.header
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, header: None }
    }
}

/// The answer to a method that this path does not have.
pub(super) fn method_not_allowed(allow: &[String]) -> Refusal {
    let mut problem = Code::Malformed.problem("this path does not have this method");
    problem.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    Refusal::with(problem, ALLOW, allow.join(", "))
}
