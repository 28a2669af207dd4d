//! The rate limit of frames of one connection, and how often it may be exceeded.

use std::time::{Duration, Instant};

use switchboard_core::limits::{FLOOD_PAUSE, FLOODS_MAX};

/// Counts events within the last minute. It uses no memory before the first event. Its owner closes the
/// connection at a bound, so it holds no more events than that.
#[derive(Default)]
pub(super) struct LastMinute(Vec<Instant>);

impl LastMinute {
    /// Counts an event, and returns the number of events within the last minute.
    pub(super) fn count(&mut self, now: Instant) -> usize {
        self.0.retain(|then| now.duration_since(*then) < Duration::from_secs(60));
        self.0.push(now);
        self.0.len()
    }
}

/// A token bucket of frames. After one overflow, further frames count as the same overflow for
/// [`FLOOD_PAUSE`], because the client must first receive the error before it can stop.
pub(super) struct Flood {
    frames: f32,
    refilled: Instant,
    paused_until: Option<Instant>,
    overflows: LastMinute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Within,
    /// Answer `rate_limited`, and ignore the frame.
    Over,
    /// The client just got this error. Answer only a frame with an `id`, because its sender waits for a
    /// reply. Answering every frame would send twenty times the bytes of a ping.
    Paused,
    /// The limit was exceeded too often within a minute.
    TooOften,
}

impl Flood {
    pub(super) fn new(now: Instant, burst: u32) -> Self {
        Self { frames: burst as f32, refilled: now, paused_until: None, overflows: LastMinute::default() }
    }

    pub(super) fn frame(&mut self, now: Instant, per_second: u32, burst: u32) -> Verdict {
        let refill = now.duration_since(self.refilled).as_secs_f32() * per_second as f32;
        self.frames = (self.frames + refill).min(burst as f32);
        self.refilled = now;
        if self.frames >= 1.0 {
            self.frames -= 1.0;
            return Verdict::Within;
        }
        if self.paused_until.is_some_and(|until| now < until) {
            return Verdict::Paused;
        }
        self.paused_until = Some(now + FLOOD_PAUSE);
        if self.overflows.count(now) < FLOODS_MAX { Verdict::Over } else { Verdict::TooOften }
    }

    /// The client gets the error of an overflow only now, because calls were in flight. The pause begins
    /// again.
    pub(super) fn answered(&mut self, now: Instant) {
        self.paused_until = Some(now + FLOOD_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_steady_rate_goes_on() {
        let start = Instant::now();
        let mut flood = Flood::new(start, 500);
        let verdicts: Vec<_> = (0..501).map(|_| flood.frame(start, 100, 500)).collect();
        assert!(verdicts[..500].iter().all(|verdict| *verdict == Verdict::Within));
        assert_eq!(verdicts[500], Verdict::Over);
        for frame in 1..1000 {
            let now = start + Duration::from_millis(frame * 11);
            assert_eq!(flood.frame(now, 100, 500), Verdict::Within, "frame {frame}");
        }
    }

    #[test]
    fn the_third_overflow_within_a_minute_is_one_too_many() {
        let start = Instant::now();
        let mut flood = Flood::new(start, 1);
        let mut at = |ms: u64| {
            let now = start + Duration::from_millis(ms);
            loop {
                let verdict = flood.frame(now, 1, 1);
                if verdict != Verdict::Within {
                    break verdict;
                }
            }
        };
        assert_eq!(at(0), Verdict::Over);
        assert_eq!(at(FLOOD_PAUSE.as_millis() as u64 - 1), Verdict::Paused);
        assert_eq!(at(30_000), Verdict::Over);
        // The first overflow is older than a minute, the second is not.
        assert_eq!(at(61_000), Verdict::Over);
    }

    #[test]
    fn a_client_that_keeps_flooding_is_closed_after_two_seconds() {
        let start = Instant::now();
        let mut flood = Flood::new(start, 1);
        let verdicts: Vec<_> =
            (0..250).map(|tick| flood.frame(start + Duration::from_millis(tick * 10), 10, 1)).collect();
        assert_eq!(verdicts.iter().position(|verdict| *verdict == Verdict::TooOften), Some(201));
    }
}
