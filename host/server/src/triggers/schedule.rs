//! The schedule trigger. A schedule of scope `node` runs on every node. A schedule of scope `fleet` runs on
//! the node that first moves its row in Postgres. If a run has not ended when the next one is due, the next
//! one is skipped. `starts` decides how many runs start at a time.

mod starts;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::warn;

use starts::Starts;

use super::state::Triggers;
use switchboard_contract::schedule::Tick;
use switchboard_core::limits;
use switchboard_core::manifest::{ScheduleBinding, Scope};
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_releases::registry::Schedule;
use switchboard_runtime::{Call, LoadedRelease, export};

/// The names of a handler and of its schedule.
type Key = (String, String);

pub(super) async fn run(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let mut clock = tokio::time::interval(limits::SCHEDULE_EVERY_MIN);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut next: HashMap<Key, Instant> = HashMap::new();
    let mut running: HashMap<Key, tokio::task::AbortHandle> = HashMap::new();
    let mut starts = Starts::new();
    let mut runs = JoinSet::new();
    loop {
        tokio::select! {
            () = guard.begun() => break,
            _ = clock.tick() => {}
            Some(_) = runs.join_next() => continue,
        }
        running.retain(|key, run: &mut tokio::task::AbortHandle| {
            let ended = run.is_finished();
            if ended {
                starts.ended(key);
            }
            !ended
        });
        let now = Instant::now();
        let current = triggers.registry.current();
        for schedule in current.schedules() {
            let key = (schedule.entry.name.clone(), schedule.binding.name.clone());
            let every = Duration::from_millis(schedule.binding.every_ms);
            let due = next.entry(key.clone()).or_insert(now);
            if *due > now {
                continue;
            }
            // Counted from the due time, so that slow ticks do not add up. If many runs were missed, counted
            // from now.
            *due = (*due + every).max(now);
            if running.contains_key(&key) {
                continue;
            }
            starts.is_due(&key);
        }
        for key in starts.begin() {
            let is_it = |schedule: &&Schedule| schedule.entry.name == key.0 && schedule.binding.name == key.1;
            // While the schedule waited, a release without it may have been deployed.
            let Some(schedule) = current.schedules().iter().find(is_it) else {
                starts.ended(&key);
                continue;
            };
            let call = Call::new(None);
            let (triggers, release) = (triggers.clone(), schedule.entry.pick(&call.id).clone());
            running.insert(key, runs.spawn(run_once(triggers, release, call, schedule.binding.clone())));
        }
    }
    // The end of the process waits for the runs, which their deadlines bound.
    while runs.join_next().await.is_some() {}
}

async fn run_once(
    triggers: Arc<Triggers>,
    release: Arc<LoadedRelease>,
    call: Call,
    binding: ScheduleBinding,
) {
    let handler = release.name();
    let due_ms = match binding.scope {
        Scope::Node => now_ms(),
        Scope::Fleet => {
            let every = Duration::from_millis(binding.every_ms);
            let lease =
                Duration::from_millis(release.manifest.limits.deadline_ms) + limits::SCHEDULE_LEASE_MARGIN;
            match triggers.postgres.schedules().claim(handler, &binding.name, every, lease).await {
                Ok(Some(turn)) => turn.due_ms,
                Ok(None) => return,
                Err(error) => {
                    warn!(handler.name = %handler, schedule = %binding.name, %error, "cannot claim a fleet schedule; this node skips the run");
                    return;
                }
            }
        }
    };
    let call_id = call.id.clone();
    let tick = Tick { name: binding.name.clone(), node: triggers.node.to_string(), due_ms };
    // The runtime has logged a call that failed.
    if let Ok(Err(reason)) = triggers.runtime.call::<export::Schedule>(&release, call, tick).await {
        metrics::counter!("switchboard_schedule_errors_total", "handler" => handler.to_owned()).increment(1);
        let release = release.digest.short();
        warn!(handler.name = %handler, handler.release = %release, schedule = %binding.name, call = %call_id, "scheduled run failed: {reason}");
    }
    if binding.scope == Scope::Fleet
        && let Err(error) = triggers.postgres.schedules().finish(handler, &binding.name).await
    {
        warn!(
            handler.name = %handler,
            schedule = %binding.name,
            %error,
            "cannot release a fleet schedule; the claim expires by itself",
        );
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
