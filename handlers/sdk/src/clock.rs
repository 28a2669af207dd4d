//! The time, which the host supplies. No handler orders anything by it.

/// Milliseconds since 1970 UTC. The value may jump forwards or backwards.
pub use crate::bindings::platform::switchboard::host::clock::now_ms;
