//! Delivers one batch of events to the handler of a consumer, and decides about each event: it is done,
//! postponed or parked. `reader` calls [`deliver`] and stores the outcomes. This module has no clock and no
//! database.
//!
//! When the call with a batch fails, the batch is halved until the failing event is alone in its call. Only
//! that failure counts as an attempt. Otherwise one event that always fails would use up the attempts of all
//! events of its batch, and the host would park them all. A failed call may have done a part of its work, so
//! the handler can get an event again that it has handled.
//!
//! Events of one key stay in their order: those after a postponed one are not delivered but wait for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::retries::retry_after;
use switchboard_contract::event::{Event, Verdict};
use switchboard_core::limits;
use switchboard_runtime::Failure;
use switchboard_runtime::export::Events;

/// The outcome of delivering one event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Done,
    /// The event is delivered again after this time, as its next attempt.
    Postponed {
        after: Duration,
        error: String,
    },
    /// An earlier event of the same key is postponed. This event was not delivered, and waits for it.
    Waiting,
    /// The consumer gives the event up. An operator retries or drops it.
    Parked {
        error: String,
    },
}

/// The result of delivering a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delivered {
    /// The outcomes of the first events of the batch, in their order.
    pub(super) outcomes: Vec<Outcome>,
    /// The wait before the remaining events are delivered, without an attempt. It is set when the handler
    /// asked for it, or when no call slot was free. `None`: each event of the batch has its outcome.
    pub(super) hold: Option<Duration>,
}

/// Delivers a batch with as few calls as possible. `attempts_max` is the number of attempts after which an
/// event is parked. An empty batch makes no call.
pub(super) async fn deliver<F>(
    events: Vec<Event>,
    attempts_max: u32,
    mut call: impl FnMut(Arc<Events>) -> F,
) -> Delivered
where
    F: Future<Output = Result<Vec<Verdict>, Failure>>,
{
    let mut delivered = Delivered::default();
    // The ranges of `events` that are not delivered yet. The first one of them is at the end.
    #[allow(clippy::single_range_in_vec_init)] // one range so far
    let mut ranges = vec![0..events.len()];
    let whole = Arc::new(Events { events });
    let mut postponed: HashSet<(u32, &str)> = HashSet::new();
    while let Some(mut range) = ranges.pop() {
        if range.is_empty() {
            continue;
        }
        let waits = |event: &Event| postponed.contains(&(event.shard, event.key.as_str()));
        match whole.events[range.clone()].iter().position(waits) {
            None => {}
            Some(0) => {
                delivered.outcomes.push(Outcome::Waiting);
                ranges.push(range.start + 1..range.end);
                continue;
            }
            Some(at) => {
                ranges.push(range.start + at..range.end);
                range.end = range.start + at;
            }
        }
        let batch = &whole.events[range.clone()];
        let input = match batch.len() == whole.events.len() {
            true => whole.clone(),
            false => Arc::new(Events { events: batch.to_vec() }),
        };
        match call(input).await {
            Ok(verdicts) if verdicts.len() == batch.len() => {
                for (event, verdict) in batch.iter().zip(verdicts) {
                    match verdict {
                        Verdict::Hold(ms) => {
                            let hold = Duration::from_millis(ms.into());
                            delivered.hold = Some(hold.min(limits::EVENT_ASKED_HOLD_MAX));
                            return delivered;
                        }
                        Verdict::Ack => delivered.outcomes.push(Outcome::Done),
                        Verdict::Reject(error) => delivered.outcomes.push(Outcome::Parked { error }),
                        Verdict::Retry(ms) => {
                            let delay_min =
                                Duration::from_millis(ms.into()).min(limits::EVENT_ASKED_RETRY_MAX);
                            delivered.outcomes.push(postpone_or_park(
                                event,
                                attempts_max,
                                delay_min,
                                "the handler asked for a retry".to_owned(),
                            ));
                        }
                    }
                }
            }
            // The handler did not run, so this was no attempt.
            Err(failure) if failure.had_no_effect() => {
                delivered.hold = Some(limits::CONSUMER_BUSY_WAIT);
                return delivered;
            }
            // The call failed, or the number of verdicts is wrong.
            _ if batch.len() > 1 => {
                let middle = range.start + batch.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
            }
            alone => {
                let error = match alone {
                    Ok(verdicts) => format!("the handler returned {} verdicts for one event", verdicts.len()),
                    Err(failure) => failure.to_string(),
                };
                delivered.outcomes.push(postpone_or_park(&batch[0], attempts_max, Duration::ZERO, error));
            }
        }
        let outcomes = delivered.outcomes.iter().zip(&whole.events).skip(range.start);
        postponed.extend(
            outcomes
                .filter(|(outcome, _)| matches!(outcome, Outcome::Postponed { .. }))
                .map(|(_, event)| (event.shard, event.key.as_str())),
        );
    }
    delivered
}

