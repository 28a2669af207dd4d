//! Answer frames that clients send over their WebSocket. `wit/frame.wit`.

use serde::Serialize;

pub use crate::bindings::frame::exports::switchboard::host::frame::{
    Guest as Handler, Reply, Request, Subscription,
};
pub use crate::frame_export as export;
use crate::{Problem, json};

impl Request {
    /// The payload, which must be a JSON object.
    pub fn payload(&self) -> Result<json::Object, Problem> {
        json::Object::parse(self.payload.as_bytes())
    }
}

impl Reply {
    pub fn new(frame_type: &str, payload: &impl Serialize) -> Self {
        Self::text(frame_type, serde_json::to_string(payload).expect("plain data becomes JSON"))
    }

    /// A reply whose payload is JSON text already.
    pub fn text(frame_type: &str, payload: String) -> Self {
        Self { frame_type: frame_type.to_owned(), payload, subscriptions: Vec::new() }
    }
}

/// A complete frame for a push. The payload must be JSON text.
pub fn push(frame_type: &str, payload: &str) -> String {
    // A frame type consists of letters, digits and `._-:`. JSON needs no escapes for these characters.
    [r#"{"type":""#, frame_type, r#"","payload":"#, payload, "}"].concat()
}

/// The answer to a frame type that the manifest binds and the code does not handle: it logs an error and
/// returns `internal`.
pub fn unknown_type<T>(request: &Request) -> Result<T, Problem> {
    crate::log::error("bound to a frame type it does not answer", &[("type", &request.frame_type)]);
    Err(Problem::internal())
}

#[macro_export]
#[doc(hidden)]
macro_rules! frame_export {
    ($handler:ident) => {
        const _: () = {
            use $crate::frame::{Handler, Reply, Request};

            struct Exported;
            impl Handler for Exported {
                fn handle(request: Request) -> Result<Option<Reply>, $crate::Problem> {
                    $crate::panics::report();
                    <$handler as Handler>::handle(request)
                }
            }
            $crate::bindings::frame::export_frame!(Exported);
        };
    };
}
