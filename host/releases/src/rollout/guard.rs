//! Looks after the canaries of this node: each is compared with what runs beside it, at every failing call and four times a
//! second. One that is worse gets nobody here at once, and is taken back for the whole fleet.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{info, warn};

use super::super::judge::{self, Cause};
use super::super::outcome::Refused;
use super::super::registry::{Canary, Declares, Entry};
use super::super::repository::{GUARDED_BY, Verdict};
use super::{Load, Rollout};
use crate::limits;
use crate::shutdown::ShutdownGuard;

/// One canary, as long as its generation stands.
struct Case {
    generation: i64,
    /// Found bad; the fleet has not been told yet.
    cause: Option<Cause>,
}

impl<L: Load> Rollout<L> {
    pub(super) async fn guard(&self, mut guard: ShutdownGuard) {
        let mut tick = interval(limits::CANARY_LOOKS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut cases: HashMap<String, Case> = HashMap::new();
        let mut looked_at = Instant::now();
        loop {
            // Whoever makes calls fail on purpose must not keep a processor busy with comparisons.
            sleep_until(looked_at + limits::CANARY_LOOKS_APART).await;
            tokio::select! {
                _ = tick.tick() => {}
                () = self.alarm.notified() => {}
                () = guard.begun() => return,
            }
            looked_at = Instant::now();
            let current = self.registry.current();
            let canaries = current.handlers().filter(|entry| entry.canary.is_some());
            let canaries: Vec<_> = canaries.cloned().collect();
            drop(current);
            cases.retain(|name, case| {
                canaries.iter().any(|entry| entry.name == *name && entry.generation == case.generation)
            });
            for entry in canaries {
                self.look_at(&entry, &mut cases).await;
            }
        }
    }

    async fn look_at(&self, entry: &Arc<Entry<L::Release>>, cases: &mut HashMap<String, Case>) {
        let Some(canary) = &entry.canary else { return };
        let fresh = || Case { generation: entry.generation, cause: None };
        let case = cases.entry(entry.name.clone()).or_insert_with(fresh);
        if case.cause.is_none() {
            let thresholds = &canary.trial.release.manifest().canary;
            let (calls, beside) = (&canary.calls, &canary.calls_beside);
            case.cause = judge::look(Instant::now(), canary.begun_at, calls, beside, thresholds);
            let Some(cause) = &case.cause else { return };
            canary.give_up();
            let release = canary.trial.digest.short();
            metrics::counter!("switchboard_canaries_given_up_total", "handler" => entry.name.clone())
                .increment(1);
            warn!(handler.name = %entry.name, handler.release = %release, "gave up the canary {release} of {}: {cause}", entry.name);
        }
        let Some(cause) = &case.cause else { return };
        match self.tell_the_fleet(entry, canary, cause).await {
            Ok(()) => {}
            // Nobody gets it on this node; the others judge for themselves until Postgres is back.
            Err(Refused::Backend(error)) => {
                tracing::debug!(%error, "cannot take a canary back yet; `look` says so aloud");
            }
            // Another node was first, or an operator.
            Err(Refused::Lost { .. } | Refused::NoCanary(_)) => self.hint.notify_one(),
            Err(other) => warn!(handler.name = %entry.name, error = %other, "cannot take a canary back"),
        }
    }

    async fn tell_the_fleet(
        &self,
        entry: &Entry<L::Release>,
        canary: &Canary<L::Release>,
        cause: &Cause,
    ) -> Result<(), Refused> {
        let said = cause.to_string();
        let verdict = Verdict {
            report: json!({
                "handler": entry.name,
                "release": canary.trial.digest,
                "percent": canary.trial.percent,
                "running": entry.digest,
                "node": self.node.to_string(),
                "cause": said,
                "over": cause.over,
                "window_ms": cause.window_ms,
                "canary": cause.canary,
                "beside": cause.running,
            }),
            trace: canary.first_failure.trace().map(str::to_owned),
        };
        let before = self.wanted(&entry.name).await?.filter(|now| now.generation == entry.generation);
        let before = before.ok_or(Refused::Lost { to: None })?;
        let note = format!("by itself: {said}");
        let taken_back = self.withdraw(before, GUARDED_BY, Some(&note), Some(&verdict), Instant::now());
        // Nodes that are silent are not waited for: other canaries are to be looked at. If nothing was switched, the next
        // look tries again.
        let Ok(outcome) = timeout(limits::CANARY_WINDOW_SHORT, taken_back).await else { return Ok(()) };
        let outcome = outcome?;
        let release = canary.trial.digest.short();
        info!(
            handler.name = %entry.name,
            handler.release = %release,
            generation = outcome.generation,
            complete = outcome.complete,
            took_ms = outcome.took_ms,
            "took the canary {release} of {} back",
            entry.name
        );
        Ok(())
    }
}
