//! The event that operators who watch (`switchboard tail`) see of a call: one at its end, without its input
//! and its answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::call_log::Caller;
use super::ending::Ending;
use super::failure::Failure;
use switchboard_core::ids::NodeId;
use switchboard_core::limits;
use switchboard_core::timestamp;
use switchboard_fanout::{Subject, Watches};

pub(super) struct EndedCall<'a> {
    pub handler: &'a str,
    pub release: &'a str,
    pub id: &'a str,
    pub request: Option<&'a str>,
    pub trigger: &'static str,
    pub caller: Caller<'a>,
    pub ending: Ending,
    pub failure: Option<&'a Failure>,
    pub took: Duration,
    pub cpu: Duration,
    pub host_calls: u32,
}

impl EndedCall<'_> {
    /// Shows the call to the operators whose filter it passes.
    pub(super) fn show(&self, watches: &Watches) {
        let subject = Subject {
            handler: self.handler,
            user: self.user(),
            trigger: Some(self.trigger),
            is_failure: self.ending.is_bad(),
        };
        watches.record(&subject, || self.document(watches.node()).to_string());
    }

    fn user(&self) -> Option<&str> {
        match self.caller {
            Caller::User(user) => Some(user),
            Caller::Anonymous | Caller::Event(_) | Caller::Timer(_) | Caller::Batch | Caller::Host => None,
        }
    }

    /// The detail of the failure is cut. It contains no secret (`invoke`).
    fn document(&self, node: NodeId) -> Value {
        let outcome = match self.ending {
            Ending::Answered => "returned",
            Ending::Error => "error",
            Ending::Failed(kind) => kind.as_str(),
        };
        let detail = self.failure.map(|failure| failure.detail.as_str());
        let detail = detail.map(|text| &text[..text.floor_char_boundary(limits::REASON_BYTES_MAX)]);
        json!({
            "kind": "call",
            "at": timestamp::rfc3339(timestamp::now_ms()),
            "node": node.to_string(),
            "handler": self.handler,
            "release": self.release,
            "call": self.id,
            "request_id": self.request,
            "trigger": self.trigger,
            "user": self.user(),
            "outcome": outcome,
            "failure": detail,
            "took_us": u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            "cpu_us": u64::try_from(self.cpu.as_micros()).unwrap_or(u64::MAX),
            "host_calls": self.host_calls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_failed_call_names_its_caller_and_why() {
        let failure = Failure::new(Kind::Trap, "é".repeat(limits::REASON_BYTES_MAX));
        let call = |ending, caller| EndedCall {
            handler: "send",
            release: "0123456789ab",
            id: "call-1",
            request: Some("request-1"),
            trigger: "frame",
            caller,
            ending,
            failure: matches!(ending, Ending::Failed(_)).then_some(&failure),
            took: Duration::from_micros(1500),
            cpu: Duration::from_micros(200),
            host_calls: 3,
        };
        let failed = call(Ending::Failed(Kind::Trap), Caller::User("ana")).document(NodeId::random());
        assert_eq!((failed["outcome"].as_str(), failed["user"].as_str()), (Some("trap"), Some("ana")));
        assert_eq!(failed["failure"].as_str().map(str::len), Some(limits::REASON_BYTES_MAX));
        assert_eq!(failed["took_us"], 1500);
        let hidden = Failure::new(Kind::Trap, "\u{1}".repeat(limits::REASON_BYTES_MAX));
        let hiding = EndedCall { failure: Some(&hidden), ..call(Ending::Failed(Kind::Trap), Caller::Host) };
        let bytes = hiding.document(NodeId::random()).to_string().len();
        assert!(bytes <= limits::WATCHED_EVENT_BYTES_MAX, "{bytes}");
        let answered = call(Ending::Answered, Caller::Anonymous).document(NodeId::random());
        assert_eq!(answered["outcome"], "returned");
        assert!(answered["user"].is_null() && answered["failure"].is_null(), "{answered}");
    }
}
