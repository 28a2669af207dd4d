//! Progress of this node's consumers, for readiness. It has no clock: the caller passes the time.
//!
//! A shard stands still when the outbox has events above the cursor and the cursor has not moved for too
//! long. Postponed and parked events lie below the cursor, so they count as progress. An event that the
//! handler holds back stops the cursor, so it counts as standing still. Each node reports only the shards
//! that it owns.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use switchboard_core::limits;
use switchboard_postgres::outbox::Heads;

#[derive(Default)]
pub(in super::super) struct Progress(Mutex<State>);

#[derive(Default)]
struct State {
    /// The last positions that the shards have given out.
    heads: Heads,
    consumers: BTreeMap<String, Consumer>,
}

struct Consumer {
    /// The longest that one call of the handler may take.
    deadline: Duration,
    /// When this node last renewed its leases and claimed what was free.
    kept_at: Instant,
    /// Why the last attempt to do so failed.
    not_kept: Option<String>,
    /// The shards that this node reads.
    shards: BTreeMap<i16, Shard>,
    /// Why the last step did not go further.
    held_by: Option<String>,
}

struct Shard {
    high: i64,
    /// None: the consumer has seen everything.
    behind_since: Option<Instant>,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so a panic elsewhere cannot have left the state half changed.
        self.0.lock()
    }

    /// Takes the new heads of the shards.
    pub(super) fn heads(&self, heads: Heads, now: Instant) {
        let mut state = self.state();
        state.heads = heads;
        for (number, shard) in state.consumers.values_mut().flat_map(|consumer| &mut consumer.shards) {
            if shard.high < head(&heads, *number) {
                shard.behind_since.get_or_insert(now);
            }
        }
    }

    /// Adds a consumer, because its task begins.
    pub(super) fn begun(&self, name: &str, deadline: Duration, now: Instant) {
        let consumer =
            Consumer { deadline, kept_at: now, not_kept: None, shards: BTreeMap::new(), held_by: None };
        self.state().consumers.insert(name.to_owned(), consumer);
    }

    /// Removes a consumer, because its handler is gone or the node stops.
    pub(super) fn ended(&self, name: &str) {
        self.state().consumers.remove(name);
    }

    /// Takes the result of an attempt to renew leases and to claim free shards. An error says why it failed.
    pub(super) fn kept(&self, name: &str, outcome: Result<(), String>, now: Instant) {
        if let Some(consumer) = self.state().consumers.get_mut(name) {
            match outcome {
                Ok(()) => (consumer.kept_at, consumer.not_kept) = (now, None),
                Err(reason) => consumer.not_kept = Some(reason),
            }
        }
    }

    /// Takes the result of a step of the reader: its cursors in the shards that it owns now, and what holds
    /// it up.
    pub(super) fn step(
        &self,
        name: &str,
        cursors: impl IntoIterator<Item = (i16, i64)>,
        held_by: Option<String>,
        now: Instant,
    ) {
        let mut state = self.state();
        let heads = state.heads;
        let Some(consumer) = state.consumers.get_mut(name) else { return };
        let before = std::mem::take(&mut consumer.shards);
        for (number, high) in cursors {
            let behind_since = match before.get(&number) {
                _ if high >= head(&heads, number) => None,
                Some(shard) if shard.high == high => shard.behind_since.or(Some(now)),
                _ => Some(now),
            };
            consumer.shards.insert(number, Shard { high, behind_since });
        }
        consumer.held_by = held_by;
    }

    /// Returns one sentence for each consumer that does not make progress here.
    pub(in super::super) fn standing(&self, now: Instant) -> Vec<String> {
        let state = self.state();
        let mut sentences = Vec::new();
        for (name, consumer) in &state.consumers {
            let wait_max = limits::CONSUMER_STANDS_AFTER + consumer.deadline;
            let not_kept = now.saturating_duration_since(consumer.kept_at);
            if not_kept > wait_max {
                let why = consumer.not_kept.as_deref().unwrap_or("no answer");
                sentences.push(format!(
                    "consumer `{name}` has not renewed its shards for {} s: {why}",
                    not_kept.as_secs()
                ));
                continue;
            }
            let behind = consumer.shards.iter().filter_map(|(number, shard)| {
                let since = now.saturating_duration_since(shard.behind_since?);
                (since > wait_max).then_some((since, *number, shard.high))
            });
            if let Some((since, number, high)) = behind.max() {
                let events = head(&state.heads, number) - high;
                let why = consumer.held_by.as_deref().unwrap_or("the handler has not answered");
                sentences.push(format!(
                    "consumer `{name}` has not moved in shard {number} for {} s, {events} positions behind: {why}",
                    since.as_secs()
                ));
            }
        }
        sentences
    }
}

fn head(heads: &Heads, shard: i16) -> i64 {
    usize::try_from(shard).ok().and_then(|shard| heads.get(shard)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(1);
    /// Longer than anything may stand still.
    const LONG: Duration = Duration::from_secs(12);

    fn heads(first: i64) -> Heads {
        let mut heads = Heads::default();
        heads[0] = first;
        heads
    }

    #[test]
    fn a_cursor_that_does_not_move_is_named_with_what_holds_it() {
        let (progress, start) = (Progress::default(), Instant::now());
        progress.begun("relay", DEADLINE, start);
        progress.step("relay", [(0, 5), (1, 0)], None, start);
        progress.heads(heads(9), start);
        let late = start + LONG;
        progress.kept("relay", Ok(()), late);
        let [sentence] = &progress.standing(late)[..] else { panic!("the consumer stands still") };
        assert!(
            sentence.contains("`relay`") && sentence.contains("shard 0 for 12 s, 4 positions"),
            "{sentence}"
        );
        assert!(progress.standing(start + Duration::from_secs(5)).is_empty());

        // The same cursor again is no progress, and tells why; one that moved is.
        progress.step("relay", [(0, 5)], Some("held back".into()), late);
        assert!(progress.standing(late)[0].ends_with("held back"));
        progress.step("relay", [(0, 6)], None, late);
        assert!(progress.standing(late).is_empty());
        progress.kept("relay", Ok(()), late + LONG);
        assert_eq!(progress.standing(late + LONG).len(), 1);
        progress.step("relay", [(0, 9)], None, late + LONG);
        assert!(progress.standing(late + LONG).is_empty(), "it has seen everything");
    }

    #[test]
    fn a_shard_of_another_node_is_not_reported() {
        let (progress, start) = (Progress::default(), Instant::now());
        progress.begun("relay", DEADLINE, start);
        progress.heads(heads(9), start);
        progress.step("relay", [(0, 5)], None, start);
        progress.step("relay", [], None, start);
        progress.kept("relay", Ok(()), start + LONG);
        assert!(progress.standing(start + LONG).is_empty());
    }

    #[test]
    fn leases_that_cannot_be_kept_are_named() {
        let (progress, start) = (Progress::default(), Instant::now());
        progress.begun("relay", DEADLINE, start);
        progress.kept("relay", Err("permission denied".into()), start + LONG);
        assert_eq!(
            progress.standing(start + LONG),
            ["consumer `relay` has not renewed its shards for 12 s: permission denied"]
        );
        progress.ended("relay");
        assert!(progress.standing(start + LONG).is_empty());
    }
}
