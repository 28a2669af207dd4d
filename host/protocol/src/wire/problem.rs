//! The codes of refusals, the same in `application/problem+json` (RFC 9457) and in `error` frames.

use serde_json::{Map, Value, json};

use switchboard_contract::types::Problem;

/// Every code of the host itself. Handlers may use the same or their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Malformed,
    Unauthorized,
    Forbidden,
    NotFound,
    Conflict,
    TooLarge,
    UnsupportedMediaType,
    Invalid,
    RateLimited,
    Internal,
    Unavailable,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Invalid => "invalid",
            Self::RateLimited => "rate_limited",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    pub fn problem(self, detail: impl Into<String>) -> Problem {
        Problem {
            status: self.status(),
            code: self.as_str().to_owned(),
            detail: detail.into(),
            field: None,
            retry_after_ms: None,
        }
    }
}

/// The body of an `application/problem+json` answer.
pub fn document(problem: &Problem, request_id: &str) -> Value {
    let mut document = Map::new();
    document.insert("type".into(), json!(format!("urn:switchboard:problem:{}", problem.code)));
    document.insert("title".into(), json!(problem.code.replace('_', " ")));
    document.insert("status".into(), json!(problem.status));
    document.extend(members(problem));
    document.insert("request_id".into(), json!(request_id));
    Value::Object(document)
}

/// The payload of an `error` frame.
pub fn payload(problem: &Problem) -> Value {
    let mut payload = Map::new();
    payload.extend(members(problem));
    payload.insert("message".into(), json!(problem.detail));
    payload.remove("detail");
    payload.insert("retryable".into(), json!(problem.retryable()));
    Value::Object(payload)
}

fn members(problem: &Problem) -> impl Iterator<Item = (String, Value)> {
    let optional = [
        problem.field.as_ref().map(|field| ("field".to_owned(), json!(field))),
        problem.retry_after_ms.map(|ms| ("retry_after_ms".to_owned(), json!(ms))),
    ];
    [("code".to_owned(), json!(problem.code)), ("detail".to_owned(), json!(problem.detail))]
        .into_iter()
        .chain(optional.into_iter().flatten())
}