/// Postpones an event whose attempt failed, or parks it if this was its last attempt. The delay grows with
/// each attempt; it is at least `delay_min`.
fn postpone_or_park(event: &Event, attempts_max: u32, delay_min: Duration, error: String) -> Outcome {
    if event.attempt >= attempts_max {
        return Outcome::Parked { error };
    }
    Outcome::Postponed { after: retry_after(event.attempt).max(delay_min), error }
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
                key: format!("conv:{position}"),
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
        assert_eq!(delivered.outcomes.len(), 64);
        for (at, outcome) in delivered.outcomes.iter().enumerate() {
            assert_eq!(matches!(outcome, Outcome::Postponed { .. }), at + 1 == 42, "{outcome:?}");
        }
        assert!(calls <= 13, "{calls} calls: halving finds the failing event");
    }

    #[tokio::test]
    async fn later_events_of_a_postponed_key_wait_for_it_and_are_not_delivered() {
        let mut batch = events(8);
        for event in &mut batch {
            event.key = format!("conv:{}", event.position % 2);
        }
        let mut seen = Vec::new();
        let delivered = deliver(batch, 8, |batch| {
            let fails = batch.events.iter().any(|event| event.position == 3);
            if !fails {
                seen.extend(batch.events.iter().map(|event| event.position));
            }
            ready(if fails { Err(trap()) } else { Ok(vec![Verdict::Ack; batch.events.len()]) })
        })
        .await;
        assert_eq!(seen, [1, 2, 4, 6, 8]);
        let waiting = |position: usize| delivered.outcomes[position - 1] == Outcome::Waiting;
        assert_eq!((1..=8).filter(|position| waiting(*position)).collect::<Vec<_>>(), [5, 7]);
        assert!(matches!(delivered.outcomes[2], Outcome::Postponed { .. }));
        assert_eq!(delivered.outcomes.len(), 8);
    }

    /// The failing event is the third of eight, so halving leaves the fourth alone.
    #[tokio::test]
    async fn the_events_after_a_waiting_one_are_delivered() {
        let mut batch = events(8);
        batch[3].key = batch[2].key.clone();
        let delivered = deliver(batch, 8, |batch| {
            let fails = batch.events.iter().any(|event| event.position == 3);
            ready(if fails { Err(trap()) } else { Ok(vec![Verdict::Ack; batch.events.len()]) })
        })
        .await;
        assert_eq!(delivered.outcomes.len(), 8);
        assert_eq!(delivered.outcomes[3], Outcome::Waiting);
        assert!(delivered.outcomes[4..].iter().all(|outcome| *outcome == Outcome::Done));
    }

    #[tokio::test]
    async fn a_handler_cannot_ask_for_a_wait_of_days() {
        let delivered =
            deliver(events(2), 8, |_| ready(Ok(vec![Verdict::Retry(u32::MAX), Verdict::Hold(u32::MAX)])))
                .await;
        assert_eq!(delivered.hold, Some(limits::EVENT_ASKED_HOLD_MAX));
        let after = limits::EVENT_ASKED_RETRY_MAX;
        assert!(matches!(delivered.outcomes[..], [Outcome::Postponed { after: is, .. }] if is == after));
    }

    #[tokio::test]
    async fn after_a_hold_the_remaining_events_have_no_outcome() {
        let delivered = deliver(events(4), 8, |_| {
            ready(Ok(vec![Verdict::Ack, Verdict::Reject("no".to_owned()), Verdict::Hold(30), Verdict::Ack]))
        })
        .await;
        assert_eq!(delivered.outcomes, [Outcome::Done, Outcome::Parked { error: "no".to_owned() }]);
        assert_eq!(delivered.hold, Some(Duration::from_millis(30)));
    }

    #[tokio::test]
    async fn a_busy_handler_costs_no_attempt() {
        let busy = deliver(events(2), 8, |_| ready(Err(Failure::new(Kind::Busy, "256 calls")))).await;
        assert!(busy.outcomes.is_empty() && busy.hold.is_some());
    }

    #[tokio::test]
    async fn delays_grow_and_the_last_attempt_parks() {
        let mut delays = Vec::new();
        for attempt in 1..=3 {
            let mut event = events(1);
            event[0].attempt = attempt;
            match deliver(event, 3, |_| ready(Err(trap()))).await.outcomes.remove(0) {
                Outcome::Postponed { after, .. } => delays.push(after),
                Outcome::Parked { error } => assert!(attempt == 3 && error.contains("unreachable")),
                Outcome::Done | Outcome::Waiting => panic!("a trap is no answer"),
            }
        }
        assert_eq!(delays, [limits::EVENT_RETRY_AFTER, 2 * limits::EVENT_RETRY_AFTER]);
    }

    #[tokio::test]
    async fn a_wrong_number_of_verdicts_is_a_failure() {
        let delivered = deliver(events(2), 8, |_| ready(Ok(vec![Verdict::Ack; 3]))).await;
        assert!(delivered.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Postponed { .. })));
    }
}
