//! A scenario: how a test repeats its call. It is the head of the test's recording. A test is one
//! file: a person writes the part up to the input, and the rest is recorded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{DiffPath, Difference};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// The behaviour that this test protects, in one sentence.
    pub about: String,
    /// SQL files beside the recording. The owner of a new database runs them in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
    /// Commands for a new Redis.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redis: Vec<Vec<String>>,
    /// Settings that override the manifest's `[config]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Values of granted secrets. One that is not here has the value `secret NAME of a test`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The time of the call in RFC 3339; by default 2026-11-20T12:00:00Z. The clock advances by a millisecond
    /// at each reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// Answers of web services, so that the test needs no network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<FetchAnswer>,
    /// Answers of other handlers, so that the test needs none of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallAnswer>,
    /// The faults to inject.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inject: Vec<Injection>,
    /// Values that change with each run, such as a remaining time to live, and so are not compared. Functions
    /// are named for their answers; `outcome`, or a part of it such as `outcome Ok.body.text`, for the
    /// outcome.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volatile: Vec<String>,
}

impl Scenario {
    /// True when the difference is in a volatile value.
    pub fn is_volatile(&self, difference: &Difference) -> bool {
        let location = match &difference.location {
            DiffPath::Call(_, function) if difference.path.starts_with("=> ") => function.clone(),
            DiffPath::Call(..) => return false,
            DiffPath::Outcome => format!("outcome {}", difference.path),
        };
        let covers = |volatile: &String| match location.strip_prefix(volatile.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with([' ', '.', '[']),
            None => false,
        };
        self.volatile.iter().any(covers)
    }
}

/// The answer to fetches of one method and URL. With several for the same, the first fetch gets the first,
/// and so on; the last one repeats. A fetch that is not granted gets none of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchAnswer {
    #[serde(default = "FetchAnswer::get", skip_serializing_if = "FetchAnswer::is_get")]
    pub method: String,
    pub url: String,
    #[serde(default = "FetchAnswer::ok", skip_serializing_if = "FetchAnswer::is_ok")]
    pub status: u16,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A text, `{"hex": …}`, or any other JSON, which becomes its text. Without it the body is empty.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
}

impl FetchAnswer {
    fn get() -> String {
        "GET".to_owned()
    }

    fn is_get(method: &str) -> bool {
        method == "GET"
    }

    fn ok() -> u16 {
        200
    }

    fn is_ok(status: &u16) -> bool {
        *status == 200
    }

    /// The answer in the form of a recording.
    pub fn response(&self) -> Value {
        let body = body(&self.body);
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| json!([name, value])).collect();
        json!({ "status": self.status, "headers": headers, "body": body, "url": self.url })
    }
}

/// The answer to calls of one method of another handler. With several for the same, the first call gets the
/// first, and so on; the last one repeats. A call that is not granted gets none of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallAnswer {
    pub handler: String,
    pub method: String,
    /// A text, `{"hex": …}`, or any other JSON, which becomes its text. Without it the body is empty.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
    /// The handler answers with this problem instead; `status` and `code` are enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Map<String, Value>>,
}

impl CallAnswer {
    /// The answer in the form of a recording.
    pub fn result(&self) -> Value {
        let Some(given) = &self.problem else {
            return json!({ "Ok": { "body": body(&self.body) } });
        };
        let mut problem = json!({ "detail": "as the test says", "field": null, "retry_after_ms": null });
        if let Some(members) = problem.as_object_mut() {
            members.extend(given.clone());
        }
        json!({ "Err": { "Problem": problem } })
    }
}

/// A body as the author of a test writes it, in the form of a recording.
fn body(written: &Value) -> Value {
    match written {
        Value::Null => json!({ "text": "" }),
        Value::String(text) => json!({ "text": text }),
        Value::Object(members) if members.len() == 1 && members.contains_key("hex") => written.clone(),
        other => json!({ "text": other.to_string() }),
    }
}

/// One host call that gets a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// `postgres.query`.
    pub call: String,
    /// The number of the host call among those of that function in this call, from 1.
    #[serde(default = "Injection::first", skip_serializing_if = "Injection::is_first")]
    pub nth: u32,
    /// The answer instead of the real one, in the form of a recording, for instance `{"Err": "Busy"}`.
    /// Without it the host call never returns, and the call ends at its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// True when the service executes the host call, but the answer is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl Injection {
    fn first() -> u32 {
        1
    }

    fn is_first(nth: &u32) -> bool {
        *nth == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_web_service_has_the_form_of_a_recording() {
        let answer = |text: &str| serde_json::from_str::<FetchAnswer>(text).unwrap().response();
        let url = "https://x.example/a";
        assert_eq!(
            answer(r#"{"url": "https://x.example/a", "body": {"a": 1}, "headers": {"etag": "x"}}"#),
            json!({ "status": 200, "headers": [["etag", "x"]], "body": { "text": "{\"a\":1}" }, "url": url })
        );
        let hex = answer(
            r#"{"method": "POST", "url": "https://x.example/a", "status": 404, "body": {"hex": "ff"}}"#,
        );
        assert_eq!((&hex["status"], &hex["body"]), (&json!(404), &json!({ "hex": "ff" })));
        assert_eq!(answer(r#"{"url": "https://x.example/a"}"#)["body"], json!({ "text": "" }));
        // It can be read back as the contract's type.
        crate::value_from::<switchboard_contract::fetch::Response>(hex).unwrap();
    }

    #[test]
    fn an_answer_of_another_handler_has_the_form_of_a_recording() {
        let answer = |text: &str| serde_json::from_str::<CallAnswer>(text).unwrap().result();
        let ok = answer(r#"{"handler": "directory", "method": "profile", "body": {"name": "Ana"}}"#);
        assert_eq!(ok, json!({ "Ok": { "body": { "text": r#"{"name":"Ana"}"# } } }));
        let mut wrong = answer(
            r#"{"handler": "directory", "method": "profile", "problem": {"status": 404, "code": "gone"}}"#,
        );
        // It can be read back as the contract's type.
        let error = crate::value_from::<switchboard_contract::calls::Error>(wrong["Err"].take()).unwrap();
        let switchboard_contract::calls::Error::Problem(problem) = error else { panic!("{error:?}") };
        assert_eq!((problem.status, problem.code.as_str(), problem.field), (404, "gone", None));
    }

    #[test]
    fn what_is_volatile_is_named_by_its_place() {
        let scenario = Scenario {
            volatile: vec!["redis.script".into(), "outcome Err.retry_after_ms".into()],
            ..Scenario::default()
        };
        let differs = |location, path: &str| {
            scenario.is_volatile(&Difference { location, path: path.into(), expected: None, got: None })
        };
        assert!(differs(DiffPath::Call(1, "redis.script".into()), "=> Ok[0].Integer"));
        assert!(
            !differs(DiffPath::Call(1, "redis.script".into()), "args[0]"),
            "the arguments of the handler are never volatile"
        );
        assert!(!differs(DiffPath::Call(1, "redis.scripts".into()), "=> Ok"));
        assert!(differs(DiffPath::Outcome, "Err.retry_after_ms"));
        assert!(!differs(DiffPath::Outcome, "Err.code"));
    }
}
