//! A recording of one call: its input, its host calls with their answers, and its outcome. Host calls of one
//! call are strictly ordered, so the answers alone make a replay exact. Pure: other crates record and replay.
//!
//! A recording may hold message text. A node writes recordings only where an operator asked for it, after
//! redaction.

mod diff;
mod raw;
mod readable;
mod recorder;
mod redact;
mod scenario;
mod secrets;
mod text;
mod times;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use switchboard_core::ids::Digest;

pub use diff::{DiffPath, Difference, differences};
pub use recorder::Recorder;
pub use redact::{Redact, keep_all, redact_bodies, redact_secrets};
pub use scenario::{CallAnswer, FetchAnswer, Injection, Scenario};
pub use secrets::{Secrets, is_concealed};
pub use text::Error;
pub use times::without_times;

/// The contract that defines the types of arguments and answers. A recording of another version is not
/// replayed.
pub const CONTRACT: &str = "switchboard:host@1.0.0";

#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    pub handler: String,
    /// None in a scenario that was not recorded yet.
    pub release: Option<Digest>,
    /// The call's id.
    pub call: String,
    /// The name of the trigger, such as `http` or `before`.
    pub trigger: String,
    /// How a test repeats this call. A recording of a node has none.
    pub scenario: Option<Scenario>,
    /// The arguments of the export: an object with a member for each field or parameter.
    pub input: Value,
    pub exchanges: Vec<Exchange>,
    /// The number of host calls that did not fit. A recording that lacks some can be read, but not replayed.
    pub left_out: u32,
    pub outcome: Outcome,
}

/// One host call.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// For instance `postgres.query`.
    pub function: String,
    /// True when this host call and the ones before it, back to the first that is not marked so, may come in
    /// any order.
    pub unordered: bool,
    /// The arguments: an object with a member for each parameter.
    pub args: Value,
    /// None when the call ended while it waited for this answer.
    pub answer: Option<Value>,
    /// The duration. 0 in the recordings of tests, so that they differ only where behaviour does.
    pub micros: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// The value that the export returned.
    Returned(Value),
    /// The kind of failure, such as `trap` or `deadline`, and the details.
    Failed { kind: String, detail: String },
    /// A scenario that waits for its first recording.
    Unknown,
}

impl Recording {
    pub fn write(&self, redact: Redact) -> String {
        let mut recording = self.clone();
        redact::apply(&mut recording, redact);
        text::write(&recording)
    }

    pub fn parse(text: &str) -> Result<Self, Error> {
        text::parse(text)
    }

    /// True when no host call was left out.
    pub fn is_whole(&self) -> bool {
        self.left_out == 0
    }
}

/// Converts a value of the contract to the readable form of a recording.
pub fn value_of(value: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or_else(|error| Value::String(error.to_string()));
    readable::fold(&mut value);
    value
}

/// The inverse of [`value_of`].
pub fn value_from<T: for<'de> Deserialize<'de>>(mut value: Value) -> Result<T, serde_json::Error> {
    readable::unfold(&mut value);
    serde_json::from_value(value)
}
