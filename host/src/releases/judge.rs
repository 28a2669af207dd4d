//! Whether a canary is worse than what runs beside it, on the same node and in the same time: pure, the figures and the time
//! come in, a verdict goes out.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::limits;
use crate::manifest::Thresholds;
use crate::runtime::Pulse;

/// What a canary and the running release did since the canary stands, as far as the windows reach back.
pub struct Judge {
    /// The oldest first; the first is the beginning of the long window.
    seen: VecDeque<Seen>,
}

struct Seen {
    at: Instant,
    canary: Pulse,
    running: Pulse,
}

/// Why a canary is to go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cause {
    pub over: Over,
    pub window_ms: u64,
    pub canary: Figures,
    pub running: Figures,
}

/// Which threshold it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    Failures,
    Errors,
    Latency,
}

/// What one release did in a window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    pub calls: u64,
    pub failures: u64,
    pub errors: u64,
    /// Nine of ten calls took no longer.
    pub p90_us: Option<u64>,
}

impl Judge {
    /// From what both had done when the canary began.
    pub fn new(now: Instant, canary: Pulse, running: Pulse) -> Self {
        Self { seen: VecDeque::from([Seen { at: now, canary, running }]) }
    }

    pub fn look(
        &mut self,
        now: Instant,
        canary: &Pulse,
        running: &Pulse,
        thresholds: &Thresholds,
    ) -> Option<Cause> {
        // The one before the window's edge stays: it is where the window begins.
        while self.seen.get(1).is_some_and(|second| now - second.at >= limits::CANARY_WINDOW_LONG) {
            self.seen.pop_front();
        }
        let short = self.seen.iter().rev().find(|seen| now - seen.at >= limits::CANARY_WINDOW_SHORT);
        let windows = [short, self.seen.front()];
        let cause = windows.into_iter().flatten().find_map(|from| {
            let (canary, running) = (since(canary, &from.canary), since(running, &from.running));
            judged(&canary, &running, thresholds).map(|over| Cause {
                over,
                window_ms: (now - from.at).as_millis() as u64,
                canary: Figures::of(&canary),
                running: Figures::of(&running),
            })
        });
        if self.seen.back().is_none_or(|last| now - last.at >= limits::CANARY_LOOKS_EVERY) {
            self.seen.push_back(Seen { at: now, canary: canary.clone(), running: running.clone() });
        }
        cause
    }
}

fn since(now: &Pulse, before: &Pulse) -> Pulse {
    Pulse {
        calls: now.calls.saturating_sub(before.calls),
        failures: now.failures.saturating_sub(before.failures),
        errors: now.errors.saturating_sub(before.errors),
        took: now.took.since(&before.took),
    }
}

fn judged(canary: &Pulse, running: &Pulse, thresholds: &Thresholds) -> Option<Over> {
    let worse_by = |canary_bad: u64, running_bad: u64| {
        share(canary_bad, canary.calls)
            > share(running_bad, running.calls) + f64::from(thresholds.error_percent)
    };
    let fails_always = canary.failures == canary.calls && canary.failures >= limits::CANARY_FAILURES_MIN;
    let enough = fails_always || canary.failures >= u64::from(thresholds.failures);
    if enough && worse_by(canary.failures, running.failures) {
        return Some(Over::Failures);
    }
    let calls = u64::from(thresholds.calls);
    if canary.calls >= calls && worse_by(canary.errors, running.errors) {
        return Some(Over::Errors);
    }
    // Both need calls: there is no latency of nothing to compare with.
    if canary.calls >= calls && running.calls >= calls {
        let (slow, usual) = (canary.took.percentile(90)?, running.took.percentile(90)?);
        let most = usual.mul_f64(1.0 + f64::from(thresholds.latency_percent) / 100.0);
        if slow > most && slow - usual >= limits::CANARY_SLOWER_MIN {
            return Some(Over::Latency);
        }
    }
    None
}

/// In percent.
fn share(of: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { of as f64 * 100.0 / all as f64 }
}

impl Figures {
    fn of(pulse: &Pulse) -> Self {
        Self {
            calls: pulse.calls,
            failures: pulse.failures,
            errors: pulse.errors,
            p90_us: pulse.took.percentile(90).map(|took| took.as_micros() as u64),
        }
    }
}

