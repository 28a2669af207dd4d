//! Events of the outbox, to the handlers that consume them. Each consumer has a cursor for each shard; one node at a time
//! holds a cursor, under a lease, and calls the handler with one batch of all its shards at a time. Nothing of it is in
//! Redis.
//!
//! This file starts a task for each consumer and probes how far the outbox is; `consumer` holds the leases, `reader` reads
//! and settles, `delivery` calls the handler.

mod consumer;
mod delivery;
mod progress;
mod reader;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, warn};

pub(super) use progress::Progress;

use super::Triggers;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_postgres::outbox::{self, Heads};

/// How often partitions are made ahead and dropped behind.
const MAINTENANCE: Duration = Duration::from_secs(3600);

pub(super) async fn run(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let (heads_out, heads) = watch::channel(Heads::default());
    let mut changes = triggers.registry.changes();
    let mut tasks = JoinSet::new();
    let mut consumers: HashMap<String, AbortHandle> = HashMap::new();
    // None has begun; then each is started again if it panics.
    let (mut probing, mut maintaining) = (None, None);
    let ended = |task: &Option<AbortHandle>| task.as_ref().is_none_or(AbortHandle::is_finished);
    loop {
        if ended(&probing) {
            probing = Some(tasks.spawn(probe(triggers.clone(), heads_out.clone(), guard.clone())));
        }
        if ended(&maintaining) {
            maintaining = Some(tasks.spawn(maintain(triggers.clone(), guard.clone())));
        }
        // A consumer's task ends by itself when its handler is gone.
        consumers.retain(|_, task| !task.is_finished());
        for consumer in triggers.registry.current().consumers() {
            consumers.entry(consumer.entry.name.clone()).or_insert_with_key(|name| {
                tasks.spawn(consumer::run(triggers.clone(), name.clone(), heads.clone(), guard.clone()))
            });
        }
        tokio::select! {
            () = guard.begun() => break,
            Ok(()) = changes.changed() => {}
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "a task of the event trigger ended badly, it is started again");
                }
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// What stands behind every wake: how far the sequences of the shards are, ten times a second.
async fn probe(triggers: Arc<Triggers>, heads: watch::Sender<Heads>, mut guard: ShutdownGuard) {
    let mut clock = tokio::time::interval(Duration::from_millis(limits::OUTBOX_TICK_MS));
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut failing = false;
    loop {
        tokio::select! {
            () = guard.begun() => return,
            _ = clock.tick() => {}
        }
        match outbox::heads(triggers.postgres.host()).await {
            Ok(now) => {
                failing = false;
                triggers.progress.heads(now, Instant::now());
                heads.send_if_modified(|before| std::mem::replace(before, now) != now);
            }
            Err(error) if !failing => {
                failing = true;
                warn!(%error, "cannot see how far the outbox is");
            }
            Err(_) => {}
        }
    }
}

async fn maintain(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = guard.begun() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        next = Instant::now() + MAINTENANCE;
        match outbox::maintain(triggers.postgres.host()).await {
            Ok(missed) => {
                for (consumer, events) in missed {
                    warn!(
                        consumer,
                        events,
                        "the retired consumer {consumer} has missed {events} events of the outbox that were cleaned"
                    );
                }
            }
            // Rows without a partition of their day go to the default one meanwhile.
            Err(error) => warn!(%error, "cannot keep the outbox's partitions"),
        }
    }
}
