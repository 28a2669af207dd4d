//! The claims of fleet schedules: one statement claims all runs that begin at one time, and gives back the
//! claims of the runs that ended before. A claim that is not given back expires by itself.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use super::Key;
use switchboard_core::limits;
use switchboard_postgres::in_time;
use switchboard_postgres::schedules::{Due, DueRun, EndedRun, Schedules};

/// A fleet schedule that is due, and the task that waits for its claim. When the claim fails, the sender is
/// dropped, and the task skips the run.
pub(super) type Waiting = (Due, oneshot::Sender<DueRun>);

#[derive(Clone)]
pub(super) struct Claims(Arc<Inner>);

struct Inner {
    schedules: Schedules,
    /// At most one for each schedule.
    ended: Mutex<Vec<Ended>>,
}

#[derive(Clone)]
struct Ended {
    run: EndedRun,
    /// When the claim is given back, unless runs are claimed before.
    give_back_at: Instant,
    /// When the claim expires.
    expires_at: Instant,
}

impl Claims {
    pub(super) fn new(schedules: Schedules) -> Self {
        Self(Arc::new(Inner { schedules, ended: Mutex::default() }))
    }

    /// Takes a run that has ended. `expires_at` is when its claim expires.
    pub(super) fn ended(&self, run: DueRun, expires_at: Instant) {
        let give_back_at = Instant::now() + limits::SCHEDULE_GIVEN_BACK_WITHIN;
        self.0.ended.lock().push(Ended { run: run.into(), give_back_at, expires_at });
    }

    /// When the next claim must be given back.
    pub(super) fn give_back_at(&self) -> Option<Instant> {
        self.0.ended.lock().iter().map(|ended| ended.give_back_at).min()
    }

    /// Claims the runs of these schedules, and gives back the claims of ended runs. When Postgres fails,
    /// returns the schedules whose claims are unknown.
    pub(super) async fn claim(self, waiting: Vec<Waiting>) -> Vec<Key> {
        let mut ended = std::mem::take(&mut *self.0.ended.lock());
        if waiting.is_empty() && ended.is_empty() {
            return Vec::new();
        }
        let mut not_claimed = Vec::new();
        let (due, mut waiting): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let began_at = Instant::now();
        let claim = self.0.schedules.claim(&due, ended.iter().map(|ended| ended.run.clone()).collect());
        // All schedules of the node wait for this statement.
        let claimed = in_time(limits::FOLLOW_WAIT, claim).await;
        match claimed {
            Ok(claimed) => {
                ended.retain(|ended| claimed.not_given_back.contains(&ended.run));
                for run in claimed.runs {
                    let is_it = |due: &&Due| due.handler == run.handler && due.name == run.name;
                    let Some(at) = due.iter().position(|due| is_it(&due)) else { continue };
                    let expires_at = began_at + due[at].run_time_max;
                    let (unused, _) = oneshot::channel();
                    // A task that does not wait any more does not run.
                    if let Err(run) = std::mem::replace(&mut waiting[at], unused).send(run) {
                        self.ended(run, expires_at);
                    }
                }
            }
            Err(error) => {
                for due in &due {
                    warn!(handler.name = %due.handler, schedule = %due.name, %error, "cannot claim a fleet schedule; this node tries again");
                }
                if due.is_empty() {
                    warn!(%error, "cannot give back the claims of fleet schedules; they expire by themselves");
                }
                not_claimed.extend(due.into_iter().map(|due| (due.handler, due.name)));
            }
        }
        let now = Instant::now();
        let left = ended.into_iter().filter(|ended| now < ended.expires_at);
        let again_at = now + limits::SCHEDULE_GIVEN_BACK_WITHIN;
        self.0.ended.lock().extend(left.map(|ended| Ended { give_back_at: again_at, ..ended }));
        not_claimed
    }
}
