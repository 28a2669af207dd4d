//! Why a host call ends the call that made it.

/// Why the middleware ended a call. It is the error of the host call, and the guest traps with it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("more than {most} host calls")]
    HostCalls { most: u32 },
    #[error("more than {most} bytes in host calls")]
    HostBytes { most: u64 },
    #[error("more than {most_ms} ms inside the guest")]
    Cpu { most_ms: u64 },
    /// The guest broke a rule of the contract that ends the call.
    #[error("{0}")]
    Broke(String),
    /// The recording has no answer for this host call.
    #[error("diverged at host call {at}: {why}")]
    Diverged { at: usize, why: String },
    #[error("injected fault: {0}")]
    Fault(String),
    /// The recorded call waited for this answer when its deadline passed. A replay does not wait.
    #[error("no answer after {after_ms} ms")]
    Deadline { after_ms: u64 },
}
