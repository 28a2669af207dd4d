//! The timer trigger: it calls handlers with their one-shot timers that are due. Postgres stores the timers,
//! and one node claims each of them for the time of a lease.
//!
//! The trigger sleeps until the next timer is due. It learns the time from three sources: a host call of this
//! node that sets a timer, the last claim, and the node's poll, which reads the next time once a second. So
//! an idle node makes no statement for timers, and a timer that a dead node has set fires at most a second
//! late.
//!
//! `queue` decides which timers are claimed and fired, `outcome` what becomes of a fired one. The statements
//! run in tasks: one that claims, one that settles.

mod outcome;
mod queue;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use outcome::outcome_of;
use queue::{Queue, QueuedTimer};

use super::state::Triggers;
use switchboard_contract::timer::Firing;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_core::{limits, timestamp};
use switchboard_postgres::timers::{Claims, Outcome, Wanted};
use switchboard_postgres::{Error, in_time};
use switchboard_runtime::{Call, LoadedRelease, export};

/// A claim begins this much after a timer is due. The clocks of node and database advance alike, but not to
/// the microsecond, and a claim that is too early is a statement for nothing.
const ROUNDING: Duration = Duration::from_millis(1);

/// A timer whose call has ended, or that did not fire.
type Settled = (QueuedTimer, Outcome);
/// When a claim began, what it wanted, and its result.
type ClaimEnd = (Instant, Vec<Wanted>, Result<Claims, Error>);
/// The outcomes, and whether they are stored.
type SettleEnd = (Vec<Settled>, Result<(), Error>);

pub(super) async fn run(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let mut changes = triggers.registry.changes();
    let mut polls = triggers.poll.results();
    let timers = triggers.postgres.timers();
    let mut firing = TimerTasks::new(triggers.clone());
    firing.bind();
    loop {
        let wake_at = firing.wake_at;
        tokio::select! {
            () = guard.begun() => break,
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {
                firing.wake_at = None;
                firing.is_due = true;
            }
            Ok(()) = changes.changed() => firing.bind(),
            Ok(()) = polls.changed() => {
                if let Some(Ok(snapshot)) = &*polls.borrow_and_update()
                    && let Some(due_in) = snapshot.timer_due_in
                {
                    firing.due_by(Instant::now() + due_in);
                }
            }
            due_at = timers.was_set() => firing.due_by(due_at),
            Some(ended) = firing.calls.join_next_with_id() => firing.call_ended(ended),
            Some(claimed) = firing.claiming.join_next() => firing.claimed(claimed),
            Some(settled) = firing.settling.join_next() => firing.settled(settled),
        }
        firing.proceed();
    }
    firing.end().await;
}

/// The work of the trigger on this node.
struct TimerTasks {
    triggers: Arc<Triggers>,
    queue: Queue,
    /// When a timer is due next, as far as this node knows.
    wake_at: Option<Instant>,
    /// A timer may be due, and no claim has begun since.
    is_due: bool,
    /// No claim begins before, unless more timers were due at the last one.
    may_claim_at: Instant,
    /// No claim begins before, because Postgres has failed.
    blocked_until: Instant,
    calls: JoinSet<Settled>,
    /// The handlers of the running calls, so that a call that panics gives back its place.
    handlers: HashMap<Id, String>,
    /// Outcomes that are not stored yet. The queue counts them as claimed, which bounds them.
    outcomes: Vec<Settled>,
    claiming: JoinSet<ClaimEnd>,
    settling: JoinSet<SettleEnd>,
    /// The handlers of the outcomes that are being stored, so that a panic there does not leave them counted.
    settling_of: Vec<String>,
    settle_again_at: Option<Instant>,
}

impl TimerTasks {
    fn new(triggers: Arc<Triggers>) -> Self {
        Self {
            triggers,
            queue: Queue::new(),
            wake_at: None,
            is_due: true,
            may_claim_at: Instant::now(),
            blocked_until: Instant::now(),
            calls: JoinSet::new(),
            handlers: HashMap::new(),
            outcomes: Vec::new(),
            claiming: JoinSet::new(),
            settling: JoinSet::new(),
            settling_of: Vec::new(),
            settle_again_at: None,
        }
    }

