//! The calls of one release, one by one, with who asked: what a canary is judged by. It is kept only while a release is a
//! canary or runs beside one. Several calls of one caller are no independent evidence, so the callers are told apart.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::stats::Ending;
use crate::error::Blame;
use crate::limits;

/// Who is behind a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'a> {
    User(&'a str),
    /// All clients without a token together: one of them can be any number of clients.
    Anonymous,
    /// An event, by its id: one that no release can handle comes again and again.
    Event(&'a str),
    /// Nobody: a schedule, a report of the host. Such a call speaks for itself.
    Itself,
}

impl Caller<'_> {
    fn number(self) -> u64 {
        // Keyed anew in each process, so that nobody can choose a name to pass for another.
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

/// One call that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logged {
    pub at: Instant,
    pub caller: u64,
    /// It ended without an answer, by the handler's own fault.
    pub is_failure: bool,
    /// That, or it ended without an answer for another reason, or with one that says it could not be done.
    pub is_error: bool,
    pub took: Duration,
}

/// At most [`limits::CANARY_CALLS_MAX`] calls of the last [`limits::CANARY_WINDOW_LONG`]; the oldest go first.
#[derive(Debug, Default)]
pub struct CallLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    calls: VecDeque<Logged>,
    /// When the newest call was made that there was no room for any more.
    forgotten: Option<Instant>,
}

impl CallLog {
    pub fn record(&self, now: Instant, caller: Caller<'_>, took: Duration, ending: Ending) {
        let is_failure = matches!(ending, Ending::Failed(kind) if kind.blame() == Blame::Guest);
        let call = Logged { at: now, caller: caller.number(), is_failure, is_error: ending.is_bad(), took };
        let mut kept = self.lock();
        while kept.calls.front().is_some_and(|first| now - first.at > limits::CANARY_WINDOW_LONG) {
            kept.calls.pop_front();
        }
        if kept.calls.len() >= limits::CANARY_CALLS_MAX {
            kept.forgotten = kept.calls.pop_front().map(|first| first.at);
        }
        kept.calls.push_back(call);
    }

    /// From this moment on the log is complete.
    pub fn complete_since(&self) -> Option<Instant> {
        self.lock().forgotten
    }

    /// The calls after this moment.
    pub fn since(&self, from: Instant) -> Vec<Logged> {
        let kept = self.lock();
        let first = kept.calls.partition_point(|call| call.at <= from);
        kept.calls.range(first..).copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn callers_are_told_apart_and_calls_of_nobody_speak_for_themselves() {
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
    fn the_log_forgets_by_time_and_says_what_it_forgot_for_want_of_room() {
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
