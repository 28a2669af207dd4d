//! Tells the host that the outbox has new events. It only makes delivery faster: the host also polls the
//! outbox.

use crate::bindings::platform::switchboard::host::wake;

/// Wakes the consumers of these shards. The insert into the outbox returns the shard numbers. Inside a
/// transaction, the wake takes effect at COMMIT.
pub fn outbox(shards: &[u32]) {
    wake::outbox(shards);
}
