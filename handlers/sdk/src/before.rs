//! Hooks: decide about actions before their handlers get them (`on.before` of the manifest).
//! `wit/before.wit`.
//!
//! ```ignore
//! impl before::Handler for NoShouting {
//!     fn decide(request: before::Request) -> before::Decision {
//!         // Not `Allow`: another parser may read what this one cannot.
//!         let mut message = match request.members() {
//!             Ok(message) => message,
//!             Err(problem) => return before::Decision::Refuse(problem),
//!         };
//!         let Some(content) = message.get("content").and_then(|content| content.as_str()) else {
//!             return before::Decision::Allow;
//!         };
//!         let quiet = content.to_lowercase();
//!         message.insert("content".to_owned(), quiet.into());
//!         before::Decision::to(message)
//!     }
//! }
//! ```

use serde_json::{Map, Value};

pub use crate::bindings::before::export_before as export;
pub use crate::bindings::before::exports::switchboard::host::before::{Decision, Guest as Handler, Request};
use crate::{Problem, json};

impl Request {
    /// The payload, to read it field by field.
    pub fn payload(&self) -> Result<json::Object, Problem> {
        json::Object::parse(self.payload.as_bytes())
    }

    /// The members of the payload, to change some and to keep the others as they are.
    pub fn members(&self) -> Result<Map<String, Value>, Problem> {
        serde_json::from_str(&self.payload)
            .map_err(|error| Problem::malformed(format!("the payload is not a JSON object: {error}")))
    }
}

impl Decision {
    /// Changes the payload to an object with these members.
    pub fn to(members: Map<String, Value>) -> Self {
        Self::Change(Value::Object(members).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_member_leaves_the_others() {
        let request = Request {
            id: "1".to_owned(),
            action: "message.send".to_owned(),
            caller: None,
            payload: r#"{"content":"HI","n":7}"#.to_owned(),
        };
        let mut members = request.members().expect("an object");
        members.insert("content".to_owned(), "hi".into());
        assert_eq!(Decision::to(members), Decision::Change(r#"{"content":"hi","n":7}"#.to_owned()));
        let text = request.payload().and_then(|mut payload| payload.text("content"));
        assert_eq!(text, Ok(Some("HI".to_owned())));
    }
}
