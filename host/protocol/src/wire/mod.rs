//! Names and formats of the wire. No sockets.

pub mod close;
pub mod frames;
pub mod percent;
pub mod problem;
pub mod websocket;
