//! The wait before a failed event or timer is delivered again. Pure.

use std::time::Duration;

use switchboard_core::limits;

/// Returns the wait after this attempt, counted from 1. It doubles with each attempt, from
/// [`limits::EVENT_RETRY_AFTER`] to [`limits::EVENT_RETRY_AFTER_MAX`].
pub(super) fn retry_after(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(20);
    (limits::EVENT_RETRY_AFTER * (1 << doublings)).min(limits::EVENT_RETRY_AFTER_MAX)
}
