//! The bound of the calls for one connection each that run at the same time. `batches` bounds the calls for
//! many connections.

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use switchboard_core::limits;

/// Admission slots of the calls about connections.
pub(super) struct Admission {
    pub(super) openings: Semaphore,
    pub(super) closings: Semaphore,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            openings: Semaphore::new(limits::OPENINGS_AT_ONCE_MAX),
            closings: Semaphore::new(limits::CLOSINGS_AT_ONCE_MAX),
        }
    }
}

/// Waits for an admission slot, at most until this time: a handler that hangs can hold all of them.
pub(super) async fn admit(slots: &Semaphore, until: Instant) -> Option<SemaphorePermit<'_>> {
    timeout_at(until, slots.acquire()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_wait_for_an_admission_slot_is_bounded() {
        let soon = || Instant::now() + Duration::from_millis(20);
        let slots = Semaphore::new(1);
        let held = admit(&slots, soon()).await.expect("a slot");
        assert!(admit(&slots, soon()).await.is_none());
        drop(held);
        assert!(admit(&slots, soon()).await.is_some());
    }
}
