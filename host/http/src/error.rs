//! The error of this crate: why a document could not be fetched.

use switchboard_core::{Blame, Blamed};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Documents are not fetched from such a URL.
    #[error("{0}")]
    Url(&'static str),
    /// The system has no root certificates, so no server can be verified.
    #[error("this system trusts no certificates (install ca-certificates)")]
    NoRoots,
    /// The server could not be reached.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The document is larger than this many bytes.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("the answer is incomplete: {0}")]
    Incomplete(String),
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        match self {
            Self::Url(_) | Self::NoRoots => Blame::Operator,
            Self::Unreachable(_) | Self::TooLarge(_) | Self::Incomplete(_) => Blame::Backend,
        }
    }
}
