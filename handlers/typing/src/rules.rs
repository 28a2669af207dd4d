//! Parses `typing` frames, and makes the entries of signals in Redis and the pushes to clients. Pure: no host
//! calls, so plain `cargo test` runs it.

use chat::address;
use chat::membership::ConversationName;
use sdk::json::Object;
use sdk::{Id, Problem, channels::Publication, frame};
use serde_json::json;

/// Minimum time between two pushes about a user who keeps typing in a conversation. It is half of
/// [`chat::keys::TYPING_MS`], after which a signal expires, so clients get the next push before that.
pub(crate) const PUSH_INTERVAL_MS: u64 = 5_000;

/// A typing signal: the user has begun to type, or has stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Signal {
    Start,
    Stop,
}

/// Parses the payload of a `typing` frame. A payload without `state` is a start.
pub(crate) fn parse_payload(mut payload: Object) -> Result<(ConversationName, Signal), Problem> {
    let conversation = ConversationName::of_field(&mut payload)?;
    let signal = match payload.text("state")?.as_deref() {
        None | Some("start") => Signal::Start,
        Some("stop") => Signal::Stop,
        Some(_) => return Err(Problem::invalid("state", "is neither start nor stop")),
    };
    Ok((conversation, signal))
}

/// The entry of a user who is typing in a conversation. It is a member of the sorted set
/// [`chat::keys::typing`], and a field of the hash beside it (`scripts/typing.lua`).
pub(crate) fn format_entry(conversation: Id, user: &str) -> String {
    format!("{conversation} {user}")
}

/// Parses an entry. `None` if the text is no entry; the caller ignores it.
pub(crate) fn parse_entry(entry: &str) -> Option<(Id, &str)> {
    let (conversation, user) = entry.split_once(' ')?;
    Some((Id::parse(conversation)?, user))
}

/// The push to all subscribers of the conversation except the connections of the user. When a client reads
/// slowly, a later signal of the user replaces an earlier one in its queue.
pub(crate) fn push(conversation: Id, user: &str, signal: Signal) -> Publication {
    let frame_type = match signal {
        Signal::Start => "typing.start",
        Signal::Stop => "typing.stop",
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

    fn parse(payload: &Value) -> Result<(ConversationName, Signal), Problem> {
        parse_payload(Object::parse(payload.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_frame_without_a_state_starts_typing() {
        let conversation = ConversationName::parse(CONVERSATION).unwrap();
        for (payload, signal) in [
            (json!({ "conversation_id": CONVERSATION }), Signal::Start),
            (json!({ "conversation_id": CONVERSATION, "state": null }), Signal::Start),
            (json!({ "conversation_id": CONVERSATION, "state": "start" }), Signal::Start),
            (json!({ "conversation_id": CONVERSATION, "state": "stop" }), Signal::Stop),
        ] {
            assert_eq!(parse(&payload).unwrap(), (conversation.clone(), signal), "{payload}");
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
            assert_eq!(parse(&payload).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn an_entry_can_be_parsed_for_any_user_id() {
        let conversation = Id::parse(CONVERSATION).unwrap();
        assert_eq!(parse_entry(&format_entry(conversation, "a b:c")), Some((conversation, "a b:c")));
        assert_eq!(parse_entry("x"), None);
    }

    #[test]
    fn a_user_gets_no_push_about_their_own_typing() {
        let push = push(Id::parse(CONVERSATION).unwrap(), "bo", Signal::Stop);
        assert_eq!(push.except_user.as_deref(), Some("bo"));
        assert!(push.frame.starts_with(r#"{"type":"typing.stop","payload":{"#));
    }
}
