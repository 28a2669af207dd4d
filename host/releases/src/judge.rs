//! Judges whether a canary is worse than the running release, on the same node and in the same time. Pure:
//! the calls and the time are passed in, and a verdict is returned. A difference counts when all of this
//! holds:
//!
//! - It is large enough.
//! - It is very unlikely to be chance ([`by_chance`]).
//! - It does not come from a few callers only. One person can send requests that no release can answer, and
//!   always reaches the same release.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::chance::{Count, by_chance};
use switchboard_core::limits;
use switchboard_core::manifest::Thresholds;
use switchboard_runtime::{CallLog, LoggedCall};

/// Why a canary must end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cause {
    pub over: Threshold,
    pub window_ms: u64,
    pub canary: Figures,
    pub running: Figures,
}

/// Which threshold the canary exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Threshold {
    Failures,
    Errors,
    Latency,
}

/// The calls of one release in a time window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub calls: u64,
    pub failures: u64,
    pub errors: u64,
    /// The 90th percentile of the calls' times. Each caller counts for at most
    /// [`limits::CANARY_CALLS_PER_CALLER`] calls.
    pub p90_us: Option<u64>,
    pub callers: u64,
    /// Callers with at least one error or failure.
    pub callers_with_errors: u64,
}

/// Compares both releases since the canary began, as far back as the windows and the logs reach.
pub(crate) fn judge(
    now: Instant,
    begun: Instant,
    canary: &CallLog,
    running: &CallLog,
    thresholds: &Thresholds,
) -> Option<Cause> {
    let complete = [canary, running].into_iter().filter_map(CallLog::complete_since);
    // Both start at the same moment, so that a disturbance for everybody is not seen on one side only.
    let earliest = complete.fold(begun, Instant::max);
    let windows = [(limits::CANARY_WINDOW_SHORT, false), (limits::CANARY_WINDOW_LONG, true)];
    windows.into_iter().find_map(|(window, is_long)| {
        let from = now.checked_sub(window).unwrap_or(earliest).max(earliest);
        let (canary, running) =
            (WindowCalls::of(canary.ended_after(from)), WindowCalls::of(running.ended_after(from)));
        judged(&canary, &running, thresholds, is_long).map(|over| Cause {
            over,
            window_ms: (now - from).as_millis() as u64,
            canary: canary.figures(),
            running: running.figures(),
        })
    })
}

fn judged(
    canary: &WindowCalls,
    running: &WindowCalls,
    thresholds: &Thresholds,
    is_long: bool,
) -> Option<Threshold> {
    let points = f64::from(thresholds.error_percent);
    let (calls, failures) = (canary.calls.len() as u64, canary.count(|call| call.is_failure));
    // A few callers during two seconds must not decide for all. In the long window, it is enough that every
    // call failed.
    let fails_always = is_long && failures == calls && failures >= limits::CANARY_FAILURES_MIN;
    let enough = fails_always || failures >= u64::from(thresholds.failures);
    if enough && is_worse(canary, running, points, |call| call.is_failure) {
        return Some(Threshold::Failures);
    }
    let calls_min = u64::from(thresholds.calls);
    if calls >= calls_min && is_worse(canary, running, points, |call| call.is_error) {
        return Some(Threshold::Errors);
    }
    // Both releases need calls: without them there is no latency to compare with.
    if calls >= calls_min && running.calls.len() as u64 >= calls_min {
        let (slow, usual) = (canary.p90()?, running.p90()?);
        let most = usual.mul_f64(1.0 + f64::from(thresholds.latency_percent) / 100.0);
        let most = most.max(usual + limits::CANARY_SLOWER_MIN);
        // More than a tenth of the canary's calls are slower than this. Of the running release, at most a
        // tenth are slower than its own 90th percentile.
        if slow > most && is_worse(canary, running, 0.0, |call| call.took > most) {
            return Some(Threshold::Latency);
        }
    }
    None
}

/// True when the canary has so many more hits that it is neither chance nor caused by a few callers.
fn is_worse(
    canary: &WindowCalls,
    running: &WindowCalls,
    points: f64,
    is_hit: impl Fn(&LoggedCall) -> bool,
) -> bool {
    let of_canary = canary.by_caller(&is_hit);
    let of_running = total(&running.by_caller(&is_hit));
    if of_canary.iter().filter(|of| of.hits > 0.0).count() < limits::CANARY_CALLERS_MIN {
        return false;
    }
    let all = total(&of_canary);
    let is_over = |count: Count| count.share() > of_running.share() + points;
    // The running release has answered before. When it is called rarely, that counts as some successful
    // calls.
    let supposed = limits::CANARY_CALLS_SUPPOSED.saturating_sub(of_running.all);
    let with_supposed = Count { all: of_running.all + supposed, ..of_running };
    is_over(all)
        && is_over(total(without_the_worst(&of_canary)))
        && by_chance(all, with_supposed) < limits::CANARY_CHANCE_MAX
}

