//! Records the host calls of one call, up to a bound.

use serde_json::Value;

use super::Exchange;
use switchboard_core::limits;

#[derive(Debug)]
pub struct Recorder {
    exchanges: Vec<Exchange>,
    bytes: u64,
    bytes_max: u64,
    left_out: u32,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::up_to(limits::RECORDING_BYTES_MAX)
    }
}

impl Recorder {
    /// Bounds the bytes of arguments and answers together.
    pub fn up_to(bytes_max: u64) -> Self {
        Self { exchanges: Vec::new(), bytes: 0, bytes_max, left_out: 0 }
    }

    /// Records the beginning of a host call. `bytes` is the size of its arguments.
    pub fn asked(&mut self, function: &str, bytes: u64, args: impl FnOnce() -> Value) {
        if self.left_out > 0 || self.bytes + bytes > self.bytes_max {
            self.left_out += 1;
            return;
        }
        self.bytes += bytes;
        self.exchanges.push(Exchange {
            function: function.to_owned(),
            unordered: false,
            args: args(),
            answer: None,
            micros: 0,
        });
    }

    /// Records the answer of the last host call.
    pub fn answered(&mut self, micros: u64, bytes: u64, answer: impl FnOnce() -> Value) {
        if self.left_out > 0 {
            return;
        }
        if self.bytes + bytes > self.bytes_max {
            self.exchanges.pop();
            self.left_out = 1;
            return;
        }
        self.bytes += bytes;
        if let Some(exchange) = self.exchanges.last_mut() {
            exchange.answer = Some(answer());
            exchange.micros = micros;
        }
    }

    /// Returns the host calls, and the number of those that did not fit.
    pub fn finish(self) -> (Vec<Exchange>, u32) {
        (self.exchanges, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let mut recorder = Recorder::default();
        recorder.asked("clock.now-ms", 0, || json!({}));
        recorder.answered(1, 8, || json!(5));
        recorder.asked("redis.command", 10, || json!({}));
        recorder.answered(1, limits::RECORDING_BYTES_MAX, || panic!("not encoded for nothing"));
        recorder.asked("clock.now-ms", 0, || panic!("not encoded for nothing"));
        recorder.answered(1, 8, || panic!("not encoded for nothing"));
        let (exchanges, left_out) = recorder.finish();
        assert_eq!((exchanges.len(), left_out), (1, 2));
    }

    #[test]
    fn a_call_that_ended_while_waiting_has_no_answer() {
        let mut recorder = Recorder::default();
        recorder.asked("postgres.query", 10, || json!({}));
        assert_eq!(recorder.finish().0[0].answer, None);
    }
}