/// A sentence for the history and the log.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (canary, running) = (&self.canary, &self.running);
        match self.over {
            Over::Failures => write!(
                f,
                "{} of {} calls ended without an answer, of the running release {} of {}",
                canary.failures, canary.calls, running.failures, running.calls
            )?,
            Over::Errors => write!(
                f,
                "{} of {} calls were errors, of the running release {} of {}",
                canary.errors, canary.calls, running.errors, running.calls
            )?,
            Over::Latency => {
                let ms = |us: Option<u64>| Duration::from_micros(us.unwrap_or(0)).as_secs_f64() * 1000.0;
                write!(
                    f,
                    "its slowest tenth of {} calls took {:.1} ms and more, of the running release {:.1} ms",
                    canary.calls,
                    ms(canary.p90_us),
                    ms(running.p90_us)
                )?;
            }
        }
        write!(f, " (within {:.1} s)", Duration::from_millis(self.window_ms).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Ending, Kind, Trigger, Used, Vitals};

    /// Two releases that are called.
    struct Both {
        canary: Vitals,
        running: Vitals,
        judge: Judge,
        now: Instant,
    }

    impl Both {
        fn new() -> Self {
            let now = Instant::now();
            let judge = Judge::new(now, Pulse::default(), Pulse::default());
            Self { canary: Vitals::default(), running: Vitals::default(), judge, now }
        }

        fn look(&mut self) -> Option<Over> {
            let (canary, running) = (self.canary.pulse(), self.running.pulse());
            self.judge.look(self.now, &canary, &running, &Thresholds::default()).map(|cause| cause.over)
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }
    }

    fn calls(vitals: &Vitals, count: usize, ending: Ending, took_ms: u64) {
        for _ in 0..count {
            vitals.record(Trigger::Http, Duration::from_millis(took_ms), ending, Used::default());
        }
    }

    const TRAP: Ending = Ending::Failed(Kind::Trap);

    #[test]
    fn a_crash_loop_ends_at_its_tenth_failure_and_sooner_where_nothing_else_comes() {
        let mut both = Both::new();
        calls(&both.canary, 40, Ending::Answered, 1);
        calls(&both.canary, 9, TRAP, 1);
        assert_eq!(both.look(), None);
        calls(&both.canary, 1, TRAP, 1);
        assert_eq!(both.look(), Some(Over::Failures));

        let mut quiet = Both::new();
        calls(&quiet.canary, 2, TRAP, 1);
        assert_eq!(quiet.look(), None);
        quiet.pass(20_000);
        calls(&quiet.canary, 1, TRAP, 1);
        assert_eq!(quiet.look(), Some(Over::Failures));
    }

    #[test]
    fn what_the_running_release_suffers_too_is_not_the_canarys_fault() {
        let mut both = Both::new();
        calls(&both.canary, 30, Ending::Failed(Kind::Deadline), 1);
        calls(&both.running, 300, Ending::Failed(Kind::Deadline), 1);
        assert_eq!(both.look(), None);
    }

    #[test]
    fn a_good_hour_hides_no_bad_second() {
        let mut both = Both::new();
        for _ in 0..4 * 59 {
            calls(&both.canary, 5, Ending::Answered, 1);
            both.pass(250);
            assert_eq!(both.look(), None);
        }
        // 10 of 1,190 is nothing, 10 of 50 is.
        calls(&both.canary, 10, TRAP, 1);
        assert_eq!(both.look(), Some(Over::Failures));
    }

    #[test]
    fn errors_count_from_enough_calls_on() {
        let mut both = Both::new();
        calls(&both.canary, 40, Ending::Answered, 1);
        calls(&both.canary, 9, Ending::Error, 1);
        assert_eq!(both.look(), None);
        calls(&both.canary, 1, Ending::Answered, 1);
        assert_eq!(both.look(), Some(Over::Errors));
        calls(&both.running, 80, Ending::Answered, 1);
        calls(&both.running, 20, Ending::Error, 1);
        assert_eq!(both.look(), None, "18 % beside 20 %");
    }

    #[test]
    fn slowness_is_compared_and_noise_is_none() {
        let mut both = Both::new();
        calls(&both.running, 100, Ending::Answered, 2);
        calls(&both.canary, 50, Ending::Answered, 4);
        assert_eq!(both.look(), None);
        let mut slow = Both::new();
        calls(&slow.running, 100, Ending::Answered, 2);
        calls(&slow.canary, 50, Ending::Answered, 40);
        assert_eq!(slow.look(), Some(Over::Latency));
        let mut alone = Both::new();
        calls(&alone.canary, 500, Ending::Answered, 40);
        assert_eq!(alone.look(), None, "nothing to compare with");
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut both = Both::new();
        calls(&both.canary, 40, Ending::Answered, 1);
        calls(&both.canary, 9, TRAP, 1);
        for _ in 0..4 * 70 {
            both.pass(250);
            assert_eq!(both.look(), None);
        }
        calls(&both.canary, 40, Ending::Answered, 1);
        calls(&both.canary, 9, TRAP, 1);
        assert_eq!(both.look(), None);
    }
}
