//! The error of this crate. Its reader is the author of a handler, whose tools or sources it names.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Some module was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cargo: {0}")]
    Cargo(#[source] io::Error),
    #[error("`cargo metadata` in {} failed", .0.display())]
    Metadata(PathBuf),
    #[error("cargo wrote a message that is not JSON: {0}")]
    Message(#[from] serde_json::Error),
    #[error("`{0}` is not `installed` or `debian`")]
    UnknownStd(String),
    #[error("no std for wasm32-unknown-unknown: {0}")]
    NoStd(String),
    #[error(
        "{}: no library crate with crate-type `cdylib` there, or it is no member of the workspace {}; a handler in \
         another language needs `[build]` in its handler.toml",
        .directory.display(), .root.display()
    )]
    NoCrate { directory: PathBuf, root: PathBuf },
    #[error("{}: it did not compile ({status})", .directory.display())]
    NotCompiled { directory: PathBuf, status: ExitStatus },
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |error| Self::File { path, error }
    }
}
