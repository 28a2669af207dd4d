//! What a handler author reads first: the world as a handler sees it.
//!
//! A handler is a library crate that implements one or more of five traits and says so:
//!
//! ```ignore
//! struct Greet;
//! sdk::frame::export!(Greet);
//!
//! impl sdk::frame::Handler for Greet {
//!     fn handle(request: sdk::frame::Request) -> Result<Option<sdk::frame::Reply>, sdk::Problem> {
//!         let mut payload = request.payload()?;
//!         let name = payload.text("name")?.unwrap_or_else(|| request.caller.user_id.clone());
//!         Ok(Some(sdk::frame::Reply::new("greeting", &serde_json::json!({ "text": format!("hello {name}") }))))
//!     }
//! }
//! ```
//!
//! The modules of the first group answer the host (`wit/`: one interface a file, the same name here). Those of the
//! second call it. The third are the words of the chat product: names, shapes and rules that several handlers share.
//! Nothing here keeps state: every call has a fresh instance.

pub mod bindings;
mod heap;

pub mod connection;
pub mod event;
pub mod frame;
pub mod http;
pub mod schedule;

pub mod channels;
pub mod clock;
pub mod config;
pub mod log;
pub mod postgres;
pub mod random;
pub mod redis;
pub mod wake;

pub mod conversation;
pub mod cursor;
pub mod id;
pub mod json;
pub mod keys;
pub mod marks;
pub mod membership;
pub mod message;
pub mod notification;
pub mod outbox;
pub mod presence;
pub mod problem;
pub mod rate;
pub mod text;
pub mod time;

pub use bindings::platform::switchboard::host::types::{Position, Principal, Problem, Push};
pub use id::Id;
