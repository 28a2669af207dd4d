//! When the schedules with cron expressions are due, by the clock of this node. Pure: the caller passes the
//! time.
//!
//! A schedule that is seen for the first time is due at its next time. So times that pass while no node runs
//! are skipped, and a deployment causes no run.

use std::collections::HashMap;
use std::time::Duration;

use super::Key;
use switchboard_core::manifest::Cron;

/// The next time of each schedule, in milliseconds since 1970 UTC.
#[derive(Default)]
pub(super) struct CronTimes {
    states: HashMap<Key, State>,
    looked_at_ms: u64,
}

struct State {
    cron: Cron,
    next_ms: u64,
    /// The time for which the schedule was due last.
    due_ms: u64,
    /// The claim for `due_ms` failed, so the schedule is due for it again at this time.
    again_at_ms: Option<u64>,
}

/// Whether a schedule is due, and when to look at it again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CronDue {
    pub is_now: bool,
    pub next_in: Duration,
}

impl State {
    fn new(cron: &Cron, now_ms: u64) -> Self {
        Self { cron: cron.clone(), next_ms: next(cron, now_ms), due_ms: now_ms, again_at_ms: None }
    }
}

/// Times beyond the calendar never come.
fn next(cron: &Cron, after_ms: u64) -> u64 {
    cron.next(after_ms).unwrap_or(u64::MAX)
}

impl CronTimes {
    /// Looks at a schedule. If it is due, its next time is the first one from now on.
    pub(super) fn look(&mut self, key: &Key, cron: &Cron, now_ms: u64) -> CronDue {
        if now_ms < self.looked_at_ms {
            // The clock was set back, so the next times may be too late. A time that has run is not claimed
            // again.
            self.states.clear();
        }
        self.looked_at_ms = now_ms;
        let state = self.states.entry(key.clone()).or_insert_with(|| State::new(cron, now_ms));
        if state.cron != *cron {
            *state = State::new(cron, now_ms);
        }
        let comes = state.next_ms <= now_ms;
        let comes_again = state.again_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if comes {
            state.due_ms = state.next_ms;
            state.next_ms = next(cron, now_ms);
        }
        if comes || comes_again {
            state.again_at_ms = None;
        }
        let next_ms = state.again_at_ms.map_or(state.next_ms, |at_ms| at_ms.min(state.next_ms));
        CronDue { is_now: comes || comes_again, next_in: Duration::from_millis(next_ms - now_ms) }
    }

    /// Returns the time for which a schedule is due, and the one after it.
    pub(super) fn due(&self, key: &Key) -> Option<(u64, u64)> {
        const YEAR_MS: u64 = 366 * 24 * 3600 * 1000;
        let state = self.states.get(key)?;
        // A year is before the end of the calendar of Postgres.
        Some((state.due_ms, state.cron.next(state.due_ms).unwrap_or(state.due_ms + YEAR_MS)))
    }

    /// Makes a schedule due again for the same time, because its claim failed.
    pub(super) fn due_again(&mut self, key: &Key, at_ms: u64) {
        if let Some(state) = self.states.get_mut(key) {
            state.again_at_ms = Some(at_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    /// 2026-01-01T00:00:00Z.
    const START_MS: u64 = 1_767_225_600_000;

    fn key() -> Key {
        ("digest".to_owned(), "morning".to_owned())
    }

    fn hourly() -> Cron {
        Cron::parse("0 * * * *", None).unwrap()
    }

    fn wait(ms: u64) -> CronDue {
        CronDue { is_now: false, next_in: Duration::from_millis(ms) }
    }

    fn due_and_wait(ms: u64) -> CronDue {
        CronDue { is_now: true, ..wait(ms) }
    }

    #[test]
    fn a_schedule_is_due_at_its_times_and_not_when_it_is_first_seen() {
        let mut times = CronTimes::default();
        assert_eq!(times.look(&key(), &hourly(), START_MS + 1000), wait(HOUR_MS - 1000));
        let next_ms = START_MS + HOUR_MS;
        assert_eq!(times.look(&key(), &hourly(), next_ms - 1), wait(1));
        // A late look is for the time that was due.
        assert_eq!(times.look(&key(), &hourly(), next_ms + 5), due_and_wait(HOUR_MS - 5));
        assert_eq!(times.due(&key()), Some((next_ms, next_ms + HOUR_MS)));
        assert_eq!(times.look(&key(), &hourly(), next_ms + 6), wait(HOUR_MS - 6));
        // After many missed times, it is due once.
        let much_later = START_MS + 9 * HOUR_MS + 1;
        assert_eq!(times.look(&key(), &hourly(), much_later), due_and_wait(HOUR_MS - 1));
    }

    #[test]
    fn a_time_whose_claim_failed_is_due_again_until_the_next_one() {
        let mut times = CronTimes::default();
        times.look(&key(), &hourly(), START_MS);
        let first_ms = START_MS + HOUR_MS;
        assert!(times.look(&key(), &hourly(), first_ms).is_now);
        times.due_again(&key(), first_ms + 5000);
        assert_eq!(times.look(&key(), &hourly(), first_ms + 1), wait(4999));
        assert_eq!(times.look(&key(), &hourly(), first_ms + 5000), due_and_wait(HOUR_MS - 5000));
        assert_eq!(times.due(&key()).unwrap().0, first_ms);
        times.due_again(&key(), first_ms + 2 * HOUR_MS);
        assert!(times.look(&key(), &hourly(), first_ms + HOUR_MS).is_now);
        assert_eq!(times.due(&key()).unwrap().0, first_ms + HOUR_MS);
        assert!(!times.look(&key(), &hourly(), first_ms + HOUR_MS + 1).is_now, "the older one is over");
    }

    #[test]
    fn another_expression_and_a_clock_that_is_set_back_begin_anew() {
        let mut times = CronTimes::default();
        times.look(&key(), &hourly(), START_MS);
        let daily = Cron::parse("0 6 * * *", None).unwrap();
        assert_eq!(times.look(&key(), &daily, START_MS + 1), wait(6 * HOUR_MS - 1));
        assert_eq!(times.look(&key(), &daily, START_MS - 10 * HOUR_MS), wait(16 * HOUR_MS));
    }
}
