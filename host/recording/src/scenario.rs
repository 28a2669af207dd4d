//! The head of a test's recording, which states how to make its call happen again. A test is one file: a
//! person writes it up to the input, the rest is recorded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Difference, Place};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// The purpose of the test, in a sentence.
    pub about: String,
    /// SQL files beside the recording, which the owner of a new database runs in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
    /// Commands to a new Redis.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redis: Vec<Vec<String>>,
    /// Settings, over the manifest's `[config]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The time of the call, RFC 3339; the default is 2026-11-20T12:00:00Z. The clock advances a millisecond
    /// at each read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// Injected failures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inject: Vec<Injection>,
    /// Values that differ each time (the rest of a time to live, a document that changes often), which are
    /// not compared: functions by name, for their answers; `outcome`, or a part of it, `outcome
    /// Ok.body.text`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volatile: Vec<String>,
}

impl Scenario {
    /// Whether a difference here does not count.
    pub fn is_volatile(&self, difference: &Difference) -> bool {
        let place = match &difference.place {
            Place::Call(_, function) if difference.path.starts_with("=> ") => function.clone(),
            Place::Call(..) => return false,
            Place::Outcome => format!("outcome {}", difference.path),
        };
        let covers = |volatile: &String| match place.strip_prefix(volatile.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with([' ', '.', '[']),
            None => false,
        };
        self.volatile.iter().any(covers)
    }
}

/// One host call that fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// `postgres.query`.
    pub call: String,
    /// Number of the call of that function, from 1.
    #[serde(default = "Injection::first", skip_serializing_if = "Injection::is_first")]
    pub nth: u32,
    /// The answer, in the form of a recording, for instance `{"Err": "Busy"}`. Without it the host call never
    /// returns, and the call ends at its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// The service does the work, and only the answer is lost.
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
    fn what_is_volatile_is_named_by_its_place() {
        let scenario = Scenario {
            volatile: vec!["redis.script".into(), "outcome Err.retry_after_ms".into()],
            ..Scenario::default()
        };
        let differs = |place, path: &str| {
            scenario.is_volatile(&Difference { place, path: path.into(), expected: None, got: None })
        };
        assert!(differs(Place::Call(1, "redis.script".into()), "=> Ok[0].Integer"));
        assert!(
            !differs(Place::Call(1, "redis.script".into()), "args[0]"),
            "what the handler asks is its own"
        );
        assert!(!differs(Place::Call(1, "redis.scripts".into()), "=> Ok"));
        assert!(differs(Place::Outcome, "Err.retry_after_ms"));
        assert!(!differs(Place::Outcome, "Err.code"));
    }
}
