//! Fields of a request's JSON object.

use serde_json::{Map, Value};

use switchboard_contract::types::Problem;
use switchboard_protocol::wire::problem::Code;

/// Returns a text field; None when it is absent or null.
pub(super) fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Code::Invalid.problem(format!("`{name}` must be a text")).field(name)),
    }
}
