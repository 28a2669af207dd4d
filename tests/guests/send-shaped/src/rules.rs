//! The work itself, the same in the guest and in its native control. Only the source of the answers differs.

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

pub(crate) struct World<M, N, I> {
    pub chars_max: M,
    pub now_ms: N,
    pub id: I,
}

#[derive(Deserialize)]
struct Send {
    conversation_id: String,
    content: String,
    client_msg_id: Option<String>,
}

#[derive(Serialize)]
struct Sent<'a> {
    message: Message<'a>,
    duplicate: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    id: String,
    conversation_id: &'a str,
    sender_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    content: &'a str,
    client_msg_id: Option<&'a str>,
    created_at: u64,
}

/// The reply's payload, or the field and the rule that it breaks.
pub(crate) fn send<M: Fn() -> usize, N: Fn() -> u64, I: Fn() -> [u8; 16]>(
    payload: &str,
    sender: &str,
    world: &World<M, N, I>,
) -> Result<String, (&'static str, &'static str)> {
    let send: Send = serde_json::from_str(payload).map_err(|_| ("payload", "is not a message"))?;
    let content: String = send.content.nfc().collect();
    let chars = content.chars().count();
    if chars == 0 || chars > (world.chars_max)() {
        return Err(("content", "is too long or empty"));
    }
    let created_at = (world.now_ms)();
    let id: String = (world.id)().iter().map(|byte| format!("{byte:02x}")).collect();
    let message = Message {
        id,
        conversation_id: &send.conversation_id,
        sender_id: sender,
        kind: "text",
        content: &content,
        client_msg_id: send.client_msg_id.as_deref(),
        created_at,
    };
    serde_json::to_string(&Sent { message, duplicate: false }).map_err(|_| ("payload", "cannot be answered"))
}
