//! The one worker of this node that runs live calls again on shadows, and writes down what came of it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::super::shadow::{Sample, Shown, Tally, difference};
use super::{Load, Rollout};
use crate::ids::Digest;
use crate::limits;
use crate::shutdown::ShutdownGuard;

pub(super) struct Shadows<R> {
    worker: mpsc::Sender<Shown<R>>,
    /// Taken by the worker.
    shown: Mutex<Option<mpsc::Receiver<Shown<R>>>>,
    /// Of each shadow that stands, or stood until a moment ago.
    tallies: Mutex<Vec<(String, Digest, Arc<Tally>)>>,
}

impl<R> Shadows<R> {
    pub fn new() -> Self {
        let (worker, shown) = mpsc::channel(limits::SHADOWS_WAITING_MAX);
        Self { worker, shown: Mutex::new(Some(shown)), tallies: Mutex::default() }
    }

    /// The observer of what a shadow stands beside. The same shadow goes on counting where it was.
    pub fn sample(&self, handler: &str, shadow: Arc<R>, digest: Digest, percent: u8) -> Sample<R> {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tallies.iter().find(|(name, known, _)| name == handler && *known == digest);
        let tally = known.map(|(.., tally)| tally.clone()).unwrap_or_else(|| {
            let tally = Arc::<Tally>::default();
            tallies.push((handler.to_owned(), digest, tally.clone()));
            tally
        });
        Sample { handler: handler.to_owned(), percent, shadow, digest, tally, worker: self.worker.clone() }
    }
}

impl<L: Load> Rollout<L> {
    pub(super) async fn shadow(&self, guard: ShutdownGuard) {
        tokio::join!(self.run_shadows(guard.clone()), self.report_shadows(guard));
    }

    async fn run_shadows(&self, mut guard: ShutdownGuard) {
        let taken = self.shadows.shown.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut shown) = taken else { return };
        loop {
            let Shown { trace, shadow, digest, tally } = tokio::select! {
                Some(shown) = shown.recv() => shown,
                () = guard.begun() => return,
            };
            match self.loader.replay(&shadow, &trace).await {
                Ok(again) => tally.count(difference(&trace, &again)),
                Err(refusal) => {
                    debug!(handler.release = %digest.short(), call = trace.call, %refusal, "a shadow was not shown a call");
                    tally.drop_one();
                }
            }
        }
    }

    async fn report_shadows(&self, mut guard: ShutdownGuard) {
        let mut tick = interval(limits::SHADOW_REPORT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ends = tokio::select! {
                _ = tick.tick() => false,
                () = guard.begun() => true,
            };
            let tallies = self.shadows.tallies.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (name, digest, tally) in &tallies {
                let Some(seen) = tally.news() else { continue };
                if let Err(error) = self.repository.shadowed(self.node, name, *digest, &seen).await {
                    debug!(%error, "what a shadow saw is written down later");
                    tally.not_told();
                }
            }
            drop(tallies);
            // Only the list holds those that ended.
            let is_over = |tally: &Arc<Tally>| Arc::strong_count(tally) == 1 && !tally.has_news();
            let mut tallies = self.shadows.tallies.lock().unwrap_or_else(PoisonError::into_inner);
            tallies.retain(|(.., tally)| !is_over(tally));
            if ends {
                return;
            }
        }
    }
}
