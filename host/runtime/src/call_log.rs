//! The calls of one release in the last minute, with their outcomes and callers. The canary guard compares
//! the log of a canary with the log of the running release. A release has a log only during such a
//! comparison. The callers are kept apart, because several failures of one caller are not independent
//! evidence.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::ending::Ending;
use switchboard_core::Blame;
use switchboard_core::limits;

/// The origin of a call, as the canary guard counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'a> {
    /// A signed-in user, by id.
    User(&'a str),
    /// All clients without a token. They count as one caller, because one client can open any number of
    /// connections.
    Anonymous,
    /// A batch of events, by the id of its first event. An event that no release can handle is delivered
    /// repeatedly, in the end alone in its batch. All these calls count as one caller.
    Event(&'a str),
    /// A timer, by its key. All attempts of a timer count as one caller.
    Timer(&'a str),
    /// Several connections that opened or closed, in one call. All these calls count as one caller, because
    /// one of the connections may make every release fail. Their repetitions one by one have the users as
    /// callers.
    Batch,
    /// The host: a schedule is due, or the call concerns several users (touched connections, missed pushes).
    /// Each such call counts as a caller of its own, and a random one of the two releases gets it.
    Host,
}

impl Caller<'_> {
    fn hash(self) -> u64 {
        // Each process has its own key, so that a caller cannot choose an id with the same hash as another
        // caller's.
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static NEXT_OF_HOST: AtomicU64 = AtomicU64::new(0);
        match self {
            Self::User(id) => KEY.hash_one(("user", id)),
            Self::Anonymous => KEY.hash_one("anonymous"),
            Self::Event(id) => KEY.hash_one(("event", id)),
            Self::Timer(key) => KEY.hash_one(("timer", key)),
            Self::Batch => KEY.hash_one("batch"),
            Self::Host => KEY.hash_one(("host", NEXT_OF_HOST.fetch_add(1, Ordering::Relaxed))),
        }
    }
}

/// A call that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoggedCall {
    pub ended_at: Instant,
    /// A hash of the caller. It is the same for all calls of this caller in this process.
    pub caller: u64,
    /// The call ended without an answer, by the handler's fault ([`Blame::Guest`]).
    pub is_failure: bool,
    /// The call is a failure, as above, or its answer is an error.
    pub is_error: bool,
    pub took: Duration,
}

/// A log of calls. Each new call drops those that are older than [`limits::CANARY_WINDOW_LONG`] and, if there
/// are [`limits::CANARY_CALLS_MAX`], the oldest one.
#[derive(Debug, Default)]
pub struct CallLog(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// In the order in which they were recorded.
    calls: VecDeque<LoggedCall>,
    /// The end of the newest call that was dropped because the log was full.
    dropped_until: Option<Instant>,
}

impl CallLog {
    /// Adds a call that ends now. A call that failed through no fault of the release is left out: it shows
    /// nothing about the release. A release has call slots and memory of its own, so one caller who takes all
    /// of them makes the calls of everybody else fail.
    pub fn record(&self, now: Instant, caller: Caller<'_>, took: Duration, ending: Ending) {
        let is_failure = match ending {
            Ending::Failed(kind) if kind.blame() != Blame::Guest => return,
            Ending::Failed(_) => true,
            Ending::Answered | Ending::Error => false,
        };
        let call =
            LoggedCall { ended_at: now, caller: caller.hash(), is_failure, is_error: ending.is_bad(), took };
        let mut entries = self.lock();
        while entries.calls.front().is_some_and(|first| now - first.ended_at > limits::CANARY_WINDOW_LONG) {
            entries.calls.pop_front();
        }
        if entries.calls.len() >= limits::CANARY_CALLS_MAX {
            entries.dropped_until = entries.calls.pop_front().map(|first| first.ended_at);
        }
        entries.calls.push_back(call);
    }

    /// Returns the time after which no call is missing for lack of space. `None`: no call was dropped for
    /// this reason.
    pub fn complete_since(&self) -> Option<Instant> {
        self.lock().dropped_until
    }

    /// Returns the calls that ended after `time`, and not at it.
    pub fn ended_after(&self, time: Instant) -> Vec<LoggedCall> {
        let entries = self.lock();
        let first = entries.calls.partition_point(|call| call.ended_at <= time);
        entries.calls.range(first..).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn each_caller_counts_once_and_each_call_of_the_host_counts() {
        let log = CallLog::default();
        let now = Instant::now();
        let callers = [
            Caller::User("ana"),
            Caller::User("ana"),
            Caller::User("bo"),
            Caller::Anonymous,
            Caller::Anonymous,
            Caller::Event("ana"),
            Caller::Host,
            Caller::Host,
        ];
        for caller in callers {
            log.record(now, caller, Duration::ZERO, Ending::Failed(Kind::Trap));
        }
        let callers: std::collections::HashSet<u64> =
            log.ended_after(now - Duration::from_secs(1)).iter().map(|call| call.caller).collect();
        assert_eq!(callers.len(), 6);
    }

    #[test]
    fn a_call_that_the_host_had_no_room_for_says_nothing_about_the_release() {
        let (log, now) = (CallLog::default(), Instant::now());
        for kind in Kind::ALL {
            log.record(now, Caller::Host, Duration::ZERO, Ending::Failed(kind));
        }
        let logged = log.ended_after(now - Duration::from_secs(1));
        assert_eq!(logged.len(), Kind::ALL.iter().filter(|kind| kind.blame() == Blame::Guest).count());
        assert!(logged.iter().all(|call| call.is_failure && call.is_error));
        log.record(now, Caller::Host, Duration::ZERO, Ending::Error);
        let last = *log.ended_after(now - Duration::from_secs(1)).last().unwrap();
        assert!(last.is_error && !last.is_failure);
    }

    #[test]
    fn the_log_drops_old_calls_and_reports_calls_that_it_had_no_space_for() {
        let log = CallLog::default();
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        log.record(at(0), Caller::Host, Duration::ZERO, Ending::Answered);
        log.record(at(61_000), Caller::Host, Duration::ZERO, Ending::Answered);
        assert_eq!((log.ended_after(begun - Duration::from_secs(1)).len(), log.complete_since()), (1, None));
        for n in 0..limits::CANARY_CALLS_MAX as u64 {
            log.record(at(61_001 + n / 1000), Caller::Host, Duration::ZERO, Ending::Answered);
        }
        assert_eq!(log.complete_since(), Some(at(61_000)));
        assert_eq!(log.ended_after(at(61_000)).len(), limits::CANARY_CALLS_MAX);
    }
}
