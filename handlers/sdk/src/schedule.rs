//! Run work at intervals. `wit/schedule.wit`.

pub use crate::bindings::schedule::export_schedule as export;
pub use crate::bindings::schedule::exports::switchboard::host::schedule::{Guest as Handler, Tick};