    /// Takes the handlers whose timers fire, after a change of the releases.
    fn bind(&mut self) {
        let bindings = self.triggers.registry.current();
        let deadlines: Vec<_> = bindings
            .timers()
            .iter()
            .map(|target| {
                let canary = target.entry.canary.as_ref().map(|canary| deadline(&canary.candidate.release));
                // A timer may fire on either of the two releases.
                let longest = deadline(&target.entry.running).max(canary.unwrap_or_default());
                (target.entry.name.clone(), longest)
            })
            .collect();
        self.triggers.poll.watch_timers(deadlines.iter().map(|(name, _)| name.clone()).collect());
        // A handler that is new here may have timers that are due.
        self.is_due |= self.queue.bind(deadlines);
    }

    fn due_by(&mut self, at: Instant) {
        let at = at + ROUNDING;
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    /// Starts what can start: calls, a claim, a statement that stores outcomes.
    fn proceed(&mut self) {
        let now = Instant::now();
        for timer in self.queue.begin() {
            self.fire(timer, now);
        }
        if self.settling.is_empty() && !self.outcomes.is_empty() {
            match self.settle_again_at.filter(|at| *at > now) {
                Some(at) => self.due_by(at),
                None => self.settle(),
            }
        }
        let has_backlog = self.queue.has_backlog();
        if self.claiming.is_empty() && (self.is_due || has_backlog) {
            self.is_due = false;
            let paced_until = if has_backlog { now } else { self.may_claim_at };
            let claim_at = paced_until.max(self.blocked_until);
            if claim_at > now {
                self.due_by(claim_at);
                return;
            }
            let wanted = self.queue.wanted();
            if !wanted.is_empty() {
                self.claim(wanted, now);
            }
        }
    }

    fn claim(&mut self, wanted: Vec<Wanted>, now: Instant) {
        self.may_claim_at = now + limits::TIMER_CLAIM_EVERY_MIN;
        let (timers, node) = (self.triggers.postgres.timers(), self.triggers.node);
        self.claiming.spawn(async move {
            let claims = in_time(limits::FOLLOW_WAIT, timers.claim(node, &wanted)).await;
            (now, wanted, claims)
        });
    }

    fn claimed(&mut self, ended: Result<ClaimEnd, JoinError>) {
        match ended {
            Ok((began_at, wanted, Ok(claims))) => {
                if let Some(next_in) = claims.next_in {
                    self.due_by(Instant::now() + next_in);
                }
                self.queue.add(&wanted, claims.timers, began_at);
            }
            Ok((_, _, Err(error))) => {
                warn!(%error, "cannot claim due timers; this node tries again");
                self.triggers.postgres.note(&error);
                self.claim_again();
            }
            Err(error) => {
                error!(%error, "the task that claims timers panicked; this node tries again");
                self.claim_again();
            }
        }
    }

    fn claim_again(&mut self) {
        self.blocked_until = Instant::now() + limits::TIMER_CLAIMED_AGAIN_AFTER;
        self.due_by(self.blocked_until);
    }

    fn fire(&mut self, timer: QueuedTimer, now: Instant) {
        let released = |after| Outcome::Released { after };
        let handler = timer.claimed.handler.clone();
        let bindings = self.triggers.registry.current();
        let Some(target) = bindings.timers().iter().find(|target| target.entry.name == handler) else {
            // The handler was retired while the timer waited. The timer stays for a later release.
            self.queue.ended(&handler);
            self.outcomes.push((timer, released(limits::TIMER_BUSY_WAIT)));
            return;
        };
        let call = Call::new(None);
        let release = target.entry.pick(&call.id).clone();
        // Another node could fire it before this call ends.
        if timer.expires_at < now + deadline(&release) {
            self.queue.ended(&handler);
            self.outcomes.push((timer, released(limits::TIMER_BUSY_WAIT)));
            return;
        }
        let attempts_max = target.binding.attempts;
        let triggers = self.triggers.clone();
        let task = self.calls.spawn(async move {
            let outcome = fire_once(&triggers, &release, call, &timer, attempts_max).await;
            (timer, outcome)
        });
        self.handlers.insert(task.id(), handler);
    }

    fn call_ended(&mut self, ended: Result<(Id, Settled), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(handler) = self.handlers.remove(&id) else { return };
        self.queue.ended(&handler);
        match ended {
            Ok((_, settled)) => self.outcomes.push(settled),
            Err(error) => {
                error!(
                    %error,
                    handler.name = %handler,
                    "the task of a timer panicked; the timer fires again after its lease"
                );
                self.queue.settled(&handler);
            }
        }
    }

    fn settle(&mut self) {
        let outcomes = std::mem::take(&mut self.outcomes);
        self.settling_of = outcomes.iter().map(|(timer, _)| timer.claimed.handler.clone()).collect();
        let timers = self.triggers.postgres.timers();
        self.settling.spawn(async move {
            let stored: Vec<_> =
                outcomes.iter().map(|(timer, outcome)| (timer.claimed.clone(), outcome.clone())).collect();
            let settled = in_time(limits::FOLLOW_WAIT, timers.settle(&stored)).await;
            (outcomes, settled)
        });
    }

    fn settled(&mut self, ended: Result<SettleEnd, JoinError>) {
        let now = Instant::now();
        match ended {
            Ok((outcomes, Ok(()))) => {
                self.settle_again_at = None;
                for (timer, outcome) in outcomes {
                    self.queue.settled(&timer.claimed.handler);
                    if let Some(delay) = outcome.delay() {
                        self.due_by(now + delay);
                    }
                }
            }
            Ok((outcomes, Err(error))) => {
                warn!(%error, "cannot store the outcomes of timers; trying again until their leases end");
                self.triggers.postgres.note(&error);
                // After its lease, a timer fires again.
                let (kept, expired): (Vec<_>, Vec<_>) =
                    outcomes.into_iter().partition(|(timer, _)| timer.expires_at > now);
                expired.iter().for_each(|(timer, _)| self.queue.settled(&timer.claimed.handler));
                self.outcomes.extend(kept);
                self.settle_again_at = Some(now + limits::TIMER_CLAIMED_AGAIN_AFTER);
            }
            Err(error) => {
                error!(%error, "the task that stores outcomes of timers panicked; the timers fire again");
                std::mem::take(&mut self.settling_of).iter().for_each(|handler| self.queue.settled(handler));
            }
        }
    }

    /// Gives back what has not begun, waits for the calls, which their deadlines bound, and stores their
    /// outcomes.
    async fn end(mut self) {
        while let Some(claimed) = self.claiming.join_next().await {
            self.claimed(claimed);
        }
        let given_back = self.queue.take_all();
        let released = Outcome::Released { after: Duration::ZERO };
        self.outcomes.extend(given_back.into_iter().map(|timer| (timer, released.clone())));
        while let Some(ended) = self.calls.join_next_with_id().await {
            self.call_ended(ended);
        }
        while let Some(settled) = self.settling.join_next().await {
            self.settled(settled);
        }
        if !self.outcomes.is_empty() {
            self.settle();
            while let Some(settled) = self.settling.join_next().await {
                self.settled(settled);
            }
        }
    }
}

fn deadline(release: &LoadedRelease) -> Duration {
    Duration::from_millis(release.manifest.limits.deadline_ms)
}

async fn fire_once(
    triggers: &Triggers,
    release: &Arc<LoadedRelease>,
    call: Call,
    timer: &QueuedTimer,
    attempts_max: u32,
) -> Outcome {
    let claimed = &timer.claimed;
    let firing = Firing {
        key: claimed.key.clone(),
        payload: claimed.payload.clone(),
        due_ms: claimed.due_ms,
        attempt: claimed.attempt,
    };
    let late_ms = timestamp::now_ms().saturating_sub(claimed.due_ms);
    if claimed.attempt == 1 {
        metrics::histogram!("switchboard_timer_late_seconds", "handler" => claimed.handler.clone())
            .record(late_ms as f64 / 1000.0);
    }
    let call_id = call.id.clone();
    let result = triggers.runtime.call::<export::Timer>(release, call, firing).await;
    let outcome = outcome_of(result, claimed.attempt, attempts_max);
    let (handler, label) = (claimed.handler.clone(), outcome.as_str());
    metrics::counter!("switchboard_timers_fired_total", "handler" => handler, "outcome" => label)
        .increment(1);
    match &outcome {
        Outcome::Done | Outcome::Released { .. } => {}
        // The runtime has logged a call that failed. A node may have thousands of such timers.
        Outcome::Postponed { after, error } => debug!(
            handler.name = %claimed.handler,
            handler.release = %release.digest.short(),
            timer.id = %claimed.id,
            call = %call_id,
            attempts = claimed.attempt,
            "timer postponed; it fires again after {after:?}: {error}",
        ),
        Outcome::Parked { error } => error!(
            handler.name = %claimed.handler,
            handler.release = %release.digest.short(),
            timer.id = %claimed.id,
            call = %call_id,
            attempts = claimed.attempt,
            "timer parked; an operator can retry or drop it: {error}",
        ),
    }
    outcome
}
