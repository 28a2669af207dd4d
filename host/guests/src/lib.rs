//! Compiles the handler crates of a directory to core modules of WebAssembly, with the author's cargo.
//! `switchboard build` makes releases of them. The program `compile-guests` only compiles: a first build runs
//! it beside the compilation of the host.

mod error;
mod route;
mod workspace;

pub use error::Error;
pub use route::{Route, Std};
pub use workspace::Workspace;
