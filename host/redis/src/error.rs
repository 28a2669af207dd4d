//! The error of this crate, for the host. A command fails with `contract::redis::Error`, which handlers get
//! too.

use switchboard_core::{Blame, Blamed};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] switchboard_core::Error),
    /// The valid generation of the keys is not known, or cannot be raised. Postgres holds it.
    #[error("cannot read the valid generation of Redis keys from Postgres: {0}")]
    Generation(Box<dyn Blamed + Send + Sync>),
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        match self {
            Self::Config(error) => error.blame(),
            Self::Generation(error) => error.blame(),
        }
    }
}
