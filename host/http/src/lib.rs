//! HTTP in both directions: what all listeners share, fetching a document for the host, and the fetches of
//! handlers.

pub mod answers;
mod error;
pub mod fetch;
pub mod http_server;
pub mod outbound;

pub use error::Error;
