//! When the schedules are due by the clock of this node. Pure: the caller passes the time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Key;

/// The next time of each schedule.
#[derive(Default)]
pub(super) struct Timers(HashMap<Key, Instant>);

/// Whether a schedule is due, and when it is due next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Due {
    pub is_now: bool,
    pub next: Instant,
}

impl Timers {
    /// Looks at a schedule with this period. If it is due, its next period begins. A schedule that is seen
    /// for the first time is due at once.
    pub(super) fn look(&mut self, key: &Key, every: Duration, now: Instant) -> Due {
        let next = match self.0.get_mut(key) {
            Some(next) => next,
            None => self.0.entry(key.clone()).or_insert(now),
        };
        // A release may have shortened the period.
        *next = (*next).min(now + every);
        let is_now = *next <= now;
        if is_now {
            // Counted from the due time, so that late runs do not add up. If many runs were missed, counted
            // from now.
            *next = (*next + every).max(now);
        }
        Due { is_now, next: *next }
    }

    /// Makes a schedule due at this time, if it would be due later.
    pub(super) fn due_by(&mut self, key: &Key, at: Instant) {
        if let Some(next) = self.0.get_mut(key) {
            *next = (*next).min(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);

    fn key() -> Key {
        ("housekeeping".to_owned(), "clean".to_owned())
    }

    #[test]
    fn a_schedule_is_due_at_once_and_then_after_each_period() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        assert_eq!(timers.look(&key(), SECOND, start), Due { is_now: true, next: start + SECOND });
        assert!(!timers.look(&key(), SECOND, start + SECOND / 2).is_now);
        // A late run does not move the next one.
        let late = start + SECOND + SECOND / 4;
        assert_eq!(timers.look(&key(), SECOND, late), Due { is_now: true, next: start + 2 * SECOND });
        // After many missed runs, it is due once more at once.
        let much_later = start + 100 * SECOND;
        assert_eq!(timers.look(&key(), SECOND, much_later), Due { is_now: true, next: much_later });
    }

    #[test]
    fn a_shorter_period_counts_from_the_release_that_has_it() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        timers.look(&key(), HOUR, start);
        let deployed = start + 5 * SECOND;
        assert_eq!(timers.look(&key(), SECOND, deployed), Due { is_now: false, next: deployed + SECOND });
        assert!(timers.look(&key(), SECOND, deployed + SECOND).is_now);
        // A longer one begins after the next run.
        let next = timers.look(&key(), HOUR, deployed + 2 * SECOND);
        assert_eq!(next, Due { is_now: true, next: deployed + 2 * SECOND + HOUR });
    }

    #[test]
    fn a_run_that_was_not_claimed_is_due_earlier_but_never_later() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        timers.look(&key(), HOUR, start);
        timers.due_by(&key(), start + 5 * SECOND);
        assert!(timers.look(&key(), HOUR, start + 5 * SECOND).is_now);
        timers.due_by(&key(), start + 2 * HOUR);
        assert!(timers.look(&key(), HOUR, start + 5 * SECOND + HOUR).is_now);
    }
}
