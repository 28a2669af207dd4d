//! How long one call has been inside its guest: between host calls, and between the turns that the scheduler gives it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::call::Stop;
use super::turns::{Place, Turn};
use crate::limits;

/// How often the engine's epoch ticks, and so how long a guest can hold a worker thread before another task has its turn.
/// Longer makes its neighbours wait; shorter costs a wake-up of the ticker and an atomic increment each time.
pub const TICK: Duration = Duration::from_millis(1);

/// The most that is charged between two marks. A guest that runs on meets a tick and is marked there, so a longer span
/// means that the operating system ran someone else, which is not the guest's doing. (Or that one bulk memory
/// instruction ran over its whole memory: those end by themselves, and the wall deadline stands behind them.)
const SPAN_MAX: Duration = Duration::from_millis(4);

/// Shared with the future that a tick makes the guest wait for. Only one of the two runs at a time; atomics because the
/// compiler can not know that.
pub(crate) struct GuestClock {
    begun: Instant,
    budget: Duration,
    spent_ns: AtomicU64,
    /// When the guest last began to run, in nanoseconds since `begun`.
    entered_ns: AtomicU64,
    /// Held by a call that has run for long, while it is in its guest.
    turn: Mutex<Option<Turn>>,
}

impl GuestClock {
    pub fn new(budget: Duration) -> Self {
        Self {
            begun: Instant::now(),
            budget,
            spent_ns: AtomicU64::new(0),
            entered_ns: AtomicU64::new(0),
            turn: Mutex::new(None),
        }
    }

    pub fn enter_guest(&self, now: Instant) {
        self.entered_ns.store(self.since_begun(now), Relaxed);
    }

    /// The guest calls out, or a tick came.
    pub fn leave_guest(&self, now: Instant) -> Result<(), Stop> {
        let span = self.since_begun(now).saturating_sub(self.entered_ns.load(Relaxed));
        let spent = self.spent_ns.load(Relaxed) + span.min(SPAN_MAX.as_nanos() as u64);
        self.spent_ns.store(spent, Relaxed);
        self.enter_guest(now);
        if Duration::from_nanos(spent) > self.budget {
            return Err(Stop::Cpu { most_ms: self.budget.as_millis() as u64 });
        }
        Ok(())
    }

    /// Between two ticks that find the guest running. Others have their turn on this thread; a guest that has run for long
    /// goes on only with one of the node's few turns, and waits here until it has one.
    pub async fn pause(&self, turns: &Place) {
        if self.is_long() {
            let over = self.turn().take_if(|turn| turn.is_over());
            drop(over);
            if self.turn().is_none() {
                let turn = turns.turn().await;
                *self.turn() = Some(turn);
            }
        }
        // tokio's own yield puts the task at the end of the queue; wasmtime's is polled again at once, and a guest that
        // loops would starve every other task of its thread.
        tokio::task::yield_now().await;
        self.enter_guest(Instant::now());
    }

    /// A guest that waits for a host call needs no processor.
    pub fn give_up_turn(&self) {
        let turn = self.turn().take();
        drop(turn);
    }

    fn turn(&self) -> MutexGuard<'_, Option<Turn>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the call has been inside its guest for so long that it needs a turn.
    pub fn is_long(&self) -> bool {
        self.spent() >= limits::LONG_CPU_AFTER
    }

    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.load(Relaxed))
    }

    fn since_begun(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_the_guest_and_not_what_runs_between() {
        let clock = GuestClock::new(Duration::from_millis(5));
        let start = clock.begun;
        let at = |ms| start + Duration::from_millis(ms);
        clock.enter_guest(at(0));
        clock.leave_guest(at(2)).unwrap();
        // A host call of 100 ms.
        clock.enter_guest(at(102));
        clock.leave_guest(at(103)).unwrap();
        assert_eq!(clock.spent(), Duration::from_millis(3));
        clock.enter_guest(at(110));
        assert_eq!(clock.leave_guest(at(113)), Err(Stop::Cpu { most_ms: 5 }));
    }

    #[test]
    fn a_thread_that_was_put_aside_is_not_charged_for_it() {
        let clock = GuestClock::new(Duration::from_millis(50));
        clock.enter_guest(clock.begun);
        clock.leave_guest(clock.begun + Duration::from_secs(1)).unwrap();
        assert_eq!(clock.spent(), SPAN_MAX);
    }
}
