//! Reads `typing` frames, and formats the entries in Redis and the pushes. Pure: no host calls, so plain
//! `cargo test` runs it.

use chat::address;
use chat::membership::ConversationName;
use sdk::json::Object;
use sdk::{Id, Problem, channels::Publication, frame};
use serde_json::json;

/// The interval after which the signal of a user who continues to type is pushed again, well before it
/// expires.
pub const FRESH_MS: u64 = 5_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    Start,
    Stop,
}

pub fn read(mut payload: Object) -> Result<(ConversationName, State), Problem> {
    let conversation = ConversationName::of_field(&mut payload)?;
    let state = match payload.text("state")?.as_deref() {
        None | Some("start") => State::Start,
        Some("stop") => State::Stop,
        Some(_) => return Err(Problem::invalid("state", "is neither start nor stop")),
    };
    Ok((conversation, state))
}

pub fn entry(conversation: Id, user: &str) -> String {
    format!("{conversation} {user}")
}

pub fn read_entry(entry: &str) -> Option<(Id, &str)> {
    let (conversation, user) = entry.split_once(' ')?;
    Some((Id::parse(conversation)?, user))
}

/// The push to all subscribers of the conversation except the user. A slow reader gets only the latest
/// signal.
pub fn push(conversation: Id, user: &str, state: State) -> Publication {
    let frame_type = match state {
        State::Start => "typing.start",
        State::Stop => "typing.stop",
    };
    let payload = json!({ "conversation_id": conversation, "user_id": user }).to_string();
    Publication {
        merge_key: Some(format!("typing:{conversation}:{user}")),
        except_user: Some(user.to_owned()),
        ..Publication::new(address::conversation(conversation), frame::push(frame_type, &payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn read(payload: Value) -> Result<(ConversationName, State), Problem> {
        super::read(Object::parse(payload.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_frame_without_a_state_starts_typing() {
        let conversation = ConversationName::parse(CONVERSATION).unwrap();
        for (state, meant) in
            [(Value::Null, State::Start), ("start".into(), State::Start), ("stop".into(), State::Stop)]
        {
            let payload = json!({ "conversation_id": CONVERSATION, "state": state });
            assert_eq!(read(payload).unwrap(), (conversation.clone(), meant));
        }
    }

    #[test]
    fn an_error_names_its_field() {
        for (field, payload) in [
            ("conversation_id", json!({})),
            ("conversation_id", json!({ "conversation_id": "No Slug" })),
            ("state", json!({ "conversation_id": CONVERSATION, "state": "maybe" })),
            ("state", json!({ "conversation_id": CONVERSATION, "state": true })),
        ] {
            assert_eq!(read(payload).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn an_entry_is_read_back_for_any_user_id() {
        let conversation = Id::parse(CONVERSATION).unwrap();
        assert_eq!(read_entry(&entry(conversation, "a b:c")), Some((conversation, "a b:c")));
        assert_eq!(read_entry("x"), None);
    }

    #[test]
    fn a_user_gets_no_push_of_their_own_typing() {
        let push = push(Id::parse(CONVERSATION).unwrap(), "bo", State::Stop);
        assert_eq!(push.except_user.as_deref(), Some("bo"));
        assert!(push.frame.starts_with(r#"{"type":"typing.stop","payload":{"#));
    }
}
