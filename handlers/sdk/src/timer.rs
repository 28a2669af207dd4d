//! Handle the timers that the handler has set with `timers`. `wit/timer.wit`.

pub use crate::bindings::timer::export_timer as export;
pub use crate::bindings::timer::exports::switchboard::host::timer::{Firing, Guest as Handler, Verdict};
