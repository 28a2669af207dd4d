//! Judges a response: returns the rule that it violates, if any.

use hyper::header::HeaderMap;
use serde_json::Value;
use switchboard_tests::rest::Answer;

use super::requests::{Case, Expected};

/// The codes of `docs/protocol.md` for faults of the caller, with their statuses.
const CODES: [(&str, &[u16]); 14] = [
    ("malformed", &[400, 405]),
    ("unauthorized", &[401]),
    ("forbidden", &[403]),
    ("not_found", &[404]),
    ("conflict", &[409]),
    ("idempotency_conflict", &[409]),
    ("conversation_full", &[409]),
    ("archived", &[409]),
    ("managed_by_class", &[409]),
    ("owner_must_hand_over", &[409]),
    ("too_large", &[413, 431]),
    ("unsupported_media_type", &[415]),
    ("invalid", &[422]),
    ("rate_limited", &[429]),
];

impl Case<'_> {
    /// One line for the report of a failure.
    pub(super) fn complaint(&self, answer: &Result<Answer, String>) -> Option<String> {
        let found = match answer {
            Err(error) => Err(error.clone()),
            Ok(answer) => self.judge(answer.status, &answer.headers, &answer.body),
        };
        let why = found.err()?;
        let shown = answer.as_ref().map_or_else(|_| String::new(), ToString::to_string);
        let shown: String = shown.chars().take(600).collect();
        Some(format!("{} `{}` as {}: {why}: {shown}", self.operation.id, self.field, self.what))
    }

    pub(super) fn judge(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
        if status >= 500 {
            return Err("a fault of the server".into());
        }
        let problem = (status >= 400).then(|| problem(status, headers, body)).transpose()?;
        if self.is_routed && !self.operation.statuses.contains(&status) {
            return Err(format!("the description lacks {status}"));
        }
        let is_expected = match &self.expected {
            Expected::Anything => status != 429,
            Expected::Status(expected) => status == *expected,
            Expected::NotThere => [400, 404, 405].contains(&status),
            Expected::Named(field) => {
                let named =
                    problem.as_ref().and_then(|problem| problem["field"].as_str()).unwrap_or_default();
                status == 422 && is_about(named, field)
            }
        };
        if is_expected { Ok(()) } else { Err(format!("not {:?}", self.expected)) }
    }
}

/// `members` covers `members[0]`, and the reverse. The key of a message may also be in a header.
fn is_about(named: &str, field: &str) -> bool {
    let within = |whole: &str, part: &str| {
        part.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let is_key = |name: &str| ["client_msg_id", "Idempotency-Key"].contains(&name);
    !named.is_empty() && (within(named, field) || within(field, named) || is_key(named) && is_key(field))
}

/// Checks a refusal against RFC 9457 and `docs/protocol.md`.
fn problem(status: u16, headers: &HeaderMap, body: &[u8]) -> Result<Value, String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if header("content-type") != Some("application/problem+json") {
        return Err("no problem document".into());
    }
    let problem: Value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
    for member in ["type", "title", "detail", "code", "request_id"] {
        if problem[member].as_str().is_none_or(str::is_empty) {
            return Err(format!("no `{member}`"));
        }
    }
    let code = problem["code"].as_str().unwrap_or_default();
    if !CODES.iter().any(|(word, statuses)| *word == code && statuses.contains(&status)) {
        return Err(format!("{code} is no word for {status}"));
    }
    if problem["status"] != status || problem["request_id"].as_str() != header("x-request-id") {
        return Err("it does not say what its head says".into());
    }
    if status == 422 && !problem["field"].is_string() {
        return Err("no `field`".into());
    }
    Ok(problem)
}
