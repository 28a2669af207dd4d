//! The error of this crate: a test or an invocation could not run. A test that fails is a
//! [`crate::report::Verdict`], not an error.

use std::path::PathBuf;

use switchboard_core::{Blame, Blamed};
use switchboard_runtime as runtime;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandbox refuses the release, or does not start.
    #[error(transparent)]
    Release(#[from] runtime::Error),
    /// A file that is not a test.
    #[error("{}: {reason}", path.display())]
    Case { path: PathBuf, reason: String },
    /// The input does not fit the trigger, or a service or a scenario cannot be used.
    #[error("{0}")]
    Failed(String),
}

impl From<String> for Error {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        match self {
            Self::Release(error) => error.blame(),
            Self::Case { .. } | Self::Failed(_) => Blame::Operator,
        }
    }
}
