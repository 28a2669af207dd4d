//! The grammar of errors. A crate of the host has one error type at its root, `Error`. It is [`Blamed`]: it
//! says whose fault the error is. A type that says more precisely what happened (in one part of the crate, or
//! with a statement or a call) has the name of its subject, as `RepositoryError`, and `Error` holds it.

use std::path::PathBuf;
use std::{fmt, io};

/// The party that must act to remove the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client sent something that the rules forbid.
    Client,
    /// The operator gave a wrong setting, file or command, or asked for something that the fleet cannot do
    /// now.
    Operator,
    /// A handler trapped, looped, or broke the contract.
    Guest,
    /// This process failed.
    Host,
    /// Postgres, Redis or the network to them. The same request may succeed later.
    Backend,
}

impl Blame {
    /// The value of the `blame` label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Operator => "operator",
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

/// An error that says whose fault it is.
pub trait Blamed: std::error::Error {
    fn blame(&self) -> Blame;
}

/// A setting or a manifest that the host cannot use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file with settings cannot be read.
    #[error("cannot read {path}: {1}", path = .0.display())]
    Read(PathBuf, io::Error),
    /// The setting, file or variable at `place` breaks a rule.
    #[error("{place}: {reason}")]
    Setting { place: String, reason: String },
    /// A setting without a default is not set. `variable` is its name in the environment.
    #[error("`{setting}` is not set ({variable}): {why}")]
    Missing { setting: &'static str, variable: String, why: &'static str },
    /// A manifest breaks a rule: the field, and the expected value.
    #[error("manifest: {0}")]
    Manifest(String),
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        match self {
            Self::Read(..) | Self::Setting { .. } | Self::Missing { .. } => Blame::Operator,
            Self::Manifest(_) => Blame::Guest,
        }
    }
}