/// The calls of one caller. They count for at most [`limits::CANARY_CALLS_PER_CALLER`] calls, with the same
/// part of hits.
#[derive(Clone, Copy, Debug)]
struct OfCaller {
    calls: f64,
    hits: f64,
}

/// Leaves out the callers with the most hits, which come first in `callers`.
fn without_the_worst(callers: &[OfCaller]) -> &[OfCaller] {
    let spared = limits::CANARY_CALLERS_MIN - 1 + callers.len() / limits::CANARY_CALLERS_PER_SUSPECT;
    callers.get(spared..).unwrap_or_default()
}

fn total(callers: &[OfCaller]) -> Count {
    let calls: f64 = callers.iter().map(|of| of.calls).sum();
    let hits: f64 = callers.iter().map(|of| of.hits).sum();
    Count { hits: hits.round() as u64, all: calls.round() as u64 }
}

/// The calls of one release in a window, with the number of calls of each caller.
struct WindowCalls {
    calls: Vec<LoggedCall>,
    callers: HashMap<u64, u64>,
}

impl WindowCalls {
    fn of(calls: Vec<LoggedCall>) -> Self {
        let mut callers = HashMap::new();
        for call in &calls {
            *callers.entry(call.caller).or_insert(0) += 1;
        }
        Self { calls, callers }
    }

    fn count(&self, is_hit: impl Fn(&LoggedCall) -> bool) -> u64 {
        self.calls.iter().filter(|call| is_hit(call)).count() as u64
    }

    /// Returns the callers, those with the most hits first.
    fn by_caller(&self, is_hit: impl Fn(&LoggedCall) -> bool) -> Vec<OfCaller> {
        let mut hits: HashMap<u64, u64> = HashMap::new();
        for call in self.calls.iter().filter(|call| is_hit(call)) {
            *hits.entry(call.caller).or_insert(0) += 1;
        }
        let callers = self.callers.iter().map(|(caller, calls)| {
            let counted = (*calls).min(limits::CANARY_CALLS_PER_CALLER) as f64;
            let hits = hits.get(caller).copied().unwrap_or(0) as f64;
            OfCaller { calls: counted, hits: counted * hits / *calls as f64 }
        });
        let mut callers: Vec<_> = callers.collect();
        callers.sort_by(|a, b| b.hits.total_cmp(&a.hits));
        callers
    }

    fn p90(&self) -> Option<Duration> {
        let weight = |call: &LoggedCall| {
            let calls = self.callers.get(&call.caller).copied().unwrap_or(1);
            calls.min(limits::CANARY_CALLS_PER_CALLER) as f64 / calls as f64
        };
        let mut took: Vec<_> = self.calls.iter().map(|call| (call.took, weight(call))).collect();
        took.sort_by_key(|(took, _)| *took);
        let mut left = took.iter().map(|(_, weight)| weight).sum::<f64>() * 0.9;
        let p90 = took.iter().find(|(_, weight)| {
            left -= weight;
            left <= 1e-9
        });
        p90.or(took.last()).map(|(took, _)| *took)
    }

    fn figures(&self) -> Figures {
        let with_errors = self.by_caller(|call| call.is_error).iter().filter(|of| of.hits > 0.0).count();
        Figures {
            calls: self.calls.len() as u64,
            failures: self.count(|call| call.is_failure),
            errors: self.count(|call| call.is_error),
            p90_us: self.p90().map(|took| took.as_micros() as u64),
            callers: self.callers.len() as u64,
            callers_with_errors: with_errors as u64,
        }
    }
}

/// A sentence for the history and the log.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (canary, running) = (&self.canary, &self.running);
        match self.over {
            Threshold::Failures => write!(
                f,
                "{} of {} calls ended without an answer, of the running release {} of {}",
                canary.failures, canary.calls, running.failures, running.calls
            )?,
            Threshold::Errors => write!(
                f,
                "{} of {} calls were errors, of the running release {} of {}",
                canary.errors, canary.calls, running.errors, running.calls
            )?,
            Threshold::Latency => {
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
        write!(f, " (within {:.1} s", Duration::from_millis(self.window_ms).as_secs_f64())?;
        if self.over != Threshold::Latency {
            write!(f, "; {} of its {} callers met errors", canary.callers_with_errors, canary.callers)?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests;
