//! Log of the calls of one release, with their callers. The canary guard judges by it. A release has a log
//! only while it is a canary or is compared with one. The log separates callers, because several calls of one
//! caller are not independent evidence.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::stats::Ending;
use switchboard_core::Blame;
use switchboard_core::limits;

/// The caller of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'a> {
    User(&'a str),
    /// Any client without a token. They count as one caller, because one client can appear as any number of
    /// them.
    Anonymous,
    /// An event, by its id. An event that no release can handle is delivered repeatedly.
    Event(&'a str),
    /// No caller: a schedule, or a report of the host that concerns several users. Each such call counts as a
    /// caller of its own, and a random one of the two releases gets it.
    Itself,
}

impl Caller<'_> {
    fn number(self) -> u64 {
        // Each process has its own key, so that a caller cannot choose an id with the same hash as another
        // caller's.
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        match self {
            Self::User(id) => KEY.hash_one(("user", id)),
            Self::Anonymous => KEY.hash_one("anonymous"),
            Self::Event(id) => KEY.hash_one(("event", id)),
            Self::Itself => KEY.hash_one(("itself", NEXT.fetch_add(1, Ordering::Relaxed))),
        }
    }
}

/// A call that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logged {
    pub at: Instant,
    pub caller: u64,
    /// The call ended without an answer, by the handler's fault.
    pub is_failure: bool,
    /// As `is_failure`, or its answer is an error.
    pub is_error: bool,
    pub took: Duration,
}

/// At most [`limits::CANARY_CALLS_MAX`] calls of the last [`limits::CANARY_WINDOW_LONG`]. The oldest are
/// dropped first.
#[derive(Debug, Default)]
pub struct CallLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    calls: VecDeque<Logged>,
    /// The time of the newest call that was dropped because the log was full.
    dropped_until: Option<Instant>,
}

impl CallLog {
    /// Adds a call. A call that failed through no fault of the release is left out: it shows nothing about
    /// the release. A release has call slots and memory of its own, so one caller who takes all of them makes
    /// the calls of everybody else fail.
    pub fn record(&self, now: Instant, caller: Caller<'_>, took: Duration, ending: Ending) {
        let is_failure = match ending {
            Ending::Failed(kind) if kind.blame() != Blame::Guest => return,
            Ending::Failed(_) => true,
            Ending::Answered | Ending::Error => false,
        };
        let call = Logged { at: now, caller: caller.number(), is_failure, is_error: ending.is_bad(), took };
        let mut kept = self.lock();
        while kept.calls.front().is_some_and(|first| now - first.at > limits::CANARY_WINDOW_LONG) {
            kept.calls.pop_front();
        }
        if kept.calls.len() >= limits::CANARY_CALLS_MAX {
            kept.dropped_until = kept.calls.pop_front().map(|first| first.at);
        }
        kept.calls.push_back(call);
    }

    /// Returns the time from which the log is complete. `None`: it has dropped no call for lack of space.
    pub fn complete_since(&self) -> Option<Instant> {
        self.lock().dropped_until
    }

    /// Returns the calls after `from`.
    pub fn since(&self, from: Instant) -> Vec<Logged> {
        let kept = self.lock();
        let first = kept.calls.partition_point(|call| call.at <= from);
        kept.calls.range(first..).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn each_caller_counts_once_and_each_call_without_a_caller_counts() {
        let log = CallLog::default();
        let now = Instant::now();
        let callers = [
            Caller::User("ana"),
            Caller::User("ana"),
            Caller::User("bo"),
            Caller::Anonymous,
            Caller::Anonymous,
            Caller::Event("ana"),
            Caller::Itself,
            Caller::Itself,
        ];
        for caller in callers {
            log.record(now, caller, Duration::ZERO, Ending::Failed(Kind::Trap));
        }
        let numbers: std::collections::HashSet<u64> =
            log.since(now - Duration::from_secs(1)).iter().map(|call| call.caller).collect();
        assert_eq!(numbers.len(), 6);
    }

    #[test]
    fn a_call_that_the_host_had_no_room_for_says_nothing_about_the_release() {
        let (log, now) = (CallLog::default(), Instant::now());
        for kind in Kind::ALL {
            log.record(now, Caller::Itself, Duration::ZERO, Ending::Failed(kind));
        }
        let logged = log.since(now - Duration::from_secs(1));
        assert_eq!(logged.len(), Kind::ALL.iter().filter(|kind| kind.blame() == Blame::Guest).count());
        assert!(logged.iter().all(|call| call.is_failure && call.is_error));
        log.record(now, Caller::Itself, Duration::ZERO, Ending::Error);
        let last = *log.since(now - Duration::from_secs(1)).last().unwrap();
        assert!(last.is_error && !last.is_failure);
    }

    #[test]
    fn the_log_drops_old_calls_and_reports_calls_that_it_had_no_space_for() {
        let log = CallLog::default();
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        log.record(at(0), Caller::Itself, Duration::ZERO, Ending::Answered);
        log.record(at(61_000), Caller::Itself, Duration::ZERO, Ending::Answered);
        assert_eq!((log.since(begun - Duration::from_secs(1)).len(), log.complete_since()), (1, None));
        for n in 0..limits::CANARY_CALLS_MAX as u64 {
            log.record(at(61_001 + n / 1000), Caller::Itself, Duration::ZERO, Ending::Answered);
        }
        assert_eq!(log.complete_since(), Some(at(61_000)));
        assert_eq!(log.since(at(61_000)).len(), limits::CANARY_CALLS_MAX);
    }
}
