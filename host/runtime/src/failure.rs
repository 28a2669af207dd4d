//! Failures: how a call into a handler can end without an answer, whose fault that is, and which problem the
//! caller gets. The problem has no details. They are in the log, under the call's id.

use switchboard_contract::types::Problem;
use switchboard_core::{Blame, Blamed, limits};
use switchboard_protocol::wire::problem::Code;

#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {detail}", kind.as_str())]
pub struct Failure {
    pub kind: Kind,
    /// Detail for operators: which bound, which trap, and where.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There was no call slot: the handler's `concurrency` or the node's slots are in use. Nothing ran.
    Busy,
    /// The wall deadline passed, host calls included.
    Deadline,
    /// More time inside the guest than `cpu_ms`.
    Cpu,
    /// The guest asked for more memory than `memory_mib`, and trapped.
    Memory,
    /// The guest asked for more memory than this node has left for its release, and trapped.
    NodeMemory,
    HostCalls,
    HostBytes,
    /// The guest trapped, recursed without end, or broke the contract.
    Trap,
    /// The answer breaks a rule of the contract (`answer.rs`), so the host did not send it.
    Answer,
    /// A replay got a host call that the recording does not contain.
    Diverged,
    /// The release does not answer this trigger. `Runtime::load` makes sure that a bound trigger is answered.
    NotExported,
    /// This process failed.
    Host,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Busy,
        Self::Deadline,
        Self::Cpu,
        Self::Memory,
        Self::NodeMemory,
        Self::HostCalls,
        Self::HostBytes,
        Self::Trap,
        Self::Answer,
        Self::Diverged,
        Self::NotExported,
        Self::Host,
    ];

    pub fn blame(self) -> Blame {
        match self {
            // A passed deadline is the guest's fault, because the guest chose its statements.
            Self::Deadline
            | Self::Cpu
            | Self::Memory
            | Self::HostCalls
            | Self::HostBytes
            | Self::Trap
            | Self::Answer
            | Self::Diverged => Blame::Guest,
            Self::Busy | Self::NodeMemory | Self::NotExported | Self::Host => Blame::Host,
        }
    }

    /// Returns the value of the `outcome` label in metrics, logs, spans and recordings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Deadline => "deadline",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::NodeMemory => "node_memory",
            Self::HostCalls => "host_calls",
            Self::HostBytes => "host_bytes",
            Self::Trap => "trap",
            Self::Answer => "answer",
            Self::Diverged => "diverged",
            Self::NotExported => "not_exported",
            Self::Host => "host",
        }
    }
}

impl Failure {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// Returns true when the call certainly had no effect.
    pub fn had_no_effect(&self) -> bool {
        matches!(self.kind, Kind::Busy | Kind::NotExported)
    }

    /// Returns the problem for the caller.
    pub fn problem(&self) -> Problem {
        match self.kind {
            Kind::Busy => Code::Unavailable
                .problem("too many calls at a time, try again")
                .retry_after(limits::CALL_RETRY_AFTER),
            Kind::NodeMemory => Code::Unavailable
                .problem("the node has no memory left for this request, it may or may not have been done")
                .retry_after(limits::CALL_RETRY_AFTER),
            Kind::Deadline => Code::Unavailable
                .problem("the answer took too long, it may or may not have been done")
                .retry_after(limits::CALL_RETRY_AFTER),
            _ => Code::Internal.problem("this request could not be handled"),
        }
    }
}

impl Blamed for Failure {
    fn blame(&self) -> Blame {
        self.kind.blame()
    }
}
