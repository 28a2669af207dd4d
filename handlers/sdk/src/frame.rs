//! Answer frames of a socket. `wit/frame.wit`.

use serde::Serialize;

pub use crate::bindings::frame::export_frame as export;
pub use crate::bindings::frame::exports::switchboard::host::frame::{
    Guest as Handler, Reply, Request, Subscription,
};
use crate::{Problem, json};

impl Request {
    pub fn payload(&self) -> Result<json::Object, Problem> {
        json::Object::parse(self.payload.as_bytes())
    }
}

impl Reply {
    pub fn new(frame_type: &str, payload: &impl Serialize) -> Self {
        Self::text(frame_type, serde_json::to_string(payload).expect("plain data becomes JSON"))
    }

    /// A payload that is JSON text already.
    pub fn text(frame_type: &str, payload: String) -> Self {
        Self { frame_type: frame_type.to_owned(), payload, subscriptions: Vec::new() }
    }
}

/// A whole frame, as pushes carry it, around a payload that is JSON text already.
pub fn push(frame_type: &str, payload: &str) -> String {
    // Frame types are words of letters, digits and `._-:`, which JSON writes as they are.
    [r#"{"type":""#, frame_type, r#"","payload":"#, payload, "}"].concat()
}

/// For the last arm of a handler's match: the manifest binds a type that the code does not know.
pub fn unknown_type<T>(request: &Request) -> Result<T, Problem> {
    crate::log::error("bound to a frame type it does not answer", &[("type", &request.frame_type)]);
    Err(Problem::internal())
}
