//! A hint that the outbox has new events. Never needed for correctness.

use crate::bindings::platform::switchboard::host::wake;

/// Shards, as the insert into the outbox returned them. Inside a transaction it takes effect at COMMIT.
pub fn outbox(shards: &[u32]) {
    wake::outbox(shards);
}
