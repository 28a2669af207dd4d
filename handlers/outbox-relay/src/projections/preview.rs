//! The last message of a conversation as lists show it: with a shortened text, and without fields that lists
//! do not need. The SQL function `app.preview_text` makes the same from a row.

use std::borrow::Cow;

use sdk::text;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The length of the shortened text.
const CONTENT_CHARS_MAX: usize = 100;

#[derive(Deserialize)]
pub(super) struct Preview<'a> {
    pub id: &'a str,
    #[serde(borrow)]
    sender_id: &'a RawValue,
    #[serde(borrow, rename = "type")]
    kind: &'a RawValue,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(borrow)]
    created_at: &'a RawValue,
}

impl<'a> Preview<'a> {
    /// Reads a message; `None` if the JSON is not a message. Readers then read it from Postgres.
    pub(super) fn of(message: &'a str) -> Option<Self> {
        serde_json::from_str(message).ok()
    }

    pub(super) fn json(&self, seq: impl std::fmt::Display) -> String {
        let content = Value::from(text::cut(&self.content, CONTENT_CHARS_MAX));
        format!(
            r#"{{"id":"{}","seq":{seq},"sender_id":{},"type":{},"content":{content},"created_at":{}}}"#,
            self.id, self.sender_id, self.kind, self.created_at
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_shortened_and_other_fields_are_left_out() {
        let content = format!("\\\"đường\\n{}", "é".repeat(120));
        let message = format!(
            r#"{{"id":"m","conversation_id":"c","seq":9,"sender_id":"b\"o","sender":null,"type":"text","content":"{content}","metadata":{{"k":1}},"created_at":"t","deleted":false}}"#
        );
        let preview = Preview::of(&message).unwrap();
        let json: Value = serde_json::from_str(&preview.json(9)).unwrap();
        assert_eq!(json["content"].as_str().unwrap().chars().count(), CONTENT_CHARS_MAX);
        assert!(json["content"].as_str().unwrap().starts_with("\"đường\né"));
        assert_eq!((&json["sender_id"], &json["seq"]), (&Value::from("b\"o"), &Value::from(9)));
        assert_eq!(json.as_object().unwrap().len(), 6);
        assert!(Preview::of("{}").is_none());
    }
}
