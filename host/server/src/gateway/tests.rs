//! Tests of the gateway from outside: real sockets, fastwebsockets as the client, a hub on the test's Redis,
//! and a few small handlers.

mod backend;
mod frames;
mod handshake;
mod rest;

use crate::gateway::connection;

fn size_of_task<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}

/// The memory of an idle connection with everything is to be at most 6 KiB. `scripts/bench` measures it.
#[test]
fn the_task_of_a_connection_is_small() {
    let bytes = size_of_task(connection::run);
    assert!(bytes <= 2048, "{bytes}");
}
