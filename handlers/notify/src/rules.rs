//! Which messages notify, and of what. Pure: no host calls, so plain `cargo test` runs it.

use sdk::event::Event;
use sdk::{Id, outbox, text};
use serde::Deserialize;

/// Characters of a message that a notification repeats.
pub const BODY_CHARS_MAX: usize = 200;
const TITLE_CHARS_MAX: usize = 255;

#[derive(Deserialize)]
struct Message {
    id: String,
    sender_id: String,
    sender: Option<Sender>,
    #[serde(rename = "type")]
    kind: String,
    content: String,
    mentions: Vec<String>,
}

#[derive(Deserialize)]
struct Sender {
    name: Option<String>,
}

/// A message that people are told of.
#[derive(Debug, PartialEq)]
pub struct News {
    /// The event's id: a person's notification is named after it, however often it comes.
    pub event_id: String,
    pub conversation_id: Id,
    pub message_id: String,
    pub seq: u64,
    pub sender_id: String,
    pub title: String,
    pub body: String,
    pub mentions: Vec<String>,
    pub at_ms: u64,
}

/// Nothing for what notifies nobody: only people's own words do.
pub fn news(event: &Event) -> Result<Option<News>, String> {
    let created: outbox::MessageCreated<'_> =
        serde_json::from_str(&event.payload).map_err(|error| format!("payload: {error}"))?;
    let message: Message =
        serde_json::from_str(created.message.get()).map_err(|error| format!("message: {error}"))?;
    if message.kind != "text" {
        return Ok(None);
    }
    let conversation_id =
        Id::parse(created.conversation_id).ok_or_else(|| "conversation_id is no id".to_owned())?;
    let name = message.sender.and_then(|sender| sender.name).unwrap_or_else(|| message.sender_id.clone());
    Ok(Some(News {
        event_id: event.id.clone(),
        conversation_id,
        message_id: message.id,
        seq: created.seq,
        title: text::cut(&name, TITLE_CHARS_MAX).to_owned(),
        body: text::cut(&message.content, BODY_CHARS_MAX).to_owned(),
        sender_id: message.sender_id,
        mentions: message.mentions,
        at_ms: event.at_ms,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ROOM: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn event(message: Value) -> Event {
        Event {
            id: "e".into(),
            position: 1,
            shard: 0,
            event_type: "message.created".into(),
            key: "k".into(),
            payload: json!({ "conversation_id": ROOM, "seq": 3, "message": message }).to_string(),
            at_ms: 7,
            attempt: 1,
        }
    }

    fn message(kind: &str, content: &str, sender: Value) -> Value {
        json!({ "id": "m", "sender_id": "ana", "sender": sender, "type": kind, "content": content, "mentions": ["bo"] })
    }

    #[test]
    fn a_text_tells_who_wrote_and_how_it_begins() {
        let told =
            news(&event(message("text", &"ü".repeat(300), json!({ "name": "Ana" })))).unwrap().unwrap();
        assert_eq!((told.title.as_str(), text::length(&told.body)), ("Ana", 200));
        assert_eq!((told.seq, told.mentions), (3, vec!["bo".to_owned()]));
        let unknown = news(&event(message("text", "hi", Value::Null))).unwrap().unwrap();
        assert_eq!(unknown.title, "ana");
    }

    #[test]
    fn joins_and_leaves_notify_nobody() {
        for kind in ["join", "leave", "system"] {
            assert_eq!(news(&event(message(kind, "x", Value::Null))), Ok(None));
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        assert!(news(&event(json!({}))).unwrap_err().starts_with("message: "));
    }
}
