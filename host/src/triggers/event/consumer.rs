//! One consumer on this node: claims shards, keeps their leases, runs a task for each, and passes wakes on to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::super::Triggers;
use super::shard::Shard;
use crate::limits;
use crate::manifest::EventBinding;
use crate::postgres::outbox::{self, Heads, SHARDS};
use crate::releases::registry::Consumer;
use crate::runtime::Release;
use crate::shutdown::Guard;

const LEASE: Duration = Duration::from_millis(limits::CURSOR_LEASE_MS);

/// Ends when the node does, or when no release of this handler consumes events any more.
pub(super) async fn run(
    triggers: Arc<Triggers>,
    name: String,
    heads: watch::Receiver<Heads>,
    mut guard: Guard,
) {
    let ear = triggers.wakes.listen();
    let mut shards: HashMap<i16, Running> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut introduced = false;
    let mut clock = tokio::time::interval(LEASE / 3);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = guard.begun() => break,
            woken = ear.woken() => {
                for shard in woken {
                    if let Some(running) = i16::try_from(shard).ok().and_then(|shard| shards.get(&shard)) {
                        running.wake.notify_one();
                    }
                }
                continue;
            }
            Some(_) = tasks.join_next() => {}
            _ = clock.tick() => {}
        }
        shards.retain(|_, running| !running.task.is_finished());
        let Some(binding) = binding(&triggers, &name) else { break };
        if let Err(error) =
            hold(&triggers, &name, &binding, &mut introduced, &heads, &guard, &mut shards, &mut tasks).await
        {
            warn!(consumer = %name, %error, "cannot keep the shards of a consumer");
        }
        ear.owns(&shards.keys().map(|shard| *shard as u32).collect::<Vec<_>>());
    }
    for running in shards.values() {
        running.stop.send_replace(true);
    }
    // Each saves its cursor and gives its shard back.
    while tasks.join_next().await.is_some() {}
}

struct Running {
    wake: Arc<Notify>,
    stop: watch::Sender<bool>,
    task: tokio::task::AbortHandle,
}

#[allow(clippy::too_many_arguments)] // one caller; a struct for them would be named after it
async fn hold(
    triggers: &Arc<Triggers>,
    name: &str,
    binding: &EventBinding,
    introduced: &mut bool,
    heads: &watch::Receiver<Heads>,
    guard: &Guard,
    shards: &mut HashMap<i16, Running>,
    tasks: &mut JoinSet<()>,
) -> sqlx::Result<()> {
    let pool = triggers.postgres.host();
    if !*introduced {
        outbox::introduce(pool, name, binding.from).await?;
        *introduced = true;
    }
    let ours = outbox::renew(pool, name, triggers.node, LEASE).await?;
    for (shard, running) in &*shards {
        if !ours.contains(shard) {
            warn!(consumer = name, shard, "lost a shard to another node");
            running.stop.send_replace(true);
        }
    }
    let free = i64::from(SHARDS) - shards.len() as i64;
    if free == 0 {
        return Ok(());
    }
    for cursor in outbox::claim(pool, name, triggers.node, LEASE, free).await? {
        info!(consumer = name, shard = cursor.shard, "reads a shard of the outbox");
        let (wake, (stop, stopped)) = (Arc::new(Notify::new()), watch::channel(false));
        let shard = cursor.shard;
        let worker =
            Shard::new(triggers.clone(), cursor, heads.clone(), wake.clone(), stopped, guard.clone());
        let task = tasks.spawn(worker.run());
        shards.insert(shard, Running { wake, stop, task });
    }
    Ok(())
}

/// What the running release of a consumer binds.
fn binding(triggers: &Triggers, name: &str) -> Option<EventBinding> {
    find(triggers, name).map(|(_, binding)| binding)
}

/// The running release of a consumer, pinned for one batch.
pub(super) fn find(triggers: &Triggers, name: &str) -> Option<(Arc<Release>, EventBinding)> {
    let bindings = triggers.registry.current();
    let of_name = |consumer: &&Consumer<Release>| consumer.entry.name == name;
    bindings.consumers().iter().find(of_name).map(|c| (c.entry.running.clone(), c.binding.clone()))
}
