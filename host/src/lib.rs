//! The Switchboard host: sockets, Postgres and Redis on one side, sandboxed handlers on the other.
//!
//! The modules by layer, lowest first. A layer uses what stands above it in this list, never what stands below.

// words

// pure: no sockets, no clock

// outside

// outside, and between the nodes

// guests

// what both edges listen with

// edges

// wiring
pub mod cli;
pub use switchboard_contract as contract;
pub use switchboard_core::{config, error, ids, limits, manifest, quota, shares, shutdown};
pub use switchboard_fanout as fanout;
pub use switchboard_harness as harness;
pub use switchboard_http::{fetch, http_server};
pub use switchboard_postgres as postgres;
pub use switchboard_protocol::{session, wire};
pub use switchboard_recording as trace;
pub use switchboard_redis as redis;
pub use switchboard_releases as releases;
pub use switchboard_runtime as runtime;
pub use switchboard_telemetry as telemetry;
pub use switchboard_server::{admin, app, gateway, revocations, triggers};
