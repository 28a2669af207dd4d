//! The events of the chat product in the outbox: their types and payloads. A payload contains everything that
//! its consumers need to deliver it, so that they need not read Postgres.

use serde::Deserialize;
use serde_json::value::RawValue;

use sdk::Id;

pub const MESSAGE_CREATED: &str = "message.created";
pub const MESSAGE_EDITED: &str = "message.edited";
pub const MESSAGE_DELETED: &str = "message.deleted";
pub const CONVERSATION_CREATED: &str = "conversation.created";
pub const CONVERSATION_UPDATED: &str = "conversation.updated";
pub const PARTICIPANT_JOINED: &str = "conversation.participant.joined";
pub const PARTICIPANT_LEFT: &str = "conversation.participant.left";
/// {conversation_id}: the participants of a large conversation changed. The changes are in
/// `app.member_changes`, because they go on until the relay announces them.
pub const MEMBERS_CHANGED: &str = "conversation.members.changed";
/// {class, by}: the class as responses show it, without `my_role`. The events of a class and its members have
/// the key of the class's conversation.
pub const CLASS_CREATED: &str = "class.created";
/// {class, user_id, role, by}.
pub const CLASS_MEMBER_ADDED: &str = "class.member.added";
/// {class, user_id, role, by}: `role` is the role that the user had.
pub const CLASS_MEMBER_REMOVED: &str = "class.member.removed";
/// A frame that an internal system published.
pub const PUBLISHED: &str = "published";
pub const USER_ONLINE: &str = "user.online";
pub const USER_OFFLINE: &str = "user.offline";
/// A user who stays online changed between `online`, `away` and `busy`.
pub const USER_STATUS: &str = "user.status";
pub const SOCKET_CONNECT: &str = "socket.connect";
pub const SOCKET_DISCONNECT: &str = "socket.disconnect";
// A mark increased (`marks`).
pub const RECEIPT_READ: &str = "receipt.read";
pub const RECEIPT_DELIVERED: &str = "receipt.delivered";

/// The key of all events of a conversation. Events with the same key are delivered in the order of their
/// commits.
pub fn key(conversation: Id) -> String {
    format!("conv:{conversation}")
}

/// The payload of `message.created`.
#[derive(Deserialize)]
pub struct MessageCreated<'a> {
    pub conversation_id: &'a str,
    pub seq: u64,
    /// The ordinal of the position epoch in which the message was written; absent in the first epoch.
    #[serde(default)]
    pub epoch: u32,
    /// True if the sender was the only participant; absent if not, or if it is not known. Somebody who joins
    /// later has read the message, as everything before their join.
    #[serde(default)]
    pub alone: bool,
    /// The message as clients see it.
    #[serde(borrow)]
    pub message: &'a RawValue,
}

/// The payload of `published`: a frame for an address, and optionally a notification for the users of that
/// address.
#[derive(Deserialize)]
pub struct Published<'a> {
    pub target: String,
    #[serde(rename = "type")]
    pub frame_type: String,
    #[serde(borrow)]
    pub payload: &'a RawValue,
    #[serde(borrow)]
    pub notify: Option<Notice<'a>>,
}

/// A notification that an internal system requested. The publish API has checked it.
#[derive(Debug, Deserialize)]
pub struct Notice<'a> {
    #[serde(rename = "type")]
    pub kind: String,
    pub level: String,
    pub title: String,
    pub body: Option<String>,
    pub entity_type: Option<String>,
    pub entity_id: Option<String>,
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
}
