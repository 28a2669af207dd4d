//! The mailbox between the host call that sets a timer and the trigger that fires it: the earliest time of
//! the timers that were set on this node since the trigger looked. Other nodes learn of a timer by their next
//! poll.

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct Wake {
    earliest: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Wake {
    /// Notes that a timer is due at this time.
    pub(super) fn due_by(&self, at: Instant) {
        let mut earliest = self.earliest.lock();
        *earliest = Some(earliest.map_or(at, |before| before.min(at)));
        drop(earliest);
        self.changed.notify_one();
    }

    /// Waits for a time, and takes it. Cancel safe: between the taking and the return is no wait.
    pub(super) async fn due(&self) -> Instant {
        loop {
            let taken = self.earliest.lock().take();
            if let Some(at) = taken {
                return at;
            }
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_earliest_time_is_taken_once() {
        let (wake, now) = (Wake::default(), Instant::now());
        wake.due_by(now + Duration::from_secs(9));
        wake.due_by(now + Duration::from_secs(3));
        wake.due_by(now + Duration::from_secs(6));
        assert_eq!(wake.due().await, now + Duration::from_secs(3));
        tokio::select! {
            biased;
            _ = wake.due() => panic!("it was taken"),
            () = std::future::ready(()) => {}
        }
        wake.due_by(now);
        assert_eq!(wake.due().await, now);
    }
}
