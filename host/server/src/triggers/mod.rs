//! Triggers: what starts calls into handlers. A trigger finds the handler that a manifest binds, pins the
//! release for this caller, and calls it. `gateway` knows no WebAssembly and `runtime` no HTTP; the triggers
//! join the two. They implement what the listeners ask for (`crate::calls`).

mod admission;
mod batches;
mod connection;
mod epochs;
mod event;
mod frame;
mod hooks;
mod http;
mod listeners;
mod retries;
mod schedule;
mod state;
mod timer;
mod touches;

use std::sync::Arc;

use switchboard_core::shutdown::ShutdownGuard;

pub use state::Triggers;

impl Triggers {
    /// Starts the tasks that run without a request: events, schedules, timers, reports of touched
    /// connections, and the filling of gaps. Each task holds a clone of `guard`, and ends when the shutdown
    /// begins.
    pub fn start(self: &Arc<Self>, guard: &ShutdownGuard) {
        tokio::spawn(connection::report_touches(self.clone(), guard.clone()));
        tokio::spawn(connection::fill_gaps(self.clone(), guard.clone()));
        tokio::spawn(epochs::run(self.clone(), guard.clone()));
        tokio::spawn(schedule::run(self.clone(), guard.clone()));
        tokio::spawn(event::run(self.clone(), guard.clone()));
        tokio::spawn(timer::run(self.clone(), guard.clone()));
    }
}
