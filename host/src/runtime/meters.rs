//! Metrics of calls, looked up once a release: a call then pays for two atomic additions.

use std::time::Duration;

use metrics::{Counter, Histogram};

use super::invoke::Trigger;
use crate::ids::Digest;

pub(super) struct CallMeters {
    handler: String,
    release: String,
    /// By trigger: the calls that returned, and how long every call took.
    by_trigger: [(Counter, Histogram); Trigger::ALL.len()],
}

impl CallMeters {
    pub fn new(handler: &str, release: Digest) -> Self {
        let (handler, release) = (handler.to_owned(), release.short());
        let by_trigger = Trigger::ALL.map(|trigger| {
            let labels = labels(&handler, &release, trigger);
            (
                metrics::counter!("switchboard_calls_total", &with(&labels, "outcome", "returned")),
                metrics::histogram!("switchboard_call_seconds", &labels),
            )
        });
        Self { handler, release, by_trigger }
    }

    /// `failed` is the failure's kind.
    pub fn record(&self, trigger: Trigger, took: Duration, failed: Option<&'static str>) {
        let (returned, seconds) = &self.by_trigger[trigger as usize];
        seconds.record(took);
        match failed {
            None => returned.increment(1),
            Some(kind) => {
                let labels = labels(&self.handler, &self.release, trigger);
                metrics::counter!("switchboard_calls_total", &with(&labels, "outcome", kind)).increment(1);
            }
        }
    }
}

type Labels = Vec<(&'static str, String)>;

fn labels(handler: &str, release: &str, trigger: Trigger) -> Labels {
    vec![
        ("handler", handler.to_owned()),
        ("release", release.to_owned()),
        ("trigger", trigger.as_str().to_owned()),
    ]
}

fn with(labels: &Labels, name: &'static str, value: &str) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value.to_owned()));
    labels
}
