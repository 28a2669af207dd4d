//! The events of the chat product, as they lie in the outbox: their names and their payloads. A payload says everything
//! that its consumers need, so that none of them reads Postgres to deliver it.

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
/// {class, by}: a class as answers show it, but for `my_role`. Keyed, like those of its members, as its conversation.
pub const CLASS_CREATED: &str = "class.created";
/// {class, user_id, role, by}.
pub const CLASS_MEMBER_ADDED: &str = "class.member.added";
/// {class, user_id, role, by}: the role that they had.
pub const CLASS_MEMBER_REMOVED: &str = "class.member.removed";
/// What an internal system publishes.
pub const PUBLISHED: &str = "published";
pub const USER_ONLINE: &str = "user.online";
pub const USER_OFFLINE: &str = "user.offline";
/// Online, away or busy, among those who are not offline.
pub const USER_STATUS: &str = "user.status";
pub const SOCKET_CONNECT: &str = "socket.connect";
pub const SOCKET_DISCONNECT: &str = "socket.disconnect";
/// A mark rose (`marks`): how far somebody has read, or been delivered to.
pub const RECEIPT_READ: &str = "receipt.read";
pub const RECEIPT_DELIVERED: &str = "receipt.delivered";

/// Every event of a conversation has this key, so they are in the order of their commits.
pub fn key(conversation: Id) -> String {
    format!("conv:{conversation}")
}

/// `message.created`.
#[derive(Deserialize)]
pub struct MessageCreated<'a> {
    pub conversation_id: &'a str,
    pub seq: u64,
    /// The ordinal of the position epoch in which it was written; absent in the first one.
    #[serde(default)]
    pub epoch: u32,
    /// The message as clients see it.
    #[serde(borrow)]
    pub message: &'a RawValue,
}

/// `published`: a frame for an address, and what to remember of it for the people behind it.
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

/// A notification as an internal system wishes it; the publish API has checked it.
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
