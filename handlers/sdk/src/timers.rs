//! One-shot timers of this handler, which outlive every node. `grants.timers` permits them, and `on.timer`
//! handles them (`timer`).
//!
//! Each function is a commit of its own. So set a timer before the COMMIT of the change that it belongs to,
//! due after the end of the call, and let `fire` read whether the change exists.

use crate::bindings::platform::switchboard::host::timers;

pub use timers::{Due, Error, Timer};

impl Timer {
    /// A timer that is due after this many milliseconds.
    pub fn after_ms(key: impl Into<String>, after_ms: u64, payload: impl Into<String>) -> Self {
        Self { key: key.into(), due: Due::AfterMs(after_ms), payload: payload.into() }
    }

    /// A timer that is due at this time, in milliseconds since 1970 UTC.
    pub fn at_ms(key: impl Into<String>, at_ms: u64, payload: impl Into<String>) -> Self {
        Self { key: key.into(), due: Due::AtMs(at_ms), payload: payload.into() }
    }
}

/// Sets a timer. It replaces the one with the same key.
///
/// # Errors
/// As `wit/timers.wit` states. After `Unavailable`, set it again.
pub fn set(timer: &Timer) -> Result<(), Error> {
    timers::set(timer)
}

/// Sets 1 to 256 timers with different keys, all or none.
///
/// # Errors
/// As [`set`].
pub fn set_all(timers: &[Timer]) -> Result<(), Error> {
    timers::set_all(timers)
}

/// Removes a timer. Returns true if it was waiting, so that it will not fire.
///
/// # Errors
/// As [`set`].
pub fn cancel(key: &str) -> Result<bool, Error> {
    timers::cancel(key)
}
