//! One consumer on this node: claims shards, and passes them to its reader. The node's poll renews their
//! leases. It is a task of its own, because shards can be lost and claimed while a slow call of the handler
//! runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::super::state::Triggers;
use super::reader::{CursorUpdate, Reader};
use switchboard_core::limits;
use switchboard_core::manifest::EventBinding;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_postgres as postgres;
use switchboard_postgres::outbox::{Heads, Held};
use switchboard_postgres::poll::ConsumerSnapshot;

/// Runs the consumer until the node stops, or no release of this handler consumes events any more.
pub(super) async fn run(
    triggers: Arc<Triggers>,
    name: String,
    heads: watch::Receiver<Heads>,
    mut guard: ShutdownGuard,
) {
    if let Some((release, _)) = triggers.consumer(&name) {
        let deadline = Duration::from_millis(release.manifest.limits.deadline_ms);
        triggers.progress.begun(&name, deadline, Instant::now());
    }
    // Between two steps of the reader, each shard can be lost and claimed again. Further updates wait for the
    // next step.
    let (updates, received) = mpsc::channel(2 * limits::OUTBOX_SHARDS as usize);
    let reader = Reader::new(triggers.clone(), name.clone(), heads, received, guard.clone());
    let reading = tokio::spawn(reader.run());
    let mut polls = triggers.poll.results();
    let mut is_failing = false;
    let mut leases = CursorLeases { triggers, name, cursors_exist: false, held: Vec::new(), updates };
    loop {
        let Some((_, binding)) = leases.triggers.consumer(&leases.name) else { break };
        let polled = polls.borrow_and_update().clone();
        let kept = match polled {
            Some(Err(error)) if leases.cursors_exist => Err(error),
            polled => {
                let snapshot = polled.and_then(Result::ok);
                let consumer = snapshot.as_ref().and_then(|snapshot| snapshot.consumer(&leases.name));
                leases.keep(&binding, consumer).await.map_err(Arc::new)
            }
        };
        // Logged only when the state changes: a poll that fails is repeated four times a second.
        let was_failing = std::mem::replace(&mut is_failing, kept.is_err());
        if let Err(error) = &kept {
            leases.triggers.postgres.note(error);
            if !was_failing {
                warn!(consumer = %leases.name, %error, "cannot renew or claim shards of a consumer; trying again until the leases expire");
            }
        }
        let kept = kept.map_err(|error| error.to_string());
        leases.triggers.progress.kept(&leases.name, kept, Instant::now());
        if leases.updates.is_closed() {
            break;
        }
        tokio::select! {
            () = guard.begun() => break,
            Ok(()) = polls.changed() => {}
        }
    }
    leases.triggers.poll.forget(&leases.name);
    // Without a sender, the reader saves its cursors, releases its shards and ends.
    let CursorLeases { triggers, name, updates, .. } = leases;
    drop(updates);
    if let Err(error) = reading.await {
        tracing::error!(%error, "outbox reader panicked; restarting");
    }
    triggers.progress.ended(&name);
}

struct CursorLeases {
    triggers: Arc<Triggers>,
    name: String,
    /// The rows of its cursors exist.
    cursors_exist: bool,
    held: Vec<Held>,
    updates: mpsc::Sender<CursorUpdate>,
}

impl CursorLeases {
    /// Applies what a poll read about this consumer. Without `polled`, the consumer is new on this node.
    async fn keep(
        &mut self,
        binding: &EventBinding,
        polled: Option<&ConsumerSnapshot>,
    ) -> Result<(), postgres::Error> {
        let outbox = self.triggers.postgres.outbox();
        if !self.cursors_exist {
            outbox.introduce(&self.name, binding.from).await?;
            self.cursors_exist = true;
        }
        if let Some(polled) = polled {
            let (lost, kept): (Vec<_>, Vec<_>) = self.held.iter().partition(|held| polled.has_lost(held));
            for Held { shard, .. } in lost {
                warn!(consumer = %self.name, shard, "lost a shard: another node claimed it, or the position epoch changed");
                self.notify(CursorUpdate::Lost(shard)).await;
            }
            self.held = kept;
        }
        let free = i64::from(limits::OUTBOX_SHARDS) - self.held.len() as i64;
        if free > 0 && polled.is_none_or(|polled| polled.has_free_shard) {
            self.claim(free).await?;
        }
        self.triggers.poll.hold(&self.name, &self.held);
        Ok(())
    }

    async fn claim(&mut self, free: i64) -> Result<(), postgres::Error> {
        let outbox = self.triggers.postgres.outbox();
        let node = self.triggers.node;
        for cursor in outbox.claim(&self.name, node, limits::CURSOR_LEASE, free, &self.held).await? {
            info!(consumer = %self.name, shard = cursor.shard, "claimed a shard of the outbox; this node reads it");
            // Its lease may have ended while this node held it by an earlier claim.
            self.held.retain(|held| held.shard != cursor.shard);
            self.held.push(cursor.held());
            self.notify(CursorUpdate::Claimed(cursor)).await;
        }
        Ok(())
    }

    async fn notify(&self, update: CursorUpdate) {
        // If the reader has ended, its leases expire, and a node claims the shards again.
        let _ = self.updates.send(update).await;
    }
}
