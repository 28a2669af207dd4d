//! Consume the events of the outbox. `wit/event.wit`. The host passes batches in order, and the handler
//! returns one verdict per event.

pub use crate::bindings::event::exports::switchboard::host::event::{Event, Guest as Handler, Verdict};
pub use crate::event_export as export;

/// The usual delay before an event is retried. Redis and the bus are usually available again within a second.
pub const RETRY_MS: u32 = 500;

/// The same verdict for each event of a batch.
pub fn all(events: &[Event], verdict: Verdict) -> Vec<Verdict> {
    vec![verdict; events.len()]
}

#[macro_export]
#[doc(hidden)]
macro_rules! event_export {
    ($handler:ident) => {
        const _: () = {
            use $crate::event::{Event, Handler, Verdict};

            struct Exported;
            impl Handler for Exported {
                fn handle(events: Vec<Event>) -> Vec<Verdict> {
                    $crate::panics::report();
                    <$handler as Handler>::handle(events)
                }
            }
            $crate::bindings::event::export_event!(Exported);
        };
    };
}
