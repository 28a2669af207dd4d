//! A release that is shown what happens and answers nobody: a live call is recorded, run again on it with the recorded
//! answers of every host call, and compared. It reaches nothing, so it changes nothing: at its first host call that the live
//! one did not make it ends. One at a time on a node; what comes meanwhile is left out and counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc;

use super::registry;
use super::repository::Shadowed;
use crate::ids::Digest;
use crate::limits;
use crate::runtime::CallObserver;
use crate::trace::{Outcome, Trace, redact_secrets};

/// What one shadow saw on this node.
#[derive(Default)]
pub(super) struct Tally {
    same: AtomicU64,
    differing: AtomicU64,
    dropped: AtomicU64,
    examples: Mutex<Vec<String>>,
    /// Since it was last written down.
    changed: AtomicBool,
}

impl Tally {
    pub fn count(&self, difference: Option<String>) {
        match difference {
            None => self.same.fetch_add(1, Relaxed),
            Some(difference) => {
                let mut examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
                if examples.len() < limits::SHADOW_EXAMPLES_MAX && !examples.contains(&difference) {
                    examples.push(difference);
                }
                self.differing.fetch_add(1, Relaxed)
            }
        };
        self.changed.store(true, Relaxed);
    }

    pub fn drop_one(&self) {
        self.dropped.fetch_add(1, Relaxed);
        self.changed.store(true, Relaxed);
    }

    /// What it saw, where that is news.
    pub fn news(&self) -> Option<Shadowed> {
        self.changed.swap(false, Relaxed).then(|| Shadowed {
            digest: None,
            same: self.same.load(Relaxed),
            differing: self.differing.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            examples: self.examples.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        })
    }

    pub fn has_news(&self) -> bool {
        self.changed.load(Relaxed)
    }

    /// Postgres did not take the news.
    pub fn not_told(&self) {
        self.changed.store(true, Relaxed);
    }
}

/// One call for the worker.
pub(super) struct Shown<R> {
    pub trace: Trace,
    pub shadow: Arc<R>,
    pub digest: Digest,
    pub tally: Arc<Tally>,
}

/// The running release's observer.
pub(super) struct Sample<R> {
    pub handler: String,
    pub percent: u8,
    pub shadow: Arc<R>,
    pub digest: Digest,
    pub tally: Arc<Tally>,
    pub worker: mpsc::Sender<Shown<R>>,
}

impl<R: Send + Sync + 'static> CallObserver for Sample<R> {
    fn wants(&self, call: &str) -> bool {
        if !registry::sampled(&self.handler, call, self.percent) {
            return false;
        }
        let free = self.worker.capacity() > 0;
        if !free {
            self.tally.drop_one();
        }
        free
    }

    fn failed(&self) {}

    fn recorded(&self, trace: Trace, _failed: bool) {
        let shown =
            Shown { trace, shadow: self.shadow.clone(), digest: self.digest, tally: self.tally.clone() };
        if !shown.trace.is_whole() || self.worker.try_send(shown).is_err() {
            self.tally.drop_one();
        }
    }
}

/// How the shadow's run of a call differs from the live one, as a sentence.
pub(super) fn difference(live: &Trace, shadow: &Trace) -> Option<String> {
    let what = match (&live.outcome, &shadow.outcome) {
        (_, Outcome::Failed { kind, detail }) if kind == "diverged" => detail.clone(),
        (Outcome::Returned(_), Outcome::Failed { kind, detail }) => format!("it failed: {kind}: {detail}"),
        (Outcome::Failed { kind, .. }, Outcome::Returned(_)) => {
            format!("it answered where the live call failed: {kind}")
        }
        (Outcome::Failed { kind: live, .. }, Outcome::Failed { kind, .. }) if live != kind => {
            format!("it failed otherwise: {kind} instead of {live}")
        }
        _ if live.exchanges.len() != shadow.exchanges.len() => {
            let (made, instead) = (shadow.exchanges.len(), live.exchanges.len());
            format!("it made {made} host calls instead of {instead}")
        }
        (Outcome::Returned(live), Outcome::Returned(answer)) if live != answer => {
            format!("it answered {} instead of {}", shown(answer), shown(live))
        }
        _ => return None,
    };
    let sentence = format!("{} call {}: {what}", live.trigger, live.call);
    Some(sentence.chars().take(limits::SHADOW_EXAMPLE_CHARS_MAX).collect())
}

fn shown(answer: &Value) -> String {
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
    use crate::trace::Exchange;

    fn trace(outcome: Outcome, host_calls: usize) -> Trace {
        let exchange = Exchange {
            function: "clock.now-ms".to_owned(),
            unordered: false,
            args: json!({}),
            answer: Some(json!(1)),
            micros: 3,
        };
        Trace {
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
    fn what_differs_is_said_and_what_took_longer_does_not() {
        let live = trace(returned(json!({"status": 200})), 2);
        let mut slower = live.clone();
        slower.exchanges[0].micros = 90;
        assert_eq!(difference(&live, &slower), None);
        for (shadow, said) in [
            (
                trace(returned(json!({"status": 201, "token": "eyJ"})), 2),
                "http call c1: it answered {\"status\":201,\"token\":\"[redacted]\"} instead",
            ),
            (trace(returned(json!({"status": 200})), 1), "1 host calls instead of 2"),
            (trace(failed("diverged"), 2), "http call c1: at host call 2"),
            (trace(failed("trap"), 2), "it failed: trap"),
        ] {
            let difference = difference(&live, &shadow).unwrap();
            assert!(difference.contains(said), "{difference}");
        }
        let trapped = trace(failed("trap"), 2);
        assert_eq!(difference(&trapped, &trapped), None);
        assert!(difference(&trapped, &live).unwrap().contains("it answered where"));
    }

    #[test]
    fn a_report_is_bounded() {
        let tally = Tally::default();
        for n in 0..100 {
            tally.count(Some(format!("difference {n}")));
        }
        tally.drop_one();
        let seen = tally.news().unwrap();
        assert_eq!(
            (seen.differing, seen.dropped, seen.examples.len()),
            (100, 1, limits::SHADOW_EXAMPLES_MAX)
        );
        assert_eq!(tally.news(), None);
        let long = trace(returned(json!("x".repeat(10_000))), 0);
        let sentence = difference(&trace(returned(json!(1)), 0), &long).unwrap();
        assert!(sentence.chars().count() <= limits::SHADOW_EXAMPLE_CHARS_MAX);
    }
}
