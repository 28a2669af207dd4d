//! Statistics of the calls of one release: outcomes, durations, and used resources. They are dropped with the
//! release, so ten thousand releases leave nothing behind. A call costs a few atomic additions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use super::call_log::{CallLog, Caller};
use super::ending::Ending;
use super::failure::Kind;
use super::trigger::Trigger;
use switchboard_core::Blame;
use switchboard_telemetry::histogram::{Counts, Histogram};

/// Resources that one call used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Processor time inside the guest.
    pub cpu: Duration,
    pub memory_bytes: u64,
}

#[derive(Debug, Default)]
pub struct ReleaseStats {
    by_trigger: [OfTrigger; Trigger::ALL.len()],
    cpu_ns: AtomicU64,
    memory_high_bytes: AtomicU64,
    /// The log of calls, while the canary guard compares this release with another. Without a log, it costs a
    /// call one load.
    calls: ArcSwapOption<CallLog>,
}

#[derive(Debug, Default)]
struct OfTrigger {
    took: Histogram,
    returned: AtomicU64,
    errors: AtomicU64,
    failed: [AtomicU64; Kind::ALL.len()],
}

impl ReleaseStats {
    /// Sets the log that gets every call from now on. `None` ends the logging.
    pub fn keep_calls(&self, log: Option<Arc<CallLog>>) {
        self.calls.store(log);
    }

    pub fn record(&self, trigger: Trigger, caller: Caller<'_>, took: Duration, ending: Ending, used: Used) {
        if let Some(log) = &*self.calls.load() {
            log.record(Instant::now(), caller, took, ending);
        }
        let of = &self.by_trigger[trigger as usize];
        of.took.record(took);
        match ending {
            Ending::Answered => of.returned.fetch_add(1, Relaxed),
            Ending::Error => {
                of.errors.fetch_add(1, Relaxed);
                of.returned.fetch_add(1, Relaxed)
            }
            Ending::Failed(kind) => of.failed[kind as usize].fetch_add(1, Relaxed),
        };
        self.cpu_ns.fetch_add(u64::try_from(used.cpu.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        // This is seldom true, so most calls write nothing that other threads would wait for.
        if used.memory_bytes > self.memory_high_bytes.load(Relaxed) {
            self.memory_high_bytes.fetch_max(used.memory_bytes, Relaxed);
        }
    }

    pub fn took(&self) -> impl Iterator<Item = (&'static str, Counts)> {
        let by_trigger = Trigger::ALL.iter().zip(&self.by_trigger);
        by_trigger
            .map(|(trigger, of)| (trigger.as_str(), of.took.counts()))
            .filter(|(_, took)| took.count() > 0)
    }

    /// Returns triples of trigger, outcome and number of calls.
    pub fn outcomes(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut outcomes = Vec::new();
        for (trigger, of) in Trigger::ALL.iter().zip(&self.by_trigger) {
            outcomes.push((trigger.as_str(), "returned", of.returned.load(Relaxed)));
            let failed =
                Kind::ALL.iter().map(|kind| (kind.as_str(), of.failed[*kind as usize].load(Relaxed)));
            outcomes.extend(failed.map(|(kind, calls)| (trigger.as_str(), kind, calls)));
        }
        outcomes.retain(|(_, _, calls)| *calls > 0);
        outcomes
    }

    /// Returns the number of failed calls and error answers, for each blame.
    pub fn errors_by_blame(&self) -> [(Blame, u64); 2] {
        let (mut guest, mut host) = (0, 0);
        for of in &self.by_trigger {
            guest += of.errors.load(Relaxed);
            for kind in Kind::ALL {
                let failed = of.failed[kind as usize].load(Relaxed);
                *(if kind.blame() == Blame::Guest { &mut guest } else { &mut host }) += failed;
            }
        }
        [(Blame::Guest, guest), (Blame::Host, host)]
    }

    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Relaxed))
    }

    /// Returns the most memory that one call had.
    pub fn memory_high_bytes(&self) -> u64 {
        self.memory_high_bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_apart_from_errors() {
        let stats = ReleaseStats::default();
        let took = Duration::from_micros(30);
        let used = |memory_bytes| Used { cpu: Duration::from_micros(10), memory_bytes };
        stats.record(Trigger::Http, Caller::Host, took, Ending::Answered, used(5));
        stats.record(Trigger::Http, Caller::Host, took, Ending::Error, used(9));
        stats.record(Trigger::Frame, Caller::Host, took, Ending::Failed(Kind::Trap), used(7));
        stats.record(Trigger::Frame, Caller::Host, took, Ending::Failed(Kind::Busy), used(0));
        assert_eq!(stats.errors_by_blame(), [(Blame::Guest, 2), (Blame::Host, 1)]);
        assert_eq!((stats.cpu(), stats.memory_high_bytes()), (Duration::from_micros(40), 9));
        assert_eq!(stats.outcomes(), [("http", "returned", 2), ("frame", "busy", 1), ("frame", "trap", 1)]);
    }
}
