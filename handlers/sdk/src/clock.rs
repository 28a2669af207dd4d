//! Time, from the host. Nothing orders by it.

/// Milliseconds since 1970 UTC. May jump.
pub use crate::bindings::platform::switchboard::host::clock::now_ms;
