//! HTTP in both directions: what all listeners share, and fetching a document.

pub mod answers;
mod error;
pub mod fetch;
pub mod http_server;

pub use error::Error;
