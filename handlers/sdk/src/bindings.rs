//! The Rust bindings that a guest gets from `wit/`. This file holds only generated code, and it is the only
//! place that calls `wit_bindgen::generate!`. It calls the macro once per world. All worlds share the types
//! of `platform`, so that `Problem` is the same type everywhere.
//!
//! In native builds the bindings are stubs that panic when called. Plain `cargo test` can therefore test a
//! handler's rules.

// Only the generated code passes pointers to and from the host.
#![allow(unsafe_code)]
// It makes everything public.
#![allow(unreachable_pub)]

pub mod platform {
    wit_bindgen::generate!({
        path: "wit",
        world: "platform",
        generate_all,
        additional_derives: [PartialEq],
    });
}

macro_rules! handler_world {
    ($module:ident, $world:literal, $bindings:literal, $export:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "wit",
                world: $world,
                with: {
                    "switchboard:host/types@1.0.0": crate::bindings::platform::switchboard::host::types,
                    "switchboard:host/postgres@1.0.0": crate::bindings::platform::switchboard::host::postgres,
                    "switchboard:host/redis@1.0.0": crate::bindings::platform::switchboard::host::redis,
                    "switchboard:host/channels@1.0.0": crate::bindings::platform::switchboard::host::channels,
                    "switchboard:host/wake@1.0.0": crate::bindings::platform::switchboard::host::wake,
                    "switchboard:host/clock@1.0.0": crate::bindings::platform::switchboard::host::clock,
                    "switchboard:host/random@1.0.0": crate::bindings::platform::switchboard::host::random,
                    "switchboard:host/log@1.0.0": crate::bindings::platform::switchboard::host::log,
                    "switchboard:host/config@1.0.0": crate::bindings::platform::switchboard::host::config,
                    "switchboard:host/fetch@1.0.0": crate::bindings::platform::switchboard::host::fetch,
                    "switchboard:host/secrets@1.0.0": crate::bindings::platform::switchboard::host::secrets,
                    "switchboard:host/calls@1.0.0": crate::bindings::platform::switchboard::host::calls,
                    "switchboard:host/timers@1.0.0": crate::bindings::platform::switchboard::host::timers,
                },
                pub_export_macro: true,
                export_macro_name: $export,
                default_bindings_module: $bindings,
                additional_derives: [PartialEq],
            });
        }
    };
}

handler_world!(http, "http-handler", "sdk::bindings::http", "export_http");
handler_world!(frame, "frame-handler", "sdk::bindings::frame", "export_frame");
handler_world!(connection, "connection-handler", "sdk::bindings::connection", "export_connection");
handler_world!(
    connection_batch,
    "connection-batch-handler",
    "sdk::bindings::connection_batch",
    "export_connection_batch"
);
handler_world!(schedule, "schedule-handler", "sdk::bindings::schedule", "export_schedule");
handler_world!(event, "event-handler", "sdk::bindings::event", "export_event");
handler_world!(before, "before-handler", "sdk::bindings::before", "export_before");
handler_world!(call, "call-handler", "sdk::bindings::call", "export_call");
handler_world!(timer, "timer-handler", "sdk::bindings::timer", "export_timer");
