//! Whose fault a failure is. Every error of the host can say it; logs, metrics and answers follow it.

use std::fmt;

/// Who would have to change something for the failure to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The asker sent what the rules forbid.
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
