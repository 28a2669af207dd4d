//! A conversation in a user's list, and its JSON. `list` and `store` make entries, and `presence` then adds
//! the presences. A status is one of a few known words, so the JSON has it without escapes. Pure: no host
//! calls.

use sdk::Id;
use serde_json::Value;

/// A conversation as the user sees it who requested the list: the *reader*.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    /// The id of the last message, or of the conversation if it has no message. It decides the place in the
    /// list, newest first, and it is the cursor of the entry.
    pub activity: Id,
    /// The begin of the entry, made by Postgres: JSON text of an object without its last brace. It has the
    /// conversation as every response shows it, `my_role` and `notifications`.
    pub begin: String,
    /// The seq up to which the reader has read the conversation.
    pub last_read_seq: u64,
    /// The number of text messages of others after `last_read_seq`, among the newest 10,000 messages.
    pub unread: u64,
    /// The preview of the last message: JSON text, `null` if there is no message.
    pub last_message: String,
    /// `None` if the conversation is not direct.
    pub peer: Option<Peer>,
}

/// The other user of a direct conversation.
#[derive(Debug, PartialEq)]
pub(crate) struct Peer {
    pub user_id: String,
    /// JSON text; `None` for a user who has never connected.
    pub profile: Option<String>,
    /// Whether the reader may see the peer's presence. If not, the peer is shown as `offline`.
    pub is_visible: bool,
    /// `None` until `presence` adds it. It stays `None`, and the JSON has `null`, if Redis does not answer.
    pub presence: Option<Presence>,
}

/// Whether a peer is online, as the handler `presence` keeps it in Redis.
#[derive(Debug, PartialEq)]
pub(crate) struct Presence {
    /// `online`, `away`, `busy` or `offline`.
    pub status: String,
    /// The last sign of life of the peer's connections, in RFC 3339. `None` for a peer whom Redis does not
    /// know, or who is not visible.
    pub last_seen: Option<String>,
}

impl Entry {
    /// The object of the response.
    pub(crate) fn json(&self) -> String {
        let (peer, presence) = self.peer.as_ref().map_or((None, None), |peer| {
            let user_id = Value::from(peer.user_id.as_str());
            let profile = peer.profile.as_deref().unwrap_or("null");
            let presence = peer.presence.as_ref().map(|presence| {
                let last_seen = presence.last_seen.as_deref().map_or(Value::Null, Value::from);
                format!(r#"{{"user_id":{user_id},"status":"{}","last_seen":{last_seen}}}"#, presence.status)
            });
            (Some(format!(r#"{{"user_id":{user_id},"user":{profile}}}"#)), presence)
        });
        format!(
            r#"{},"last_read_seq":{},"unread":{},"last_message":{},"peer":{},"presence":{}}}"#,
            self.begin,
            self.last_read_seq,
            self.unread,
            self.last_message,
            peer.as_deref().unwrap_or("null"),
            presence.as_deref().unwrap_or("null"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_conversation_and_the_users_own_fields() {
        let mut entry = Entry {
            activity: Id::at(1, &[0; 10]),
            begin: r#"{"id":"c","settings":{},"my_role":"member","notifications":"all""#.into(),
            last_read_seq: 3,
            unread: 2,
            last_message: "null".into(),
            peer: None,
        };
        let json: Value = serde_json::from_str(&entry.json()).unwrap();
        assert_eq!((&json["id"], &json["unread"]), (&Value::from("c"), &Value::from(2)));
        assert!(json["peer"].is_null() && json["presence"].is_null() && json["settings"].is_object());

        let presence = Presence { status: "online".into(), last_seen: None };
        entry.peer =
            Some(Peer { user_id: "b\"o".into(), profile: None, is_visible: true, presence: Some(presence) });
        let json: Value = serde_json::from_str(&entry.json()).unwrap();
        assert_eq!(json["peer"], serde_json::json!({ "user_id": "b\"o", "user": null }));
        assert_eq!(json["presence"]["status"], "online");
    }
}
