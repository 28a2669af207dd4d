//! Decides which runs of schedules start now. A handler with hundreds of schedules must not delay other
//! handlers: each handler starts a few runs in a tick and has a few at a time. Due schedules wait, each at
//! most once. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::Key;
use switchboard_core::limits;
use switchboard_core::shares::{Division, Shares};

pub(super) struct Starts {
    /// The running schedules of each handler.
    runs: Shares<String>,
    /// The due schedules of each handler, each at most once, so there are at most as many as manifests
    /// declare. No queue is empty.
    waiting: BTreeMap<String, VecDeque<Key>>,
}

impl Starts {
    pub(super) fn new() -> Self {
        let total = limits::SCHEDULE_RUNS_MAX;
        let runs = Shares::new(Division { total, reserve: total / 4, lent: 1 });
        Self { runs, waiting: BTreeMap::new() }
    }

    /// Adds a due schedule, unless it waits already.
    pub(crate) fn is_due(&mut self, key: &Key) {
        let queue = self.waiting.entry(key.0.clone()).or_default();
        if !queue.contains(key) {
            queue.push_back(key.clone());
        }
    }

    /// Takes the schedules whose runs start at this tick.
    pub(crate) fn begin(&mut self) -> Vec<Key> {
        let mut begun = Vec::new();
        for (handler, queue) in &mut self.waiting {
            for _ in 0..limits::SCHEDULE_STARTS_PER_TICK {
                let may_start = self.runs.held(handler) < limits::SCHEDULE_RUNS_PER_HANDLER_MAX;
                if queue.is_empty() || !may_start || !self.runs.take(handler, 1) {
                    break;
                }
                begun.extend(queue.pop_front());
            }
        }
        self.waiting.retain(|_, queue| !queue.is_empty());
        begun
    }

    /// Returns true when due schedules wait, so that `begin` must be called again.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Ends a run that `begin` returned.
    pub(crate) fn ended(&mut self, key: &Key) {
        self.runs.give(&key.0, 1);
        self.runs.remove(&key.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(handler: &str, n: usize) -> Key {
        (handler.to_owned(), format!("schedule-{n}"))
    }

    #[test]
    fn two_hundred_schedules_of_one_handler_delay_no_other() {
        let mut starts = Starts::new();
        let mut begun_of_many = Vec::new();
        for tick in 0..100 {
            for n in 0..200 {
                starts.is_due(&key("many", n));
            }
            starts.is_due(&key("one", 0));
            let begun = starts.begin();
            let of_many = begun.iter().filter(|key| key.0 == "many").count();
            assert!(of_many <= limits::SCHEDULE_STARTS_PER_TICK, "{of_many} at tick {tick}");
            assert!(begun.contains(&key("one", 0)), "the other one waits at tick {tick}");
            begun_of_many.extend(begun.iter().filter(|key| key.0 == "many").cloned());
            begun.iter().for_each(|key| starts.ended(key));
        }
        // All of them have had their turn, in order.
        let all: Vec<_> = (0..200).map(|n| key("many", n)).collect();
        assert_eq!(begun_of_many[..200], all);
    }

    #[test]
    fn runs_that_hang_use_only_the_runs_of_their_handler() {
        let mut starts = Starts::new();
        let mut hanging = 0;
        for _ in 0..10 {
            (0..200).for_each(|n| starts.is_due(&key("hangs", n)));
            hanging += starts.begin().len();
        }
        assert_eq!(hanging, limits::SCHEDULE_RUNS_PER_HANDLER_MAX);
        // Many such handlers leave runs for a handler that comes later.
        for handler in 0..200 {
            (0..10).for_each(|n| starts.is_due(&key(&format!("hangs-{handler}"), n)));
        }
        let others = starts.begin().len();
        assert!(hanging + others <= limits::SCHEDULE_RUNS_MAX, "{others}");
        starts.ended(&key("hangs", 0));
        starts.is_due(&key("hangs", 0));
        assert!(!starts.begin().is_empty());
    }
}
