//! The protocol with clients, without sockets and clock: codec, frames, problems, sessions.

use switchboard_contract as contract;
use switchboard_core::{ids, limits};

pub mod session;
pub mod wire;
