//! Shadows: a live call is recorded, run again on the shadow with the recorded answers of every host call,
//! and compared. A shadow changes nothing: its run ends at the first host call that the live call did not
//! make. A node runs one shadow call at a time; calls that come meanwhile are left out and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

use super::registry;
use super::repository::ShadowReport;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_recording::{Outcome, Recording, redact_secrets};
use switchboard_runtime::CallObserver;

/// The counts of one shadow on this node.
#[derive(Default)]
pub(super) struct ShadowCounts {
    same: AtomicU64,
    differing: AtomicU64,
    dropped: AtomicU64,
    examples: Mutex<Vec<String>>,
    /// True when a count changed since the last report.
    changed: AtomicBool,
}

impl ShadowCounts {
    pub(crate) fn count(&self, difference: Option<String>) {
        match difference {
            None => self.same.fetch_add(1, Relaxed),
            Some(difference) => {
                let mut examples = self.examples.lock();
                if examples.len() < limits::SHADOW_EXAMPLES_MAX && !examples.contains(&difference) {
                    examples.push(difference);
                }
                self.differing.fetch_add(1, Relaxed)
            }
        };
        self.changed.store(true, Relaxed);
    }

    pub(crate) fn drop_one(&self) {
        self.dropped.fetch_add(1, Relaxed);
        self.changed.store(true, Relaxed);
    }

    /// Takes a report, if a count changed since the last one.
    pub(crate) fn take_report(&self) -> Option<ShadowReport> {
        self.changed.swap(false, Relaxed).then(|| ShadowReport {
            digest: None,
            same: self.same.load(Relaxed),
            differing: self.differing.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            examples: self.examples.lock().clone(),
        })
    }

    pub(crate) fn has_unreported(&self) -> bool {
        self.changed.load(Relaxed)
    }

    /// Marks the counts as not reported, because Postgres did not store them.
    pub(crate) fn mark_unreported(&self) {
        self.changed.store(true, Relaxed);
    }
}

/// One call for the worker.
pub(super) struct ShadowCall<R> {
    pub recording: Recording,
    pub shadow: Arc<R>,
    pub digest: Digest,
    pub counts: Arc<ShadowCounts>,
}

/// The observer of the running release's calls.
pub(super) struct ShadowSampler<R> {
    pub handler: String,
    pub percent: u8,
    pub shadow: Arc<R>,
    pub digest: Digest,
    pub counts: Arc<ShadowCounts>,
    pub worker: mpsc::Sender<ShadowCall<R>>,
}

impl<R: Send + Sync + 'static> CallObserver for ShadowSampler<R> {
    fn wants(&self, call: &str) -> bool {
        if !registry::sampled(&self.handler, call, self.percent) {
            return false;
        }
        let free = self.worker.capacity() > 0;
        if !free {
            self.counts.drop_one();
        }
        free
    }

    fn failed(&self) {}

    fn recorded(&self, recording: Recording, _failed: bool) {
        let call = ShadowCall {
            recording,
            shadow: self.shadow.clone(),
            digest: self.digest,
            counts: self.counts.clone(),
        };
        if !call.recording.is_whole() || self.worker.try_send(call).is_err() {
            self.counts.drop_one();
        }
    }
}

/// Describes in a sentence how the shadow's run of a call differs from the live one.
pub(super) fn difference(live: &Recording, shadow: &Recording) -> Option<String> {
    let what = match (&live.outcome, &shadow.outcome) {
        (_, Outcome::Failed { kind, detail }) if kind == "diverged" => detail.clone(),
        (Outcome::Returned(_), Outcome::Failed { kind, detail }) => format!("it failed: {kind}: {detail}"),
        (Outcome::Failed { kind, .. }, Outcome::Returned(_)) => {
            format!("it answered where the live call failed: {kind}")
        }
        (Outcome::Failed { kind: live, .. }, Outcome::Failed { kind, .. }) if live != kind => {
            format!("it failed differently: {kind} instead of {live}")
        }
        _ if live.exchanges.len() != shadow.exchanges.len() => {
            let (made, instead) = (shadow.exchanges.len(), live.exchanges.len());
            format!("it made {made} host calls instead of {instead}")
        }
        (Outcome::Returned(live), Outcome::Returned(answer)) if live != answer => {
            format!("it answered {} instead of {}", excerpt(answer), excerpt(live))
        }
        _ => return None,
    };
    let sentence = format!("{} call {}: {what}", live.trigger, live.call);
    Some(sentence.chars().take(limits::SHADOW_EXAMPLE_CHARS_MAX).collect())
}

fn excerpt(answer: &Value) -> String {
    let mut answer = answer.clone();
    blank(&mut answer);
    answer.to_string().chars().take(limits::SHADOW_EXAMPLE_CHARS_MAX / 3).collect()
}

fn blank(value: &mut Value) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, member)| {
            redact_secrets(name, member);
            blank(member);
        }),
        Value::Array(elements) => elements.iter_mut().for_each(blank),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use switchboard_recording::Exchange;

    fn recording(outcome: Outcome, host_calls: usize) -> Recording {
        let exchange = Exchange {
            function: "clock.now-ms".to_owned(),
            unordered: false,
            args: json!({}),
            answer: Some(json!(1)),
            micros: 3,
        };
        Recording {
            handler: "echo".to_owned(),
            release: Some(Digest::of(b"any")),
            call: "c1".to_owned(),
            trigger: "http".to_owned(),
            scenario: None,
            input: json!({}),
            exchanges: vec![exchange; host_calls],
            left_out: 0,
            outcome,
        }
    }

    fn returned(answer: Value) -> Outcome {
        Outcome::Returned(answer)
    }

    fn failed(kind: &str) -> Outcome {
        Outcome::Failed { kind: kind.to_owned(), detail: "at host call 2".to_owned() }
    }

    #[test]
    fn differences_are_described_and_times_are_not_compared() {
        let live = recording(returned(json!({"status": 200})), 2);
        let mut slower = live.clone();
        slower.exchanges[0].micros = 90;
        assert_eq!(difference(&live, &slower), None);
        for (shadow, expected) in [
            (
                recording(returned(json!({"status": 201, "token": "eyJ"})), 2),
                "http call c1: it answered {\"status\":201,\"token\":\"[redacted]\"} instead",
            ),
            (recording(returned(json!({"status": 200})), 1), "1 host calls instead of 2"),
            (recording(failed("diverged"), 2), "http call c1: at host call 2"),
            (recording(failed("trap"), 2), "it failed: trap"),
        ] {
            let difference = difference(&live, &shadow).unwrap();
            assert!(difference.contains(expected), "{difference}");
        }
        let trapped = recording(failed("trap"), 2);
        assert_eq!(difference(&trapped, &trapped), None);
        assert!(difference(&trapped, &live).unwrap().contains("it answered where"));
    }

    #[test]
    fn a_report_is_bounded() {
        let counts = ShadowCounts::default();
        for n in 0..100 {
            counts.count(Some(format!("difference {n}")));
        }
        counts.drop_one();
        let seen = counts.take_report().unwrap();
        assert_eq!(
            (seen.differing, seen.dropped, seen.examples.len()),
            (100, 1, limits::SHADOW_EXAMPLES_MAX)
        );
        assert_eq!(counts.take_report(), None);
        let long = recording(returned(json!("x".repeat(10_000))), 0);
        let sentence = difference(&recording(returned(json!(1)), 0), &long).unwrap();
        assert!(sentence.chars().count() <= limits::SHADOW_EXAMPLE_CHARS_MAX);
    }
}
