//! Detects a new position epoch of Postgres, after a failover to a replica that lagged, or after a restore.
//! The positions that this node remembers then belong to a history that no longer exists. This task only
//! notifies the consumers and the hub; each of them reads its positions again.

use std::sync::Arc;

use tracing::{info, warn};

use super::state::Triggers;
use switchboard_core::shutdown::ShutdownGuard;

pub(super) async fn run(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let mut polls = triggers.poll.results();
    loop {
        tokio::select! {
            () = guard.begun() => return,
            Ok(()) = polls.changed() => {}
        }
        // Without Postgres the epoch is unknown.
        let polled = polls.borrow_and_update().clone();
        let Some(Ok(snapshot)) = polled else { continue };
        let epoch = snapshot.epoch;
        let before = *triggers.epochs.borrow();
        if before == Some(epoch) {
            continue;
        }
        match before {
            None => info!(epoch, "read the position epoch of the database"),
            Some(before) => {
                metrics::counter!("switchboard_position_epochs_total").increment(1);
                warn!(
                    epoch,
                    before,
                    "the database is in a new position epoch: it failed over or was restored. Commits that were not \
                     replicated are lost; subscribers are notified which of their messages are no longer stored"
                );
            }
        }
        // The consumers first, so that they claim their cursors again before they publish.
        triggers.epochs.send_replace(Some(epoch));
        if before.is_some() {
            triggers.hub.history_changed();
        }
    }
}
