//! What one call was asked, which host calls it made, what each answered, and how it ended. Host calls of one call are
//! strictly ordered, so the answers alone make a replay exact. Pure: who records and who replays is elsewhere.
//!
//! A trace may hold message text; it is written only where an operator asked for it, after redaction.

mod readable;
mod text;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::Digest;
use crate::limits;

pub use text::Unreadable;

/// The contract whose types the arguments and answers have. A trace of another version is not replayed.
pub const CONTRACT: &str = "switchboard:host@1.0.0";

#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub handler: String,
    pub release: Digest,
    /// The call's id.
    pub call: String,
    /// `http`, `frame`, `opened`, `closed`, `touched`, `missed`, `schedule` or `event`.
    pub trigger: String,
    /// What the export was called with: an object, a member for each field or parameter.
    pub input: Value,
    pub exchanges: Vec<Exchange>,
    /// Host calls that no longer fitted. A trace that lacks some can be read, but not replayed.
    pub left_out: u32,
    pub outcome: Outcome,
}

/// One host call.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// For instance `postgres.query`.
    pub function: String,
    /// An object, a member for each parameter.
    pub args: Value,
    /// None when the call ended while it was waiting for this answer.
    pub answer: Option<Value>,
    pub micros: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// What the export returned.
    Returned(Value),
    /// A word such as `trap` or `deadline`, and the details.
    Failed { kind: String, detail: String },
}

/// Blanks what must not be kept, in place, before anything is written. Called with every member of input, arguments and
/// answers that is an object's, at any depth.
pub type Redact = fn(member: &str, value: &mut Value);

/// Tokens and passwords, by the name of the member that holds them.
pub fn redact_secrets(member: &str, value: &mut Value) {
    const SECRET: [&str; 6] = ["token", "ticket", "secret", "password", "authorization", "cookie"];
    if SECRET.contains(&member.to_ascii_lowercase().as_str()) {
        *value = Value::String("[redacted]".into());
    }
}

impl Trace {
    pub fn write(&self, redact: Redact) -> String {
        let mut trace = self.clone();
        let outcome = match &mut trace.outcome {
            Outcome::Returned(value) => Some(value),
            Outcome::Failed { .. } => None,
        };
        for value in std::iter::once(&mut trace.input).chain(outcome) {
            redact_all(value, redact);
        }
        for exchange in &mut trace.exchanges {
            redact_all(&mut exchange.args, redact);
            exchange.answer.iter_mut().for_each(|answer| redact_all(answer, redact));
        }
        text::write(&trace)
    }

    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        text::parse(text)
    }

    /// Whether its answers are all there.
    pub fn is_whole(&self) -> bool {
        self.left_out == 0
    }
}

fn redact_all(value: &mut Value, redact: Redact) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                redact(name, member);
                redact_all(member, redact);
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| redact_all(element, redact)),
        _ => {}
    }
}

/// Takes down the host calls of one call, up to a bound.
#[derive(Debug, Default)]
pub struct Recorder {
    exchanges: Vec<Exchange>,
    bytes: u64,
    left_out: u32,
}

impl Recorder {
    /// A host call begins. `bytes` is what its arguments weigh.
    pub fn asked(&mut self, function: &str, bytes: u64, args: impl FnOnce() -> Value) {
        if self.left_out > 0 || self.bytes + bytes > limits::TRACE_BYTES_MAX {
            self.left_out += 1;
            return;
        }
        self.bytes += bytes;
        self.exchanges.push(Exchange {
            function: function.to_owned(),
            args: args(),
            answer: None,
            micros: 0,
        });
    }

    /// The host call that began last is over.
    pub fn answered(&mut self, micros: u64, bytes: u64, answer: impl FnOnce() -> Value) {
        if self.left_out > 0 {
            return;
        }
        if self.bytes + bytes > limits::TRACE_BYTES_MAX {
            self.exchanges.pop();
            self.left_out = 1;
            return;
        }
        self.bytes += bytes;
        if let Some(exchange) = self.exchanges.last_mut() {
            exchange.answer = Some(answer());
            exchange.micros = micros;
        }
    }

    /// The host calls, and how many did not fit.
    pub fn finish(self) -> (Vec<Exchange>, u32) {
        (self.exchanges, self.left_out)
    }
}

/// A value of the contract as a trace holds it: what JSON carries badly in a readable form.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let mut recorder = Recorder::default();
        recorder.asked("clock.now-ms", 0, || json!({}));
        recorder.answered(1, 8, || json!(5));
        recorder.asked("redis.command", 10, || json!({}));
        recorder.answered(1, limits::TRACE_BYTES_MAX, || panic!("not encoded for nothing"));
        recorder.asked("clock.now-ms", 0, || panic!("not encoded for nothing"));
        recorder.answered(1, 8, || panic!("not encoded for nothing"));
        let (exchanges, left_out) = recorder.finish();
        assert_eq!((exchanges.len(), left_out), (1, 2));
    }

    #[test]
    fn a_call_that_ended_while_waiting_has_no_answer() {
        let mut recorder = Recorder::default();
        recorder.asked("postgres.query", 10, || json!({}));
        assert_eq!(recorder.finish().0[0].answer, None);
    }
}
