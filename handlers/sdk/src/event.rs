//! Consume the outbox. `wit/event.wit`: batches in order, one verdict for each event.

pub use crate::bindings::event::export_event as export;
pub use crate::bindings::event::exports::switchboard::host::event::{Event, Guest as Handler, Verdict};

/// Where to wait is a guess: Redis and the bus are usually back within a second.
pub const RETRY_MS: u32 = 500;

/// The same verdict for all.
pub fn all(events: &[Event], verdict: Verdict) -> Vec<Verdict> {
    vec![verdict; events.len()]
}
