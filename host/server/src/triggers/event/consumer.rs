//! One consumer on this node: claims shards, keeps their leases, and tells its reader which ones it has. A task of its own,
//! because a lease must be kept while a slow call of the handler goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};
use uuid::Uuid;

use super::super::Triggers;
use super::reader::{Lease, Reader};
use switchboard_core::limits;
use switchboard_core::manifest::EventBinding;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_postgres::outbox::{self, Heads, Held, SHARDS};
use switchboard_releases::registry::Consumer;
use switchboard_runtime::LoadedRelease;

const LEASE: Duration = Duration::from_millis(limits::CURSOR_LEASE_MS);

/// Ends when the node does, or when no release of this handler consumes events any more.
pub(super) async fn run(
    triggers: Arc<Triggers>,
    name: String,
    heads: watch::Receiver<Heads>,
    mut guard: ShutdownGuard,
) {
    if let Some((release, _)) = find(&triggers, &name) {
        let deadline = Duration::from_millis(release.manifest.limits.deadline_ms);
        triggers.progress.begun(&name, deadline, Instant::now());
    }
    // Every shard may be lost and claimed anew between two steps of the reader; more waits for the next round.
    let (tell, leases) = mpsc::channel(2 * SHARDS as usize);
    let reader = Reader::new(triggers.clone(), name.clone(), heads, leases, guard.clone());
    let reading = tokio::spawn(reader.run());
    let mut keeper = Keeper { triggers, name, introduced: false, held: Vec::new(), tell };
    let mut clock = tokio::time::interval(LEASE / 3);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut epochs = keeper.triggers.epochs.subscribe();
    loop {
        tokio::select! {
            () = guard.begun() => break,
            _ = clock.tick() => {}
            // Every cursor is of another history: claim them anew at once.
            Ok(()) = epochs.changed() => {}
        }
        let Some((_, binding)) = find(&keeper.triggers, &keeper.name) else { break };
        let kept = keeper.keep(&binding).await;
        if let Err(error) = &kept {
            keeper.triggers.postgres.note(error);
            warn!(consumer = %keeper.name, %error, "cannot keep the shards of a consumer");
        }
        let kept = kept.map_err(|error| error.to_string());
        keeper.triggers.progress.kept(&keeper.name, kept, Instant::now());
        if keeper.tell.is_closed() {
            break;
        }
    }
    // Told no more, the reader saves its cursors and gives its shards back.
    let Keeper { triggers, name, tell, .. } = keeper;
    drop(tell);
    if let Err(error) = reading.await {
        tracing::error!(%error, "a reader of the outbox ended badly, it is started again");
    }
    triggers.progress.ended(&name);
}

struct Keeper {
    triggers: Arc<Triggers>,
    name: String,
    /// Its cursors are there.
    introduced: bool,
    held: Vec<Held>,
    tell: mpsc::Sender<Lease>,
}

impl Keeper {
    async fn keep(&mut self, binding: &EventBinding) -> sqlx::Result<()> {
        let pool = self.triggers.postgres.host();
        if !self.introduced {
            outbox::introduce(pool, &self.name, binding.from).await?;
            self.introduced = true;
        }
        let ours = outbox::renew(pool, &self.name, self.triggers.node, LEASE, &self.held).await?;
        let (kept, lost): (Vec<_>, Vec<_>) = self.held.iter().partition(|held| ours.contains(&held.shard));
        for Held { shard, .. } in lost {
            warn!(consumer = %self.name, shard, "lost a shard: another node has it, or history went back");
            self.tell(Lease::Lost(shard)).await;
        }
        self.held = kept;
        let free = i64::from(SHARDS) - self.held.len() as i64;
        if free == 0 {
            return Ok(());
        }
        for cursor in outbox::claim(pool, &self.name, self.triggers.node, LEASE, free, &self.held).await? {
            info!(consumer = %self.name, shard = cursor.shard, "reads a shard of the outbox");
            self.held.push(cursor.held());
            self.tell(Lease::Claimed(cursor)).await;
        }
        Ok(())
    }

    async fn tell(&self, lease: Lease) {
        // A reader that is gone took its shards' cursors with it; their leases run out.
        let _ = self.tell.send(lease).await;
    }
}

/// The release of a consumer, pinned for one batch, and what it binds. A canary gets its share of batches; one that it fails
/// may be somebody else's the next time.
pub(super) fn find(triggers: &Triggers, name: &str) -> Option<(Arc<LoadedRelease>, EventBinding)> {
    let bindings = triggers.registry.current();
    let of_name = |consumer: &&Consumer<LoadedRelease>| consumer.entry.name == name;
    let consumer = bindings.consumers().iter().find(of_name)?;
    let release = consumer.entry.pick(&Uuid::now_v7().to_string()).clone();
    Some((release, consumer.binding.clone()))
}
