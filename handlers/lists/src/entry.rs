//! A conversation in a user's list, and its JSON. Pure: no host calls.

use sdk::Id;
use serde_json::Value;

#[derive(Debug, Default, PartialEq)]
pub struct Presence {
    pub status: String,
    /// RFC 3339.
    pub last_seen: Option<String>,
}

/// The other person of a direct conversation.
#[derive(Debug, PartialEq)]
pub struct Peer {
    pub user_id: String,
    /// JSON text; `None` for a user who has never connected.
    pub profile: Option<String>,
    /// Whether the list's user may see the peer's presence.
    pub is_seen: bool,
    /// `None` if it is unknown, because Redis is unavailable.
    pub presence: Option<Presence>,
}

#[derive(Debug, PartialEq)]
pub struct Entry {
    /// The id of the last message. It decides the position in the list, and it is the cursor of the entry.
    pub activity: Id,
    /// The conversation as every response shows it: JSON text of an object.
    pub text: String,
    pub role: String,
    pub notifications: String,
    pub last_read_seq: u64,
    pub unread: u64,
    /// JSON text.
    pub last: String,
    pub peer: Option<Peer>,
}

impl Entry {
    pub fn json(&self) -> String {
        let open = self.text.strip_suffix('}').unwrap_or(&self.text);
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
            r#"{open},"my_role":"{}","notifications":"{}","last_read_seq":{},"unread":{},"last_message":{},"peer":{},"presence":{}}}"#,
            self.role,
            self.notifications,
            self.last_read_seq,
            self.unread,
            self.last,
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
            text: r#"{"id":"c","settings":{}}"#.into(),
            role: "member".into(),
            notifications: "all".into(),
            last_read_seq: 3,
            unread: 2,
            last: "null".into(),
            peer: None,
        };
        let json: Value = serde_json::from_str(&entry.json()).unwrap();
        assert_eq!((&json["id"], &json["unread"]), (&Value::from("c"), &Value::from(2)));
        assert!(json["peer"].is_null() && json["presence"].is_null() && json["settings"].is_object());

        let presence = Presence { status: "online".into(), last_seen: None };
        entry.peer =
            Some(Peer { user_id: "b\"o".into(), profile: None, is_seen: true, presence: Some(presence) });
        let json: Value = serde_json::from_str(&entry.json()).unwrap();
        assert_eq!(json["peer"], serde_json::json!({ "user_id": "b\"o", "user": null }));
        assert_eq!(json["presence"]["status"], "online");
    }
}
