//! The worker of this node that runs copies of live calls on shadows, and reports the results. There is one
//! worker a node.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::super::shadow::{ShadowCall, ShadowCounts, ShadowSampler, difference};
use super::fleet::Fleet;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_runtime::Load;

pub(super) struct Shadows<R> {
    worker: mpsc::Sender<ShadowCall<R>>,
    /// The worker takes it when it starts.
    calls: Mutex<Option<mpsc::Receiver<ShadowCall<R>>>>,
    /// The counts of each shadow that is active, or was until a moment ago.
    counts: Mutex<Vec<(String, Digest, Arc<ShadowCounts>)>>,
}

impl<R> Shadows<R> {
    pub(super) fn new() -> Self {
        let (worker, calls) = mpsc::channel(limits::SHADOWS_WAITING_MAX);
        Self { worker, calls: Mutex::new(Some(calls)), counts: Mutex::default() }
    }

    /// Returns the observer of the running release's calls. The same shadow continues its counts.
    pub(super) fn sampler(
        &self,
        handler: &str,
        shadow: Arc<R>,
        digest: Digest,
        percent: u8,
    ) -> ShadowSampler<R> {
        let mut counts = self.counts.lock();
        let known = counts.iter().find(|(name, known, _)| name == handler && *known == digest);
        let counted = known.map(|(.., counted)| counted.clone()).unwrap_or_else(|| {
            let counted = Arc::<ShadowCounts>::default();
            counts.push((handler.to_owned(), digest, counted.clone()));
            counted
        });
        ShadowSampler {
            handler: handler.to_owned(),
            percent,
            shadow,
            digest,
            counts: counted,
            worker: self.worker.clone(),
        }
    }
}

/// Runs the copies of calls and reports their results.
pub(super) struct ShadowRunner<L: Load> {
    fleet: Arc<Fleet<L>>,
    shadows: Arc<Shadows<L::Release>>,
}

impl<L: Load> ShadowRunner<L> {
    pub(crate) fn new(fleet: Arc<Fleet<L>>, shadows: Arc<Shadows<L::Release>>) -> Self {
        Self { fleet, shadows }
    }

    pub(crate) async fn run(&self, guard: ShutdownGuard) {
        tokio::join!(self.run_calls(guard.clone()), self.report(guard));
    }

    async fn run_calls(&self, mut guard: ShutdownGuard) {
        let taken = self.shadows.calls.lock().take();
        let Some(mut calls) = taken else { return };
        loop {
            let ShadowCall { recording, shadow, digest, counts: counted } = tokio::select! {
                Some(call) = calls.recv() => call,
                () = guard.begun() => return,
            };
            match self.fleet.loader.replay(&shadow, &recording).await {
                Ok(again) => counted.count(difference(&recording, &again)),
                Err(refusal) => {
                    debug!(handler.release = %digest.short(), call = recording.call, %refusal, "a call could not be replayed on the shadow");
                    counted.drop_one();
                }
            }
        }
    }

    async fn report(&self, mut guard: ShutdownGuard) {
        let mut tick = interval(limits::SHADOW_REPORT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ends = tokio::select! {
                _ = tick.tick() => false,
                () = guard.begun() => true,
            };
            let counts = self.shadows.counts.lock().clone();
            for (name, digest, counted) in &counts {
                let Some(seen) = counted.take_report() else { continue };
                if let Err(error) =
                    self.fleet.repository.shadowed(self.fleet.node, name, *digest, &seen).await
                {
                    debug!(%error, "the results of a shadow could not be stored; the next report includes them");
                    counted.mark_unreported();
                }
            }
            drop(counts);
            // Only this list still holds the counts of a shadow that ended.
            let is_over =
                |counted: &Arc<ShadowCounts>| Arc::strong_count(counted) == 1 && !counted.has_unreported();
            let mut counts = self.shadows.counts.lock();
            counts.retain(|(.., counted)| !is_over(counted));
            if ends {
                return;
            }
        }
    }
}
