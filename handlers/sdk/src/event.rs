//! Consume the events of the outbox. `wit/event.wit`. The host passes batches in order, and the handler
//! returns one verdict per event.

pub use crate::bindings::event::export_event as export;
pub use crate::bindings::event::exports::switchboard::host::event::{Event, Guest as Handler, Verdict};

/// The usual delay before an event is retried. Redis and the bus are usually available again within a second.
pub const RETRY_MS: u32 = 500;

/// The same verdict for each event of a batch.
pub fn all(events: &[Event], verdict: Verdict) -> Vec<Verdict> {
    vec![verdict; events.len()]
}
