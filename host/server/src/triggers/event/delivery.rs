//! Delivers one batch to its handler. A batch that fails is divided down to single events before an attempt
//! is counted. Otherwise one event that always fails would park the other events of its batch.

use std::sync::Arc;
use std::time::Duration;

use switchboard_contract::event::{Event, Verdict};
use switchboard_core::limits;
use switchboard_runtime::Failure;
use switchboard_runtime::export::Events;

/// The result of delivering one event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    Done,
    Retry { after: Duration, error: String },
    Park { error: String },
}

/// The fates of the first events of a batch. If `hold` is set, the handler holds the remaining events back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delivered {
    pub(super) fates: Vec<Fate>,
    pub(super) hold: Option<Duration>,
}

pub(super) async fn deliver<F>(
    events: Vec<Event>,
    attempts_max: u32,
    mut call: impl FnMut(Arc<Events>) -> F,
) -> Delivered
where
    F: Future<Output = Result<Vec<Verdict>, Failure>>,
{
    let mut delivered = Delivered::default();
    // The parts that are not delivered yet; the next one is last.
    #[allow(clippy::single_range_in_vec_init)] // one part so far
    let mut parts = vec![0..events.len()];
    let whole = Arc::new(Events { events });
    while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
        let batch = &whole.events[part.clone()];
        let input = match batch.len() == whole.events.len() {
            true => whole.clone(),
            false => Arc::new(Events { events: batch.to_vec() }),
        };
        match call(input).await {
            Ok(verdicts) if verdicts.len() == batch.len() => {
                for (event, verdict) in batch.iter().zip(verdicts) {
                    match verdict {
                        Verdict::Hold(ms) => {
                            delivered.hold = Some(Duration::from_millis(ms.into()));
                            return delivered;
                        }
                        Verdict::Ack => delivered.fates.push(Fate::Done),
                        Verdict::Reject(error) => delivered.fates.push(Fate::Park { error }),
                        Verdict::Retry(ms) => {
                            let least = Duration::from_millis(ms.into());
                            delivered.fates.push(again(
                                event,
                                attempts_max,
                                least,
                                "the handler asked for a retry".to_owned(),
                            ));
                        }
                    }
                }
            }
            Err(failure) if failure.had_no_effect() => {
                delivered.hold = Some(limits::CONSUMER_BUSY_WAIT);
                return delivered;
            }
            failed if batch.len() > 1 => {
                drop(failed);
                let middle = part.start + batch.len() / 2;
                parts.push(middle..part.end);
                parts.push(part.start..middle);
            }
            Ok(verdicts) => {
                let error = format!("the handler returned {} verdicts for one event", verdicts.len());
                delivered.fates.push(again(&batch[0], attempts_max, Duration::ZERO, error));
            }
            Err(failure) => {
                delivered.fates.push(again(&batch[0], attempts_max, Duration::ZERO, failure.to_string()));
            }
        }
    }
    delivered
}

/// Postpones an event by a delay that grows with each attempt. After the last attempt the event is parked.
fn again(event: &Event, attempts_max: u32, least: Duration, error: String) -> Fate {
    if event.attempt >= attempts_max {
        return Fate::Park { error };
    }
    let doublings = event.attempt.saturating_sub(1).min(20);
    let grown = (limits::EVENT_RETRY_AFTER * (1 << doublings)).min(limits::EVENT_RETRY_AFTER_MAX);
    Fate::Retry { after: grown.max(least), error }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use switchboard_runtime::Kind;

    fn events(count: u64) -> Vec<Event> {
        (1..=count)
            .map(|position| Event {
                id: String::new(),
                position,
                shard: 0,
                event_type: "message.created".to_owned(),
                key: "conv:1".to_owned(),
                payload: "{}".to_owned(),
                at_ms: 0,
                attempt: 1,
            })
            .collect()
    }

    fn trap() -> Failure {
        Failure::new(Kind::Trap, "unreachable")
    }

    #[tokio::test]
    async fn one_failing_event_affects_only_itself() {
        let mut calls = 0;
        let delivered = deliver(events(64), 8, |batch| {
            calls += 1;
            let fails = batch.events.iter().any(|event| event.position == 42);
            ready(if fails { Err(trap()) } else { Ok(vec![Verdict::Ack; batch.events.len()]) })
        })
        .await;
        assert_eq!(delivered.fates.len(), 64);
        for (at, fate) in delivered.fates.iter().enumerate() {
            assert_eq!(matches!(fate, Fate::Retry { .. }), at + 1 == 42, "{fate:?}");
        }
        assert!(calls <= 13, "{calls} calls: halving finds the failing event");
    }

    #[tokio::test]
    async fn a_hold_leaves_the_rest_untouched() {
        let delivered = deliver(events(4), 8, |_| {
            ready(Ok(vec![Verdict::Ack, Verdict::Reject("no".to_owned()), Verdict::Hold(30), Verdict::Ack]))
        })
        .await;
        assert_eq!(delivered.fates, [Fate::Done, Fate::Park { error: "no".to_owned() }]);
        assert_eq!(delivered.hold, Some(Duration::from_millis(30)));
    }

    #[tokio::test]
    async fn a_busy_handler_costs_no_attempt() {
        let busy = deliver(events(2), 8, |_| ready(Err(Failure::new(Kind::Busy, "256 calls")))).await;
        assert!(busy.fates.is_empty() && busy.hold.is_some());
    }

    #[tokio::test]
    async fn delays_grow_and_the_last_attempt_parks() {
        let mut delays = Vec::new();
        for attempt in 1..=3 {
            let mut event = events(1);
            event[0].attempt = attempt;
            match deliver(event, 3, |_| ready(Err(trap()))).await.fates.remove(0) {
                Fate::Retry { after, .. } => delays.push(after),
                Fate::Park { error } => assert!(attempt == 3 && error.contains("unreachable")),
                Fate::Done => panic!("a trap is no answer"),
            }
        }
        assert_eq!(delays, [limits::EVENT_RETRY_AFTER, 2 * limits::EVENT_RETRY_AFTER]);
    }

    #[tokio::test]
    async fn a_wrong_number_of_verdicts_is_a_failure() {
        let delivered = deliver(events(2), 8, |_| ready(Ok(vec![Verdict::Ack; 3]))).await;
        assert!(delivered.fates.iter().all(|fate| matches!(fate, Fate::Retry { .. })));
    }
}
