//! The protocol with clients, without sockets and clock: codec, frames, problems, sessions.

#![warn(unreachable_pub)]

pub mod session;
pub mod wire;
