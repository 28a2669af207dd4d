//! Durations counted into the buckets of all histograms of the process: a few atomic additions and no
//! allocation. It ends with its owner, so it is for series that end with a release; the exporter keeps its
//! series forever.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::SECONDS;

/// The buckets of [`SECONDS`], and the count of longer durations.
const BUCKETS: usize = SECONDS.len() + 1;

#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// The counts of a histogram at one moment. The difference of two of them is the time between.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    pub buckets: [u64; BUCKETS],
    pub sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS_NS.partition_point(|bound| *bound < ns);
        self.buckets[at].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    pub fn counts(&self) -> Counts {
        Counts {
            buckets: std::array::from_fn(|at| self.buckets[at].load(Relaxed)),
            sum_ns: self.sum_ns.load(Relaxed),
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum_ns: 0 }
    }
}

impl Counts {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn since(&self, before: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|at| self.buckets[at].saturating_sub(before.buckets[at])),
            sum_ns: self.sum_ns.saturating_sub(before.sum_ns),
        }
    }

    pub fn and(&self, other: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|at| self.buckets[at] + other.buckets[at]),
            sum_ns: self.sum_ns + other.sum_ns,
        }
    }

    /// The percentile, as exact as the buckets are: within a bucket, durations are assumed to be evenly
    /// distributed.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (count * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (at, here) in self.buckets.iter().enumerate() {
            if below + here >= rank {
                let from = if at == 0 { 0 } else { BOUNDS_NS[at - 1] };
                let to = BOUNDS_NS.get(at).copied().unwrap_or(from);
                let within = (to - from) as f64 * (rank - below) as f64 / *here as f64;
                return Some(Duration::from_nanos(from + within as u64));
            }
            below += here;
        }
        None
    }
}

const BOUNDS_NS: [u64; SECONDS.len()] = {
    let (mut bounds, mut at) = ([0; SECONDS.len()], 0);
    while at < SECONDS.len() {
        bounds[at] = (SECONDS[at] * 1e9) as u64;
        at += 1;
    }
    bounds
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for took in [Duration::ZERO, Duration::from_micros(10), Duration::from_micros(11)] {
            histogram.record(took);
        }
        histogram.record(Duration::from_secs(3600));
        let counts = histogram.counts();
        assert_eq!((counts.buckets[0], counts.buckets[1], counts.buckets[BUCKETS - 1]), (2, 1, 1));
        assert_eq!(counts.count(), 4);
    }

    #[test]
    fn a_percentile_is_near_what_was_recorded() {
        let histogram = Histogram::default();
        (0..90).for_each(|_| histogram.record(Duration::from_millis(2)));
        let before = histogram.counts();
        assert_eq!(Counts::default().percentile(90), None);
        (0..10).for_each(|_| histogram.record(Duration::from_millis(80)));
        let counts = histogram.counts();
        let p50 = counts.percentile(50).unwrap();
        assert!(p50 > Duration::from_millis(1) && p50 <= Duration::from_micros(2500), "{p50:?}");
        let since = counts.since(&before).percentile(50).unwrap();
        assert!(since > Duration::from_millis(50) && since <= Duration::from_millis(100), "{since:?}");
    }
}
