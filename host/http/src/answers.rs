//! Common parts of the host's HTTP answers to clients and to operators: a request id, JSON, and problems. No
//! routes and no sockets.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use switchboard_contract::types::Problem;
use switchboard_core::ids::RequestId;
use switchboard_protocol::wire::problem::{self, Code};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A whole answer; the host streams none.
pub type Answer = Response<Full<Bytes>>;

/// The id of a request in logs and in its answer: that of the client if [`RequestId::parse`] accepts it,
/// otherwise a new one.
pub fn request_id(headers: &HeaderMap) -> RequestId {
    let sent = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    sent.and_then(RequestId::parse).unwrap_or_else(RequestId::random)
}

/// An answer with a body of this type.
pub fn answer(status: u16, content_type: &'static str, body: impl Into<Bytes>, request_id: &str) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = StatusCode::from_u16(status)
        .ok()
        .filter(|status| !status.is_informational())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    name(&mut answer, request_id);
    answer
}

pub fn json(status: u16, body: &impl Serialize, request_id: &str) -> Answer {
    match serde_json::to_vec(body) {
        Ok(text) => answer(status, "application/json", text, request_id),
        Err(error) => {
            tracing::error!(request_id, %error, "an answer could not be written as JSON, so the client gets a 500");
            problem(&Code::Internal.problem("the answer could not be written"), request_id)
        }
    }
}

/// An `application/problem+json` answer (RFC 9457), with `Retry-After` if the request can be repeated.
pub fn problem(problem: &Problem, request_id: &str) -> Answer {
    let body = problem::document(problem, request_id).to_string();
    let mut answer = answer(problem.status, PROBLEM_JSON, body, request_id);
    // 429 and 503 always have the header; one second is the shortest wait that it can express.
    let wait_ms = problem.retry_after_ms.or(matches!(problem.status, 429 | 503).then_some(1000));
    if let Some(ms) = wait_ms {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
    }
    answer
}

/// Adds `x-request-id`, which every answer has, also those of handlers.
pub fn name<B>(answer: &mut Response<B>, request_id: &str) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
}

/// Reads a whole body of at most `bytes_max`. A larger one is refused before it is read whole, by its
/// announced length if it has one.
pub async fn read_body<B>(headers: &HeaderMap, body: B, bytes_max: usize) -> Result<Bytes, Problem>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || Code::TooLarge.problem(format!("the body is larger than {bytes_max} bytes"));
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok()).unwrap_or(0);
    if announced > bytes_max {
        return Err(too_large());
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Code::Malformed.problem("the body ended early")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_keeps_its_own_plain_id() {
        let id_of = |sent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, sent.parse().unwrap());
            request_id(&headers)
        };
        assert_eq!(&*id_of("a-1_b.c"), "a-1_b.c");
        assert!(uuid::Uuid::parse_str(&id_of("two words")).is_ok());
    }

    #[test]
    fn a_problem_says_when_to_come_back_in_whole_seconds() {
        let wait = |problem: Problem| {
            super::problem(&problem, "r").headers().get(RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned())
        };
        assert_eq!(
            wait(Code::RateLimited.problem("slow down").retry_after(Duration::from_millis(1001))).as_deref(),
            Some("2")
        );
        assert_eq!(wait(Code::Unavailable.problem("later")).as_deref(), Some("1"));
        assert_eq!(wait(Code::NotFound.problem("no such thing")), None);
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound_and_refused_one_past_it() {
        let read = |bytes: usize| async move {
            read_body(&HeaderMap::new(), Full::new(Bytes::from(vec![b'x'; bytes])), 8).await
        };
        assert_eq!(read(8).await.unwrap().len(), 8);
        assert_eq!(read(9).await.unwrap_err().status, 413);

        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, "9".parse().unwrap());
        assert_eq!(read_body(&headers, Full::new(Bytes::new()), 8).await.unwrap_err().status, 413);
    }
}
