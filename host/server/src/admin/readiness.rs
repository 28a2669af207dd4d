//! Whether this node can do its work, and if not, why. The checks run at most a few times a second, however
//! often they are requested: meanwhile, callers get the last answers.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use switchboard_core::limits;

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Probe = Box<dyn Fn() -> Answer + Send + Sync>;
type Look = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks that must succeed for a node to take traffic. `app` adds them.
#[derive(Default)]
pub struct Readiness {
    probes: Vec<(&'static str, Probe)>,
    looks: Vec<(&'static str, Look)>,
    /// Locked while the probes run, so that concurrent callers share them.
    last: Mutex<Last>,
}

/// The last answers of the probes.
#[derive(Default)]
struct Last {
    at: Option<Instant>,
    states: BTreeMap<&'static str, State>,
}

/// The state of one check over time.
#[derive(Default)]
struct State {
    was_ok: bool,
    /// The last failure and its reason.
    failed: Option<(Instant, String)>,
    /// Why the check counts as failed now.
    reason: Option<String>,
}

#[derive(Serialize)]
pub struct Report {
    pub ready: bool,
    /// `ok`, or the reason of the failure.
    pub checks: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Adds a check that takes some time. The error is the reason, for an operator.
    pub fn check<F, A>(mut self, name: &'static str, probe: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.probes.push((name, Box::new(move || Box::pin(probe()))));
        self
    }

    /// Adds a check that takes no time. It runs for every caller, and its answer is not cached.
    pub fn look(
        mut self,
        name: &'static str,
        look: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.looks.push((name, Box::new(look)));
        self
    }

    pub async fn report(&self) -> Report {
        let mut last = self.last.lock().await;
        if last.at.is_none_or(|at| at.elapsed() >= limits::READY_KEPT) {
            let answers = self.probe().await;
            let now = Instant::now();
            for (name, answer) in answers {
                last.states.entry(name).or_default().take(answer, now);
            }
            last.at = Some(now);
        }
        let probed = last.states.iter().map(|(name, state)| (*name, state.reason.clone()));
        let looked = self.looks.iter().map(|(name, look)| (*name, look().err()));
        let checks: BTreeMap<_, _> = probed.chain(looked).collect();
        Report {
            ready: checks.values().all(Option::is_none),
            checks: checks
                .into_iter()
                .map(|(name, reason)| (name, reason.unwrap_or_else(|| "ok".to_owned())))
                .collect(),
        }
    }

    /// Runs all probes at once. A probe without an answer in time has failed.
    async fn probe(&self) -> Vec<(&'static str, Result<(), String>)> {
        let answers = self.probes.iter().map(|(name, probe)| async move {
            let answer = timeout(limits::READY_WAIT, probe()).await;
            let late = || Err(format!("no answer within {} ms", limits::READY_WAIT.as_millis()));
            (*name, answer.unwrap_or_else(|_| late()))
        });
        join_all(answers).await
    }
}

impl State {
    /// Takes a new answer. A check that fails after it was ok stays failed for `READY_HOLDS` after its last
    /// failure. Otherwise a check that fails every other time would take the node in and out of traffic. At
    /// start a node does not wait for that.
    fn take(&mut self, answer: Result<(), String>, now: Instant) {
        self.reason = match answer {
            Err(reason) => {
                self.failed = Some((now, reason.clone()));
                Some(reason)
            }
            Ok(()) => match &self.failed {
                Some((at, reason)) if self.was_ok && now < *at + limits::READY_HOLDS => {
                    let ago = now.saturating_duration_since(*at).as_millis();
                    Some(format!("{reason} ({ago} ms ago; it is ok now)"))
                }
                _ => {
                    self.was_ok = true;
                    self.failed = None;
                    None
                }
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_check_that_fails_or_hangs_is_enough_and_is_named() {
        let fine = Readiness::default().check("postgres", || async { Ok(()) });
        assert!(fine.report().await.ready);

        let report = Readiness::default()
            .check("postgres", || async { Ok(()) })
            .check("redis", || async { Err("connection refused".to_owned()) })
            .check("bus", std::future::pending)
            .look("serving", || Err("the node is draining".to_owned()))
            .report()
            .await;
        assert!(!report.ready);
        let checks: Vec<_> = report.checks.into_iter().collect();
        assert_eq!(
            checks,
            [
                ("bus", "no answer within 1000 ms".to_owned()),
                ("postgres", "ok".to_owned()),
                ("redis", "connection refused".to_owned()),
                ("serving", "the node is draining".to_owned()),
            ]
        );
    }

    #[tokio::test]
    async fn all_who_ask_at_a_time_share_one_probe() {
        let count = Arc::new(AtomicUsize::new(0));
        let readiness = Readiness::default().check("slow", {
            let count = count.clone();
            move || {
                count.fetch_add(1, Relaxed);
                async {
                    tokio::task::yield_now().await;
                    Ok(())
                }
            }
        });
        let reports = join_all((0..64).map(|_| readiness.report())).await;
        assert!(reports.iter().all(|report| report.ready));
        assert_eq!(count.load(Relaxed), 1);
    }

    #[test]
    fn a_check_that_has_failed_stays_failed_for_a_while_but_not_at_the_start() {
        let (mut state, start) = (State::default(), Instant::now());
        let mut at = |ms: u64, answer: Result<(), &str>| {
            state.take(answer.map_err(str::to_owned), start + Duration::from_millis(ms));
            state.reason.clone()
        };
        assert_eq!(at(0, Err("away")).as_deref(), Some("away"));
        assert_eq!(at(200, Ok(())), None, "the check was never ok before");
        assert_eq!(at(300, Ok(())), None, "a failure of the start is forgotten once the check is ok");
        assert_eq!(at(400, Err("away")).as_deref(), Some("away"));
        assert_eq!(at(600, Ok(())).as_deref(), Some("away (200 ms ago; it is ok now)"));
        let later = 400 + u64::try_from(limits::READY_HOLDS.as_millis()).unwrap();
        assert_eq!(at(later, Ok(())), None);
    }
}
