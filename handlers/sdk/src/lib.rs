//! The platform as a handler sees it. An author of a handler reads this file first.
//!
//! A handler is a library crate. It implements one or more of nine traits and exports each of them:
//!
//! ```ignore
//! struct Greet;
//! sdk::frame::export!(Greet);
//!
//! impl sdk::frame::Handler for Greet {
//!     fn handle(request: sdk::frame::Request) -> Result<Option<sdk::frame::Reply>, sdk::Problem> {
//!         let mut payload = request.payload()?;
//!         let name = payload.text("name")?.unwrap_or_else(|| request.caller.user_id.clone());
//!         let greeting = serde_json::json!({ "text": format!("hello {name}") });
//!         Ok(Some(sdk::frame::Reply::new("greeting", &greeting)))
//!     }
//! }
//! ```
//!
//! The modules below are in three groups. The host calls the handler through the modules of the first group.
//! The handler calls the host through those of the second group. Each of these modules has the name of its
//! interface in `wit/`. The third group makes no new host calls: it reads input, and it formats ids, times
//! and errors.
//!
//! A handler keeps no state in memory between calls: the host makes a fresh instance for each call.

pub mod bindings;
mod heap;
#[doc(hidden)]
pub mod panics;

pub mod before;
pub mod call;
pub mod connection;
pub mod connection_batch;
pub mod event;
pub mod frame;
pub mod http;
pub mod schedule;
pub mod timer;

pub mod calls;
pub mod channels;
pub mod clock;
pub mod config;
pub mod fetch;
pub mod log;
pub mod postgres;
pub mod random;
pub mod redis;
pub mod secrets;
pub mod timers;
pub mod wake;

pub mod cursor;
pub mod hash;
pub mod id;
pub mod json;
pub mod problem;
pub mod rate;
pub mod text;
pub mod time;

pub use bindings::platform::switchboard::host::types::{Position, Principal, Problem, Push};
pub use id::Id;
