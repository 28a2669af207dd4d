//! The claimed timers of this node: how many more it may claim, and which fire now. A handler with thousands
//! of due timers must not delay other handlers: each has a bounded number of claimed timers and of calls.
//! Pure: the caller passes the time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use switchboard_core::limits;
use switchboard_core::shares::{Division, Shares};
use switchboard_postgres::timers::{Claimed, Wanted};

/// A claimed timer, until its outcome is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueuedTimer {
    pub(super) claimed: Claimed,
    /// When the lease ends at the earliest, by the clock of this node.
    pub(super) expires_at: Instant,
}

pub(super) struct Queue {
    /// The handlers that bind timers, and those that still have claimed ones.
    handlers: BTreeMap<String, HandlerQueue>,
    calls: Shares<String>,
}

#[derive(Default)]
struct HandlerQueue {
    is_bound: bool,
    deadline: Duration,
    waiting: VecDeque<QueuedTimer>,
    /// Timers whose outcome is not stored: the waiting ones, those of running calls, and those that ended.
    claimed: usize,
    /// The last claim found as many timers as it wanted, or could want none. So more may be due.
    has_more: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        let total = limits::TIMER_CALLS_MAX;
        let calls = Shares::new(Division { total, reserve: total / 4, lent: 1 });
        Self { handlers: BTreeMap::new(), calls }
    }

    /// Replaces the handlers that bind timers, with their deadlines. Returns true if one of them is new.
    pub(super) fn bind(&mut self, deadlines: Vec<(String, Duration)>) -> bool {
        self.handlers.values_mut().for_each(|handler| handler.is_bound = false);
        let mut has_new = false;
        for (name, deadline) in deadlines {
            self.calls.add(&name);
            let handler = self.handlers.entry(name).or_default();
            has_new |= handler.deadline.is_zero();
            (handler.is_bound, handler.deadline) = (true, deadline);
        }
        self.forget_unbound();
        has_new
    }

    fn forget_unbound(&mut self) {
        let calls = &mut self.calls;
        self.handlers.retain(|name, handler| {
            let stays = handler.is_bound || handler.claimed > 0;
            if !stays {
                calls.remove(name);
            }
            stays
        });
    }

    /// Whether more timers are probably due, and there is much room for them. A claim of a few timers would
    /// cost as much as one of many.
    pub(super) fn has_backlog(&self) -> bool {
        let half = limits::TIMERS_CLAIMED_PER_HANDLER_MAX / 2;
        self.handlers.values().any(|handler| handler.is_bound && handler.has_more && handler.room() >= half)
    }

    /// Returns what a claim may take. A handler without room is not in it.
    pub(super) fn wanted(&mut self) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (name, handler) in self.handlers.iter_mut().filter(|(_, handler)| handler.is_bound) {
            match handler.room() {
                0 => handler.has_more = true,
                room => wanted.push(Wanted { handler: name.clone(), room, lease: handler.lease() }),
            }
        }
        wanted
    }

    /// Adds the timers of a claim that began at this time.
    pub(super) fn add(&mut self, wanted: &[Wanted], timers: Vec<Claimed>, began_at: Instant) {
        for Wanted { handler: name, room, lease } in wanted {
            // A handler that was retired meanwhile gets its timers too, so that they are given back.
            let handler = self.handlers.entry(name.clone()).or_default();
            let of_this = timers.iter().filter(|timer| timer.handler == *name);
            let before = handler.waiting.len();
            handler.waiting.extend(
                of_this
                    .map(|claimed| QueuedTimer { claimed: claimed.clone(), expires_at: began_at + *lease }),
            );
            let added = handler.waiting.len() - before;
            handler.claimed += added;
            handler.has_more = added >= *room;
        }
        self.forget_unbound();
    }

    /// Takes the timers that fire now.
    pub(super) fn begin(&mut self) -> Vec<QueuedTimer> {
        let mut begun = Vec::new();
        for (name, handler) in &mut self.handlers {
            while !handler.waiting.is_empty()
                && self.calls.held(name) < limits::TIMER_CALLS_PER_HANDLER_MAX
                && self.calls.take(name, 1)
            {
                begun.extend(handler.waiting.pop_front());
            }
        }
        begun
    }

    /// Ends a call that `begin` began. Its outcome is not stored yet.
    pub(super) fn ended(&mut self, handler: &str) {
        self.calls.give(&handler.to_owned(), 1);
    }

    /// Notes that the outcome of a timer is stored, or that its lease has ended.
    pub(super) fn settled(&mut self, handler: &str) {
        if let Some(of) = self.handlers.get_mut(handler) {
            of.claimed = of.claimed.saturating_sub(1);
        }
        self.forget_unbound();
    }

    /// Takes all timers that wait, because the node ends.
    pub(super) fn take_all(&mut self) -> Vec<QueuedTimer> {
        self.handlers.values_mut().flat_map(|handler| std::mem::take(&mut handler.waiting)).collect()
    }
}

