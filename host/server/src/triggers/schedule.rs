//! The schedule trigger. A schedule of scope `node` runs on every node. A schedule of scope `fleet` runs on
//! the node that first moves its row in Postgres. If a run has not ended when the next one is due, the next
//! one is skipped. `due_times` and `cron_times` decide when schedules are due, `starts` decides how many runs
//! start at a time, and `claims` asks Postgres for the runs of fleet schedules.
//!
//! The trigger sleeps until a schedule is due. Runs that begin at one time share one statement.

mod claims;
mod cron_times;
mod due_times;
mod starts;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use claims::Claims;
use cron_times::CronTimes;
use due_times::DueTimes;
use starts::Starts;

use super::state::Triggers;
use switchboard_contract::schedule::Tick;
use switchboard_core::limits;
use switchboard_core::manifest::{ScheduleBinding, Scope, Timing};
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_postgres::schedules::{Due, DueRun, Next};
use switchboard_releases::registry::Schedule;
use switchboard_runtime::{Call, LoadedRelease, export};

/// The names of a handler and of its schedule.
type Key = (String, String);

pub(super) async fn run(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let mut changes = triggers.registry.changes();
    let mut times = DueTimes::new(Instant::now());
    let mut cron_times = CronTimes::default();
    let mut running: HashMap<Key, AbortHandle> = HashMap::new();
    let mut starts = Starts::new();
    let claims = Claims::new(triggers.postgres.schedules());
    let (mut runs, mut claiming) = (JoinSet::new(), JoinSet::new());
    let (mut looked_at, mut wake_at) = (Instant::now(), Instant::now());
    loop {
        tokio::select! {
            () = guard.begun() => break,
            () = sleep_until(wake_at) => {}
            Ok(()) = changes.changed() => {
                wake_at = wake_at.min(looked_at + limits::SCHEDULE_EVERY_MIN);
                continue;
            }
            Some(_) = runs.join_next() => {
                end_finished(&mut running, &mut starts);
                if let Some(at) = claims.give_back_at() {
                    wake_at = wake_at.min(at);
                }
                continue;
            }
            Some(claimed) = claiming.join_next() => {
                let not_claimed: Vec<Key> = claimed.unwrap_or_default();
                let again_at = Instant::now() + limits::SCHEDULE_CLAIMED_AGAIN_AFTER;
                let again_at_ms = now_ms() + limits::SCHEDULE_CLAIMED_AGAIN_AFTER.as_millis() as u64;
                for key in &not_claimed {
                    times.due_by(key, again_at);
                    cron_times.due_again(key, again_at_ms);
                    wake_at = wake_at.min(again_at);
                }
                continue;
            }
        }
        end_finished(&mut running, &mut starts);
        looked_at = Instant::now();
        let current = triggers.registry.current();
        wake_at = looked_at + limits::SCHEDULES_LOOKED_FOR_EVERY;
        for schedule in current.schedules() {
            let key = (schedule.entry.name.clone(), schedule.binding.name.clone());
            let (is_now, next) = match &schedule.binding.timing {
                Timing::Every(every_ms) => {
                    let due = times.look(&key, Duration::from_millis(*every_ms), looked_at);
                    (due.is_now, due.next)
                }
                Timing::Cron(cron) => {
                    let due = cron_times.look(&key, cron, now_ms());
                    // The next time may be beyond what the clock of the process can count to.
                    (due.is_now, looked_at + due.next_in.min(limits::SCHEDULES_LOOKED_FOR_EVERY))
                }
            };
            if is_now && !running.contains_key(&key) {
                starts.is_due(&key);
            }
            wake_at = wake_at.min(next);
        }
        let mut waiting = Vec::new();
        for key in starts.begin() {
            let is_it = |schedule: &&Schedule| schedule.entry.name == key.0 && schedule.binding.name == key.1;
            // While the schedule waited, a release without it may have been deployed.
            let Some(schedule) = current.schedules().iter().find(is_it) else {
                starts.ended(&key);
                continue;
            };
            let call = Call::new(None);
            let (triggers, release) = (triggers.clone(), schedule.entry.pick(&call.id).clone());
            let binding = schedule.binding.clone();
            let next = match &binding.timing {
                Timing::Every(every_ms) => Next::Every(Duration::from_millis(*every_ms)),
                Timing::Cron(cron) => {
                    let Some((due_ms, next_ms)) = cron_times.due(&key) else {
                        starts.ended(&key);
                        continue;
                    };
                    Next::At { cron: cron.to_string(), due_ms, next_ms }
                }
            };
            let run = match binding.scope {
                Scope::Node => {
                    let due_ms = match next {
                        Next::Every(_) => now_ms(),
                        Next::At { due_ms, .. } => due_ms,
                    };
                    runs.spawn(async move {
                        run_once(&triggers, &release, call, &binding, due_ms).await;
                    })
                }
                Scope::Fleet => {
                    let due = due(&release, &binding, next);
                    let lease = due.run_time_max;
                    let (claimed, claim) = oneshot::channel::<DueRun>();
                    waiting.push((due, claimed));
                    let claims = claims.clone();
                    runs.spawn(async move {
                        let Ok(run) = claim.await else { return };
                        let expires_at = Instant::now() + lease;
                        run_once(&triggers, &release, call, &binding, run.due_ms).await;
                        claims.ended(run, expires_at);
                    })
                }
            };
            running.insert(key, run);
        }
        let must_give_back = claims.give_back_at().is_some_and(|at| at <= looked_at);
        if !waiting.is_empty() || must_give_back {
            claiming.spawn(claims.clone().claim(waiting));
        }
        if starts.has_waiting() {
            wake_at = looked_at;
        }
        if let Some(at) = claims.give_back_at() {
            wake_at = wake_at.min(at);
        }
        wake_at = wake_at.max(looked_at + limits::SCHEDULE_EVERY_MIN);
    }
    // The end of the process waits for the runs, which their deadlines bound.
    while runs.join_next().await.is_some() {}
    while claiming.join_next().await.is_some() {}
    claims.claim(Vec::new()).await;
}

fn end_finished(running: &mut HashMap<Key, AbortHandle>, starts: &mut Starts) {
    running.retain(|key, run| {
        let ended = run.is_finished();
        if ended {
            starts.ended(key);
        }
        !ended
    });
}

fn due(release: &LoadedRelease, binding: &ScheduleBinding, next: Next) -> Due {
    let deadline = Duration::from_millis(release.manifest.limits.deadline_ms);
    Due {
        handler: release.name().to_owned(),
        name: binding.name.clone(),
        next,
        run_time_max: deadline + limits::SCHEDULE_LEASE_MARGIN,
    }
}

async fn run_once(
    triggers: &Triggers,
    release: &Arc<LoadedRelease>,
    call: Call,
    binding: &ScheduleBinding,
    due_ms: u64,
) {
    let call_id = call.id.clone();
    let tick = Tick { name: binding.name.clone(), node: triggers.node.to_string(), due_ms };
    // The runtime has logged a call that failed.
    if let Ok(Err(reason)) = triggers.runtime.call::<export::Schedule>(release, call, tick).await {
        let handler = release.name();
        metrics::counter!("switchboard_schedule_errors_total", "handler" => handler.to_owned()).increment(1);
        let release = release.digest.short();
        warn!(handler.name = %handler, handler.release = %release, schedule = %binding.name, call = %call_id, "scheduled run failed: {reason}");
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
