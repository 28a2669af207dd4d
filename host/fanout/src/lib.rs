//! Fan-out: a push that is published to an address reaches every subscribed connection, on every node, in
//! order.
//!
//! A handler publishes to the *bus* (Redis), which delivers one copy to every node. The *local* part of the
//! hub keeps one *room* for each address. The room puts the copy, encoded once, into the *outlet* of each
//! subscriber. A push with a position is never delivered twice, out of order or silently lost: a room that
//! misses pushes asks `connection.missed`, through the mailbox of gaps.
//!
//! This crate does not read the content of frames, and it does not call handlers.

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
#[cfg(test)]
mod simulation;
pub mod wakes;
mod watches;

pub use envelope::Addressed;
pub use hub::Hub;
pub use missing::Missing;
pub use outlet::{ConnectionInfo, Outlet, Taken};
pub use wakes::Wakes;
pub use watches::{Subject, TooManyWatches, WatchFilter, Watched, Watches};
