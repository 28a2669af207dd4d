//! The error of this crate: why a node could not start. It holds the error of the part that failed.

use std::io;

use switchboard_core::{Blame, Blamed};

/// A part of the node could not start.
#[derive(Debug, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct Error {
    /// The part, or the setting that configures it.
    part: &'static str,
    blame: Blame,
    reason: Box<dyn std::error::Error + Send + Sync>,
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        self.blame
    }
}

/// Maps an error: `map_err(of("postgres"))`.
pub(crate) fn of<E: Blamed + Send + Sync + 'static>(part: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error { part, blame: error.blame(), reason: error.into() }
}

/// Maps an error of the operating system that a setting causes.
pub(crate) fn of_setting(part: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error { part, blame: Blame::Operator, reason: error.into() }
}

/// Maps an error of the operating system.
pub(crate) fn of_system(part: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error { part, blame: Blame::Host, reason: error.into() }
}
