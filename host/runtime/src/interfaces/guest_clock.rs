//! The processor time of one call inside its guest. Host calls, and pauses of the scheduler, do not count.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::stop::Stop;
use super::turns::{Turn, TurnQueue};
use parking_lot::{Mutex, MutexGuard};
use switchboard_core::limits;

/// Processor clock of one call. The call shares it with the future on which a tick makes the guest wait. Only
/// one of the two runs at a time; the fields are atomics because the compiler cannot know that.
pub(crate) struct GuestClock {
    begun: Instant,
    budget: Duration,
    spent_ns: AtomicU64,
    /// When the guest last began to run, in nanoseconds since `begun`.
    entered_ns: AtomicU64,
    /// The turn of a long call, held while it is inside its guest.
    turn: Mutex<Option<Turn>>,
}

impl GuestClock {
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            begun: Instant::now(),
            budget,
            spent_ns: AtomicU64::new(0),
            entered_ns: AtomicU64::new(0),
            turn: Mutex::new(None),
        }
    }

    pub(crate) fn enter_guest(&self, now: Instant) {
        self.entered_ns.store(self.since_begun(now), Relaxed);
    }

    /// Charges the guest, because it makes a host call or a tick came.
    ///
    /// # Errors
    /// `Stop::Cpu` when the budget is used up.
    pub(crate) fn leave_guest(&self, now: Instant) -> Result<(), Stop> {
        let span = self.since_begun(now).saturating_sub(self.entered_ns.load(Relaxed));
        let spent = self.spent_ns.load(Relaxed) + span.min(limits::CPU_SPAN_MAX.as_nanos() as u64);
        self.spent_ns.store(spent, Relaxed);
        self.enter_guest(now);
        if Duration::from_nanos(spent) > self.budget {
            return Err(Stop::Cpu { most_ms: self.budget.as_millis() as u64 });
        }
        Ok(())
    }

    /// Pauses the guest at a tick, so that other tasks run on this thread. A long call waits here until it
    /// has one of the node's turns.
    pub(crate) async fn pause(&self, turns: &TurnQueue) {
        if self.is_long() {
            let over = self.turn().take_if(|turn| turn.is_over());
            drop(over);
            if self.turn().is_none() {
                let turn = turns.turn().await;
                *self.turn() = Some(turn);
            }
        }
        // The yield of tokio puts the task at the end of the queue. The yield of wasmtime is polled again at
        // once, so a guest that loops would starve every other task of its thread.
        tokio::task::yield_now().await;
        self.enter_guest(Instant::now());
    }

    /// Gives the turn back, because a guest that waits for a host call needs no processor.
    pub(crate) fn give_up_turn(&self) {
        let turn = self.turn().take();
        drop(turn);
    }

    fn turn(&self) -> MutexGuard<'_, Option<Turn>> {
        self.turn.lock()
    }

    /// Returns true when the call has been inside its guest for [`limits::LONG_CPU_AFTER`] and needs a turn.
    pub(crate) fn is_long(&self) -> bool {
        self.spent() >= limits::LONG_CPU_AFTER
    }

    pub(crate) fn spent(&self) -> Duration {
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
        assert_eq!(clock.spent(), limits::CPU_SPAN_MAX);
    }
}
