//! When the schedules with a period are due, by the clock of this node. Pure: the caller passes the time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Key;

/// The next time of each schedule. The runs that begin at one time share one statement. So the periods of
/// whole seconds begin together, at whole seconds since the start of the trigger.
pub(super) struct DueTimes {
    next: HashMap<Key, Instant>,
    start: Instant,
}

/// The distance of the times at which periods of at least this length begin.
const TOGETHER: Duration = Duration::from_secs(1);

/// Whether a schedule is due, and when it is due next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Due {
    pub is_now: bool,
    pub next: Instant,
}

impl DueTimes {
    pub(super) fn new(start: Instant) -> Self {
        Self { next: HashMap::new(), start }
    }

    /// Looks at a schedule with this period. If it is due, its next period begins. A schedule that is seen
    /// for the first time is due at once; its first period is up to [`TOGETHER`] longer.
    pub(super) fn look(&mut self, key: &Key, every: Duration, now: Instant) -> Due {
        let start = self.start;
        let Some(next) = self.next.get_mut(key) else {
            let next = together(start, now + every, every);
            self.next.insert(key.clone(), next);
            return Due { is_now: true, next };
        };
        // A release may have shortened the period.
        if *next > now + every + TOGETHER {
            *next = together(start, now + every, every);
        }
        let is_now = *next <= now;
        if is_now {
            // Counted from the due time, so that late runs do not add up. If many runs were missed, counted
            // from now.
            *next += every;
            if *next < now {
                *next = together(start, now, every);
            }
        }
        Due { is_now, next: *next }
    }

    /// Makes a schedule due at this time, if it would be due later.
    pub(super) fn due_by(&mut self, key: &Key, at: Instant) {
        if let Some(next) = self.next.get_mut(key) {
            *next = (*next).min(at);
        }
    }
}

/// The first time from `at` on at which periods of this length begin.
fn together(start: Instant, at: Instant, every: Duration) -> Instant {
    if every < TOGETHER {
        return at;
    }
    let beyond = at.duration_since(start).as_nanos() % TOGETHER.as_nanos();
    if beyond == 0 { at } else { at + TOGETHER - Duration::from_nanos(beyond as u64) }
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
        let start = Instant::now();
        let mut times = DueTimes::new(start);
        assert_eq!(times.look(&key(), SECOND, start), Due { is_now: true, next: start + SECOND });
        assert!(!times.look(&key(), SECOND, start + SECOND / 2).is_now);
        // A late run does not move the next one.
        let late = start + SECOND + SECOND / 4;
        assert_eq!(times.look(&key(), SECOND, late), Due { is_now: true, next: start + 2 * SECOND });
        // After many missed runs, it is due once more at once.
        let much_later = start + 100 * SECOND;
        assert_eq!(times.look(&key(), SECOND, much_later), Due { is_now: true, next: much_later });
    }

    #[test]
    fn periods_of_whole_seconds_begin_together() {
        let (start, other) = (Instant::now(), ("typing".to_owned(), "expire".to_owned()));
        let mut times = DueTimes::new(start);
        let seen = times.look(&key(), SECOND, start + SECOND / 4);
        assert_eq!(seen, Due { is_now: true, next: start + 2 * SECOND });
        let seen = times.look(&other, 2 * SECOND, start + SECOND / 2);
        assert_eq!(seen, Due { is_now: true, next: start + 3 * SECOND });
        // The periods from then on are exact.
        assert_eq!(times.look(&key(), SECOND, start + 2 * SECOND).next, start + 3 * SECOND);
        // So they are after missed runs.
        let late = times.look(&other, 2 * SECOND, start + 10 * SECOND + SECOND / 8);
        assert_eq!(late, Due { is_now: true, next: start + 11 * SECOND });
    }

    #[test]
    fn a_period_of_less_than_a_second_begins_at_any_time() {
        let (start, every) = (Instant::now(), SECOND / 5);
        let seen = DueTimes::new(start).look(&key(), every, start + SECOND / 4);
        assert_eq!(seen, Due { is_now: true, next: start + SECOND / 4 + every });
    }

    #[test]
    fn a_shorter_period_counts_from_the_release_that_has_it() {
        let start = Instant::now();
        let mut times = DueTimes::new(start);
        times.look(&key(), HOUR, start);
        let deployed = start + 5 * SECOND;
        assert_eq!(times.look(&key(), SECOND, deployed), Due { is_now: false, next: deployed + SECOND });
        assert!(times.look(&key(), SECOND, deployed + SECOND).is_now);
        // A longer one begins after the next run.
        let next = times.look(&key(), HOUR, deployed + 2 * SECOND);
        assert_eq!(next, Due { is_now: true, next: deployed + 2 * SECOND + HOUR });
    }

    #[test]
    fn a_run_that_was_not_claimed_is_due_earlier_but_never_later() {
        let start = Instant::now();
        let mut times = DueTimes::new(start);
        times.look(&key(), HOUR, start);
        times.due_by(&key(), start + 5 * SECOND);
        assert!(times.look(&key(), HOUR, start + 5 * SECOND).is_now);
        times.due_by(&key(), start + 2 * HOUR);
        assert!(times.look(&key(), HOUR, start + 5 * SECOND + HOUR).is_now);
    }
}
