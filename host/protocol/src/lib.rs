//! The protocol with clients, without sockets and clock: codec, frames, problems, sessions.

pub mod session;
pub mod wire;
