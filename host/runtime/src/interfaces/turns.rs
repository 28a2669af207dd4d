//! Turns for long calls. Most calls take microseconds. A call that has been inside its guest for
//! [`limits::LONG_CPU_AFTER`] needs one of a few turns to continue, so that long calls never use all
//! processors. The releases get turns in rotation, however many calls each of them has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use switchboard_core::limits;

/// Waiting items of several claimants. The claimants are served in rotation, and the items of each in their
/// order.
#[derive(Debug)]
struct Rotation<T> {
    /// The queue that is served next comes first. No queue is empty.
    queues: VecDeque<(u64, VecDeque<T>)>,
}

impl<T> Rotation<T> {
    fn push(&mut self, claimant: u64, item: T) {
        match self.queues.iter_mut().find(|(waiting, _)| *waiting == claimant) {
            Some((_, queue)) => queue.push_back(item),
            None => self.queues.push_back((claimant, VecDeque::from([item]))),
        }
    }

    fn pop(&mut self) -> Option<T> {
        let (claimant, mut queue) = self.queues.pop_front()?;
        let item = queue.pop_front();
        if !queue.is_empty() {
            self.queues.push_back((claimant, queue));
        }
        item
    }

    fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

/// The turns of one node.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// Calls that wait. Each call has at most one entry, so there are at most [`limits::CALLS_MAX`]. Empty
    /// while a turn is free.
    waiting: Rotation<oneshot::Sender<Turn>>,
}

impl Turns {
    pub(crate) fn new(at_once: usize) -> Self {
        let waiting = Rotation { queues: VecDeque::new() };
        Self(Arc::new(Mutex::new(State { free: at_once.max(1), waiting })))
    }

    pub(crate) fn of_this_machine() -> Self {
        Self::new(Self::count())
    }

    /// How many turns this machine has. One processor stays for calls that take no time.
    pub(crate) fn count() -> usize {
        std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1)
    }

    /// Returns the number of calls that wait for a turn.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.queues.iter().map(|(_, queue)| queue.len()).sum()
    }

    /// Adds a claimant, and returns its queue.
    pub(crate) fn queue(&self) -> TurnQueue {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        TurnQueue { turns: self.clone(), claimant: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Waits until the claimant gets a turn.
    async fn take(&self, claimant: u64) -> Turn {
        loop {
            let waiter = {
                let mut state = self.lock();
                if state.free > 0 {
                    state.free -= 1;
                    return self.begin();
                }
                let (sender, waiter) = oneshot::channel();
                state.waiting.push(claimant, sender);
                waiter
            };
            // The sender is dropped only together with these turns, and this call holds them.
            if let Ok(turn) = waiter.await {
                return turn;
            }
        }
    }

    fn begin(&self) -> Turn {
        Turn { turns: self.clone(), since: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// One claimant's queue in the rotation. A release has one, for all of its calls.
#[derive(Clone)]
pub(crate) struct TurnQueue {
    turns: Turns,
    claimant: u64,
}

impl TurnQueue {
    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> Turn {
        self.turns.take(self.claimant).await
    }
}

/// The right to run for long. When it is dropped, the next waiting call gets it.
pub(crate) struct Turn {
    turns: Turns,
    since: Instant,
}

impl Turn {
    /// Returns true when the turn has lasted for [`limits::LONG_CPU_TURN`] and another call waits.
    pub(crate) fn is_over(&self) -> bool {
        self.since.elapsed() >= limits::LONG_CPU_TURN && !self.turns.lock().waiting.is_empty()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.turns.lock();
            // The entries of calls that ended while they waited are still in the queues.
            let next = std::iter::from_fn(|| state.waiting.pop()).find(|waiting| !waiting.is_closed());
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some(next) = next {
            // If that call ends at this moment, the turn comes back in the error and is dropped there.
            let _ = next.send(self.turns.begin());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn claimants_are_served_one_after_the_other() {
        let mut rotation = Rotation { queues: VecDeque::new() };
        for n in 0..100 {
            rotation.push(1, n);
        }
        rotation.push(2, 1000);
        rotation.push(3, 2000);
        rotation.push(2, 1001);
        let first: Vec<_> = std::iter::from_fn(|| rotation.pop()).take(7).collect();
        assert_eq!(first, [0, 1000, 2000, 1, 1001, 2, 3]);
    }

    #[tokio::test]
    async fn a_turn_passes_to_the_next_call_that_still_waits() {
        let turns = Turns::new(1);
        let held = turns.take(1).await;
        let mut left = Box::pin(turns.take(1));
        let mut waits = Box::pin(turns.take(2));
        assert!((&mut left).now_or_never().is_none() && (&mut waits).now_or_never().is_none());
        drop(left);
        drop(held);
        drop((&mut waits).now_or_never().expect("nobody else holds it"));
        assert_eq!(turns.lock().free, 1);
        // A turn that was given to a call which ended before it saw the turn.
        let held = turns.take(1).await;
        let mut waits = Box::pin(turns.take(2));
        assert!((&mut waits).now_or_never().is_none());
        drop(held);
        drop(waits);
        assert_eq!(turns.lock().free, 1);
    }
}
