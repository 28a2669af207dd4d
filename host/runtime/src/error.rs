//! The error of this crate. The end of a call that has no answer is a [`crate::Failure`], which says more.

use switchboard_core::{Blame, Blamed};

/// Why the host refuses a release, or cannot run it. The reason is a sentence for the person who deploys it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct Error {
    pub reason: String,
    blame: Blame,
}

impl Error {
    pub fn new(blame: Blame, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), blame }
    }

    /// The release breaks a rule.
    pub fn of_release(reason: impl Into<String>) -> Self {
        Self::new(Blame::Guest, reason)
    }

    /// This process cannot do it; another node may.
    pub fn of_host(reason: impl Into<String>) -> Self {
        Self::new(Blame::Host, reason)
    }
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        self.blame
    }
}
