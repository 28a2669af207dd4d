//! The party at fault for a failure. Every error of the host has one; logs, metrics and answers depend on it.

use std::fmt;

/// The party that must act to remove the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client sent something that the rules forbid.
    Client,
    /// A handler trapped, looped, or broke the contract.
    Guest,
    /// This process.
    Host,
    /// Postgres, Redis or the network to them.
    Backend,
}

impl Blame {
    /// The value of the `blame` label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Guest => "guest",
            Self::Host => "host",
            Self::Backend => "backend",
        }
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
