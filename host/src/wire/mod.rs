//! Words and shapes on the wire. No sockets.

pub mod http;
pub mod problem;
pub mod websocket;
