//! Fan-out: what is published to an address reaches every connection subscribed to it, on every node, in order.
//!
//! A handler publishes to the *bus* (Redis), which hands every node one copy. A node's *local* half keeps one *room* an
//! address: it puts the copy, encoded once, into the *outlet* of each subscriber. Pushes that carry a position are never
//! doubled, reordered or silently lost: a room that misses some asks `connection.missed`, through the mailbox of gaps.
//!
//! Nothing here knows what a frame says, and nothing here calls a handler.

use switchboard_contract as contract;
#[cfg(test)]
use switchboard_core::config;
use switchboard_core::{ids, limits};
use switchboard_protocol::{session, wire};
use switchboard_redis as redis;
use switchboard_telemetry as telemetry;

mod bus;
mod envelope;
mod hub;
mod local;
mod members;
mod missing;
mod outlet;
mod positions;
mod ring;
mod room;
mod seeded;
#[cfg(test)]
mod simulation;
pub mod wakes;

pub use hub::Hub;
pub use missing::Missing;
pub use outlet::{ConnectionInfo, Outlet, Taken};
pub use wakes::Wakes;
