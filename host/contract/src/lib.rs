//! The WIT package as Rust types, mostly generated. The host side of each import is in `runtime::interfaces`;
//! the callers of each export are in `runtime::export`.
//!
//! There is one `bindgen!` for each world. All share the types of `platform`, so that a `Principal` is one
//! type everywhere.

use std::time::Duration;

/// The type of a guest's handle of `postgres.transaction`. The number of the handle identifies the
/// transaction of the call; the transaction itself belongs to the Postgres session of the call.
pub struct Transaction;

mod platform {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "platform",
        imports: {
            // Clock, config and log answer at once, but a replay may delay any of them, and every host call
            // goes through one asynchronous wrapper.
            default: async | trappable,
        },
        with: {
            "switchboard:host/postgres.transaction": crate::Transaction,
        },
        additional_derives: [Clone, PartialEq, serde::Serialize, serde::Deserialize],
    });
}

macro_rules! handler_world {
    ($module:ident, $world:literal) => {
        mod $module {
            wasmtime::component::bindgen!({
                path: "../../wit",
                world: $world,
                exports: { default: async },
                with: {
                    "switchboard:host/types": super::types,
                    "switchboard:host/postgres": super::postgres,
                    "switchboard:host/redis": super::redis,
                    "switchboard:host/channels": super::channels,
                    "switchboard:host/wake": super::wake,
                    "switchboard:host/clock": super::clock,
                    "switchboard:host/random": super::random,
                    "switchboard:host/log": super::log,
                    "switchboard:host/config": super::config,
                    "switchboard:host/fetch": super::fetch,
                    "switchboard:host/secrets": super::secrets,
                    "switchboard:host/calls": super::calls,
                    "switchboard:host/timers": super::timers,
                },
                additional_derives: [Clone, PartialEq, serde::Serialize, serde::Deserialize],
            });
        }
    };
}

handler_world!(http_world, "http-handler");
handler_world!(frame_world, "frame-handler");
handler_world!(connection_world, "connection-handler");
handler_world!(connection_batch_world, "connection-batch-handler");
handler_world!(schedule_world, "schedule-handler");
handler_world!(event_world, "event-handler");
handler_world!(before_world, "before-handler");
handler_world!(call_world, "call-handler");
handler_world!(timer_world, "timer-handler");

pub use platform::switchboard::host::{
    calls, channels, clock, config, fetch, log, postgres, random, redis, secrets, timers, types, wake,
};

pub use before_world::exports::switchboard::host::before;
pub use call_world::exports::switchboard::host::call;
pub use connection_batch_world::exports::switchboard::host::connection_batch;
pub use connection_world::exports::switchboard::host::connection;
pub use event_world::exports::switchboard::host::event;
pub use frame_world::exports::switchboard::host::frame;
pub use http_world::exports::switchboard::host::http;
pub use schedule_world::exports::switchboard::host::schedule;
pub use timer_world::exports::switchboard::host::timer;

pub use before_world::BeforeHandlerPre;
pub use call_world::CallHandlerPre;
pub use connection_batch_world::ConnectionBatchHandlerPre;
pub use connection_world::ConnectionHandlerPre;
pub use event_world::EventHandlerPre;
pub use frame_world::FrameHandlerPre;
pub use http_world::HttpHandlerPre;
pub use schedule_world::ScheduleHandlerPre;
pub use timer_world::TimerHandlerPre;

impl types::Problem {
    /// Names the field of the request that caused the problem.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Sets the wait before the caller's next attempt.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = Some(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        self.retry_after_ms.is_some() || matches!(self.status, 429 | 503)
    }
}
