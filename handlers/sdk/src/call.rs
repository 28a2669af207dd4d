//! Answer the calls of other handlers (`on.call` of the manifest). `wit/call.wit`. The other side is
//! [`crate::calls`].

pub use crate::bindings::call::export_call as export;
pub use crate::bindings::call::exports::switchboard::host::call::{Guest as Handler, Request};
use crate::{Problem, json};

impl Request {
    /// The body, which must be a JSON object. No bytes count as an empty object.
    pub fn json(&self) -> Result<json::Object, Problem> {
        json::Object::parse_or_empty(&self.body)
    }
}

/// The bytes of an answer in JSON.
pub fn answer(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data becomes JSON")
}

/// The answer to a method that the manifest names and the code does not handle: it logs an error and returns
/// `internal`.
pub fn unknown_method<T>(request: &Request) -> Result<T, Problem> {
    crate::log::error("bound to a method it does not answer", &[("method", &request.method)]);
    Err(Problem::internal())
}
