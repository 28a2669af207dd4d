//! Calculates whether a difference between two counts can be chance: Fisher's exact test, one-sided. Pure
//! arithmetic.

/// A number of hits among a number of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Count {
    pub hits: u64,
    pub all: u64,
}

impl Count {
    /// The percentage of hits.
    pub(crate) fn share(self) -> f64 {
        if self.all == 0 { 0.0 } else { self.hits as f64 * 100.0 / self.all as f64 }
    }
}

/// The probability that the first count would have at least this many of all hits, if a hit were equally
/// likely in both. 1 when there is nothing to compare.
pub(crate) fn by_chance(first: Count, second: Count) -> f64 {
    let all = first.all + second.all;
    let hits = first.hits + second.hits;
    if first.hits == 0 || second.all == 0 {
        return 1.0;
    }
    let most = hits.min(first.all);
    // The hypergeometric distribution: after the first term, each term is a fraction of the one before.
    let mut term =
        (ln_choose(first.all, first.hits) + ln_choose(second.all, second.hits) - ln_choose(all, hits)).exp();
    let mut sum = 0.0;
    for in_first in first.hits..=most {
        sum += term;
        if term < sum * 1e-12 {
            break;
        }
        let in_second = hits - in_first;
        let up = in_second as f64 * (first.all - in_first) as f64;
        let down = (in_first + 1) as f64 * (second.all - in_second + 1) as f64;
        term *= up / down;
    }
    sum.min(1.0)
}

fn ln_choose(of: u64, some: u64) -> f64 {
    ln_factorial(of) - ln_factorial(some) - ln_factorial(of - some)
}

/// Exact for small numbers, Stirling's series beyond: the error is below 1e-9.
fn ln_factorial(n: u64) -> f64 {
    if n < 16 {
        return (1..=n).map(|k| (k as f64).ln()).sum();
    }
    let n = n as f64;
    let half_ln_tau = 0.5 * std::f64::consts::TAU.ln();
    n * n.ln() - n + 0.5 * n.ln() + half_ln_tau + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hits: u64, all: u64) -> Count {
        Count { hits, all }
    }

    #[track_caller]
    fn is_about(chance: f64, expected: f64) {
        assert!((chance / expected - 1.0).abs() < 1e-6, "{chance} instead of {expected}");
    }

    #[test]
    fn agrees_with_what_can_be_counted_by_hand() {
        // All three hits are in the first three of eleven: one of C(11, 3) = 165 ways.
        is_about(by_chance(of(3, 3), of(0, 8)), 1.0 / 165.0);
        // The lady tasting tea: (16 + 1) / 70.
        is_about(by_chance(of(3, 4), of(1, 4)), 17.0 / 70.0);
        is_about(by_chance(of(1, 1), of(1, 1)), 1.0);
        // Any of the hundred is equally likely.
        is_about(by_chance(of(1, 10), of(0, 90)), 0.1);
    }

    #[test]
    fn agrees_with_the_sum_of_all_terms_for_large_counts() {
        // The same distribution from the other side: P(X >= a) + P(Y >= K - a + 1) = 1.
        for (first, second) in
            [(of(30, 400), of(60, 900)), (of(300, 9000), of(200, 7000)), (of(5, 16_000), of(9, 16_000))]
        {
            let at_least = by_chance(first, second);
            let fewer = by_chance(of(second.hits + 1, second.all), of(first.hits - 1, first.all));
            is_about(at_least + fewer, 1.0);
        }
    }

    #[test]
    fn nothing_is_no_evidence() {
        assert_eq!(by_chance(of(0, 10), of(5, 10)), 1.0);
        assert_eq!(by_chance(of(5, 10), of(0, 0)), 1.0);
        assert!(by_chance(of(10, 10), of(10, 10)) > 0.99);
    }
}
