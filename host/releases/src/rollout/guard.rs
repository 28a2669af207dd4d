//! Guards the canaries of this node: each is compared with the running release, at every failed call and four
//! times a second. A canary that is worse gets no more calls on this node at once, and is then withdrawn in
//! the whole fleet.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{info, warn};

use super::super::judge::{self, Cause};
use super::super::registry::{Canary, Entry};
use super::super::repository::{GUARDED_BY, Verdict};
use super::deployer::{Deployer, Origin};
use super::follow::Follower;
use crate::Error;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_runtime::{HasManifest, Load};

/// The state of one canary, until another one takes its place.
struct CanaryState<R> {
    canary: Arc<Canary<R>>,
    /// Why the canary is worse. Set until the fleet has withdrawn it.
    cause: Option<Cause>,
}

/// Withdraws canaries that are worse than the running release.
pub(super) struct CanaryGuard<L: Load> {
    deployer: Arc<Deployer<L>>,
    canary_failed: Arc<Notify>,
    hint: Arc<Notify>,
}

impl<L: Load> CanaryGuard<L> {
    pub(crate) fn new(deployer: Arc<Deployer<L>>, follower: &Follower<L>) -> Self {
        Self { deployer, canary_failed: follower.canary_failed.clone(), hint: follower.hint.clone() }
    }

    pub(crate) async fn run(&self, mut guard: ShutdownGuard) {
        let mut tick = interval(limits::CANARY_CHECK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut states: HashMap<String, CanaryState<L::Release>> = HashMap::new();
        let mut checked_at = Instant::now();
        loop {
            // A bound, so that a user who makes calls fail on purpose cannot keep a processor busy with
            // comparisons.
            sleep_until(checked_at + limits::CANARY_CHECKS_APART).await;
            tokio::select! {
                _ = tick.tick() => {}
                () = self.canary_failed.notified() => {}
                () = guard.begun() => return,
            }
            checked_at = Instant::now();
            let current = self.deployer.fleet.registry.current();
            let canaries = current.handlers().filter(|entry| entry.canary.is_some());
            let canaries: Vec<_> = canaries.cloned().collect();
            drop(current);
            states.retain(|name, state| {
                let entry = canaries.iter().find(|entry| entry.name == *name);
                let canary = entry.and_then(|entry| entry.canary.as_ref());
                canary.is_some_and(|canary| Arc::ptr_eq(canary, &state.canary))
            });
            for entry in canaries {
                self.check_canary(&entry, &mut states).await;
            }
        }
    }

    async fn check_canary(
        &self,
        entry: &Arc<Entry<L::Release>>,
        states: &mut HashMap<String, CanaryState<L::Release>>,
    ) {
        let Some(canary) = &entry.canary else { return };
        let fresh = || CanaryState { canary: canary.clone(), cause: None };
        let state = states.entry(entry.name.clone()).or_insert_with(fresh);
        if state.cause.is_none() {
            let thresholds = &canary.candidate.release.manifest().canary;
            let (canary_calls, running_calls) = (&canary.canary_calls, &canary.running_calls);
            state.cause =
                judge::judge(Instant::now(), canary.begun_at, canary_calls, running_calls, thresholds);
            let Some(cause) = &state.cause else { return };
            canary.give_up();
            let release = canary.candidate.digest.short();
            metrics::counter!("switchboard_canaries_given_up_total", "handler" => entry.name.clone())
                .increment(1);
            warn!(handler.name = %entry.name, handler.release = %release, "canary {release} of {} gets no more calls on this node and is withdrawn: {cause}", entry.name);
        }
        let Some(cause) = &state.cause else { return };
        match self.withdraw_from_fleet(entry, canary, cause).await {
            Ok(()) => {}
            // The canary gets no calls on this node. Until Postgres is back, the other nodes judge for
            // themselves.
            Err(Error::Backend(error)) => {
                tracing::debug!(%error, "the canary cannot be withdrawn yet; `poll` logs the reason");
            }
            // Another node withdrew the canary first, or an operator did.
            Err(Error::Lost { .. } | Error::NoCanary(_)) => self.hint.notify_one(),
            Err(other) => {
                warn!(handler.name = %entry.name, error = %other, "the canary of {} could not be withdrawn: {other}", entry.name)
            }
        }
    }

    async fn withdraw_from_fleet(
        &self,
        entry: &Entry<L::Release>,
        canary: &Canary<L::Release>,
        cause: &Cause,
    ) -> Result<(), Error> {
        let reason = cause.to_string();
        let verdict = Verdict {
            report: json!({
                "handler": entry.name,
                "release": canary.candidate.digest,
                "percent": canary.candidate.percent,
                "running": entry.digest,
                "node": self.deployer.fleet.node.to_string(),
                "cause": reason,
                "over": cause.over,
                "window_ms": cause.window_ms,
                "canary": cause.canary,
                "beside": cause.running,
            }),
            recording: canary.first_failure.recording().map(str::to_owned),
        };
        let before =
            self.deployer.fleet.running(&entry.name).await?.filter(|now| now.generation == entry.generation);
        let before = before.ok_or(Error::Lost { to: None })?;
        let note = format!("automatic: {reason}");
        let origin = Origin { verdict: Some(&verdict), ..Origin::new(GUARDED_BY, Some(&note)) };
        let withdrawal = self.deployer.withdraw(before, origin);
        // Do not wait for silent nodes, because other canaries must be checked. If nothing was switched, the
        // next check tries again.
        let Ok(outcome) = timeout(limits::CANARY_WINDOW_SHORT, withdrawal).await else { return Ok(()) };
        let outcome = outcome?;
        let release = canary.candidate.digest.short();
        info!(
            handler.name = %entry.name,
            handler.release = %release,
            generation = outcome.generation,
            complete = outcome.complete,
            took_ms = outcome.took_ms,
            "withdrew the canary {release} of {}",
            entry.name
        );
        Ok(())
    }
}
