//! The event trigger: it delivers events of the outbox to their consumers. Each consumer has a cursor for
//! each shard. One node at a time holds a cursor, under a lease, and calls the handler with one batch of all
//! its shards at a time. None of this state is in Redis.
//!
//! This file starts a task for each consumer, and gives them the heads of the outbox. `consumer` keeps the
//! leases, `reader` reads and settles, and `delivery` calls the handler.

mod consumer;
mod delivery;
pub(super) mod progress;
mod reader;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::state::Triggers;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_postgres::outbox::Heads;

pub(super) async fn run(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let (heads_out, heads) = watch::channel(Heads::default());
    let mut changes = triggers.registry.changes();
    let mut tasks = JoinSet::new();
    let mut consumers: HashMap<String, AbortHandle> = HashMap::new();
    // Both tasks start below, and start again if they panic.
    let (mut probing, mut maintaining) = (None, None);
    let ended = |task: &Option<AbortHandle>| task.as_ref().is_none_or(AbortHandle::is_finished);
    loop {
        if ended(&probing) {
            probing = Some(tasks.spawn(probe(triggers.clone(), heads_out.clone(), guard.clone())));
        }
        if ended(&maintaining) {
            maintaining = Some(tasks.spawn(maintain(triggers.clone(), guard.clone())));
        }
        // A consumer's task ends by itself when no release of its handler consumes events any more.
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
                    error!(%error, "event trigger task panicked; restarting");
                }
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Gives the consumers the heads of the shards, so that a lost wake delays events by at most one poll. While
/// the bus is down, the wakes of other nodes are lost, so it reads the heads every [`limits::OUTBOX_TICK`].
async fn probe(triggers: Arc<Triggers>, heads: watch::Sender<Heads>, mut guard: ShutdownGuard) {
    let mut polls = triggers.poll.results();
    let mut failing = false;
    loop {
        let bus_is_down = !triggers.hub.is_up();
        let read = tokio::select! {
            () = guard.begun() => return,
            Ok(()) = polls.changed() => match &*polls.borrow_and_update() {
                Some(Ok(snapshot)) => Ok(snapshot.heads),
                // The follower of releases logs that Postgres cannot be polled.
                Some(Err(_)) | None => continue,
            },
            () = sleep(limits::OUTBOX_TICK), if bus_is_down => triggers.postgres.outbox().heads().await,
        };
        match read {
            Ok(now) => {
                failing = false;
                triggers.progress.heads(now, Instant::now());
                heads.send_if_modified(|before| std::mem::replace(before, now) != now);
            }
            Err(error) if !failing => {
                failing = true;
                warn!(%error, "cannot read the heads of the outbox; consumers depend on wakes until Postgres answers");
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
        next = Instant::now() + limits::OUTBOX_MAINTENANCE_EVERY;
        match triggers.postgres.outbox().maintain().await {
            Ok(missed) => {
                for (consumer, events) in missed {
                    warn!(
                        consumer,
                        events,
                        "the retired consumer {consumer} has missed {events} events: their partitions were dropped"
                    );
                }
            }
            // Until the next run, rows without a partition for their day go to the default partition.
            Err(error) => {
                warn!(%error, "cannot make or drop partitions of the outbox; trying again in an hour")
            }
        }
    }
}
