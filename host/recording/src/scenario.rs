//! How a test makes its call happen again: the head of its trace. A test is one file; written by hand up to its input, the
//! rest is recorded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Difference, Place};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// What this test protects, in a sentence.
    pub about: String,
    /// Files of SQL beside the trace, run by the owner of a new database, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
    /// Commands to a new Redis.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redis: Vec<Vec<String>>,
    /// Over the manifest's `[config]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// When it happens, RFC 3339; 2026-11-20T12:00:00Z unless given. The clock advances a millisecond a look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// What goes wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inject: Vec<Injection>,
    /// What is made up anew each time (what is left of a time to live, a document that everybody edits) and so not compared:
    /// functions by name, for their answers; `outcome`, or a part of it, `outcome Ok.body.text`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volatile: Vec<String>,
}

impl Scenario {
    /// Whether this is no news.
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

/// One host call that does not go as it should.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Injection {
    /// `postgres.query`.
    pub call: String,
    /// The how-manieth of that function in this call.
    #[serde(default = "Injection::first", skip_serializing_if = "Injection::is_first")]
    pub nth: u32,
    /// Instead of asking the world: as a trace writes it, for instance `{"Err": "Busy"}`. Without it the call never comes
    /// back, and ends at its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// The world does it, and the answer is lost all the same.
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
