//! Notices that Postgres is in another position epoch: after a failover to a replica that lagged, or a restore. What this node
//! remembers of positions is then of a history that is no more. It decides nothing: each part looks up anew where it stands.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::Triggers;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_postgres::epochs;

pub(super) async fn run(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let mut clock = tokio::time::interval(Duration::from_millis(limits::EPOCH_LOOK_MS));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = guard.begun() => return,
            _ = clock.tick() => {}
        }
        // Without Postgres nothing can be said; the probe of the outbox logs that.
        let Ok(epoch) = epochs::current(triggers.postgres.host()).await else { continue };
        let before = *triggers.epochs.borrow();
        if before == Some(epoch) {
            continue;
        }
        match before {
            None => info!(epoch, "the position epoch of the database"),
            Some(before) => {
                metrics::counter!("switchboard_position_epochs_total").increment(1);
                warn!(
                    epoch,
                    before,
                    "the database is in a new position epoch: it failed over or was restored. What was acknowledged and \
                     not replicated is lost; subscribers are told which messages they have that are not stored"
                );
            }
        }
        // The cursors of the consumers, before anything is published from them.
        triggers.epochs.send_replace(Some(epoch));
        if before.is_some() {
            triggers.hub.history_changed();
        }
    }
}
