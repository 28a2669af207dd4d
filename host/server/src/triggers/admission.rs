//! The bound of the calls about connections that run at the same time.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

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

/// Waits for an admission slot, at most `wait`: a handler that hangs can hold all of them.
pub(super) async fn admit(slots: &Semaphore, wait: Duration) -> Option<SemaphorePermit<'_>> {
    timeout(wait, slots.acquire()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_wait_for_an_admission_slot_is_bounded() {
        const SHORT: Duration = Duration::from_millis(20);
        let slots = Semaphore::new(1);
        let held = admit(&slots, SHORT).await.expect("a slot");
        assert!(admit(&slots, SHORT).await.is_none());
        drop(held);
        assert!(admit(&slots, SHORT).await.is_some());
    }
}
