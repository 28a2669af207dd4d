//! HTTP in both directions: what all listeners share, and fetching a document.

pub mod fetch;
pub mod http_server;
