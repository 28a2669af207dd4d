//! The recording of one call: its input, its host calls with their answers, and its outcome. Host calls of
//! one call are strictly ordered, so the answers alone make a replay exact. This crate is pure: recording and
//! replaying happen elsewhere.
//!
//! A recording may contain message text. A node writes it only if an operator asked for it, after redaction.

#![warn(unreachable_pub)]

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

pub use diff::{Difference, Place, differences};
pub use recorder::Recorder;
pub use redact::{Redact, keep_all, redact_bodies, redact_secrets};
pub use scenario::{Injection, Scenario};
pub use secrets::{Secrets, is_concealed, reveal};
pub use text::Unreadable;
pub use times::without_times;

/// The contract of the arguments' and answers' types. A recording of another version is not replayed.
pub const CONTRACT: &str = "switchboard:host@1.0.0";

#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub handler: String,
    /// None for a scenario that was never recorded.
    pub release: Option<Digest>,
    /// The call's id.
    pub call: String,
    /// `http`, `frame`, `opened`, `closed`, `touched`, `missed`, `schedule` or `event`.
    pub trigger: String,
    /// How a test makes this call happen again. A call of a node has none.
    pub scenario: Option<Scenario>,
    /// The input of the export: an object with a member for each field or parameter.
    pub input: Value,
    pub exchanges: Vec<Exchange>,
    /// Number of host calls beyond the bound. A recording that lacks some can be read, but not replayed.
    pub left_out: u32,
    pub outcome: Outcome,
}

/// One host call.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// For instance `postgres.query`.
    pub function: String,
    /// This call and the ones before it, back to the first that is not marked so, may come in any order.
    pub unordered: bool,
    /// An object with a member for each parameter.
    pub args: Value,
    /// None if the call ended while it waited for this answer.
    pub answer: Option<Value>,
    /// Duration in microseconds. 0 in the recordings of tests, so that they differ only if the behaviour
    /// differs.
    pub micros: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// The result of the export.
    Returned(Value),
    /// The kind, such as `trap` or `deadline`, and the details.
    Failed { kind: String, detail: String },
    /// A scenario that waits for its first recording.
    Unknown,
}

impl Trace {
    pub fn write(&self, redact: Redact) -> String {
        let mut trace = self.clone();
        redact::apply(&mut trace, redact);
        text::write(&trace)
    }

    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        text::parse(text)
    }

    /// Whether all answers are there.
    pub fn is_whole(&self) -> bool {
        self.left_out == 0
    }
}

/// A value of the contract in the form of recordings: values that JSON represents badly have a readable form.
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