impl HandlerQueue {
    fn room(&self) -> usize {
        limits::TIMERS_CLAIMED_PER_HANDLER_MAX.saturating_sub(self.claimed)
    }

    /// The last of the claimed timers waits for all those before it.
    fn lease(&self) -> Duration {
        let rounds = limits::TIMERS_CLAIMED_PER_HANDLER_MAX.div_ceil(limits::TIMER_CALLS_PER_HANDLER_MAX);
        self.deadline * rounds as u32 + limits::TIMER_LEASE_MARGIN
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(1);

    fn due(handler: &str, count: usize) -> Vec<Claimed> {
        let timer = |n: usize| Claimed {
            handler: handler.to_owned(),
            key: n.to_string(),
            payload: String::new(),
            due_ms: 0,
            attempt: 1,
            id: Uuid::nil(),
            version: 0,
        };
        (0..count).map(timer).collect()
    }

    fn queue(handlers: &[&str]) -> Queue {
        let mut queue = Queue::new();
        let deadlines = handlers.iter().map(|name| ((*name).to_owned(), DEADLINE)).collect();
        assert!(queue.bind(deadlines));
        queue
    }

    /// Claims as many timers of a handler as the queue wants. Returns their number.
    fn claim(queue: &mut Queue, handler: &str, due_now: usize) -> usize {
        let wanted = queue.wanted();
        let room = wanted.iter().find(|wanted| wanted.handler == handler).map_or(0, |wanted| wanted.room);
        let taken = room.min(due_now);
        queue.add(&wanted, due(handler, taken), Instant::now());
        taken
    }

    #[test]
    fn ten_thousand_due_timers_are_fired_in_bounded_batches() {
        let mut queue = queue(&["many", "one"]);
        let (mut left, mut fired, mut claims) = (10_000, 0, 0);
        while fired < 10_000 {
            if claims == 0 || queue.has_backlog() {
                left -= claim(&mut queue, "many", left);
                claims += 1;
            }
            assert!(queue.handlers["many"].claimed <= limits::TIMERS_CLAIMED_PER_HANDLER_MAX);
            let begun = queue.begin();
            assert!((1..=limits::TIMER_CALLS_PER_HANDLER_MAX).contains(&begun.len()), "{}", begun.len());
            fired += begun.len();
            for timer in &begun {
                queue.ended(&timer.claimed.handler);
                queue.settled(&timer.claimed.handler);
            }
        }
        let least = 10_000 / limits::TIMERS_CLAIMED_PER_HANDLER_MAX;
        assert!((least..=2 * least + 2).contains(&claims), "{claims} claims");
    }

    #[test]
    fn calls_that_hang_leave_calls_for_another_handler() {
        let names: Vec<String> = (0..9).map(|n| format!("hangs-{n}")).collect();
        let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
        all.push("later");
        let mut queue = queue(&all);
        for name in &names {
            claim(&mut queue, name, 1000);
        }
        let begun = queue.begin();
        let of_one = begun.iter().filter(|timer| timer.claimed.handler == "hangs-0").count();
        assert!((1..=limits::TIMER_CALLS_PER_HANDLER_MAX).contains(&of_one), "{of_one}");
        assert!(begun.len() < limits::TIMER_CALLS_MAX, "{}", begun.len());
        claim(&mut queue, "later", 1);
        assert!(queue.begin().iter().any(|timer| timer.claimed.handler == "later"));
    }

    #[test]
    fn a_handler_without_room_is_not_claimed_for_until_half_of_it_is_free() {
        let mut queue = queue(&["many"]);
        assert_eq!(claim(&mut queue, "many", 1000), limits::TIMERS_CLAIMED_PER_HANDLER_MAX);
        assert!(queue.wanted().is_empty() && !queue.has_backlog());
        for _ in 1..limits::TIMERS_CLAIMED_PER_HANDLER_MAX / 2 {
            queue.settled("many");
        }
        assert!(!queue.has_backlog());
        queue.settled("many");
        assert!(queue.has_backlog());
        // Fewer timers than wanted: no more are due.
        claim(&mut queue, "many", 3);
        assert!(!queue.has_backlog());
    }

    #[test]
    fn the_lease_is_long_enough_for_the_last_claimed_timer() {
        let mut queue = queue(&["slow"]);
        let lease = queue.wanted()[0].lease;
        let rounds = limits::TIMERS_CLAIMED_PER_HANDLER_MAX / limits::TIMER_CALLS_PER_HANDLER_MAX;
        assert!(lease > DEADLINE * rounds as u32, "{lease:?}");
    }

    #[test]
    fn a_retired_handler_gives_its_timers_back() {
        let mut queue = queue(&["gone"]);
        claim(&mut queue, "gone", 2);
        assert!(!queue.bind(Vec::new()));
        assert!(queue.wanted().is_empty());
        assert_eq!(queue.take_all().len(), 2);
        queue.settled("gone");
        queue.settled("gone");
        assert!(queue.handlers.is_empty());
        assert!(queue.bind(vec![("gone".to_owned(), DEADLINE)]), "it is new again");
    }
}
