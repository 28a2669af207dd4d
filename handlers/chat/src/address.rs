//! Channel addresses of the chat product, and the two tracks on which a conversation publishes.

use sdk::channels::EpochNumber;
use sdk::{Id, Position};

/// The track of a conversation's messages; its numbers are seqs.
pub const SEQ: u8 = 0;
/// The track of edits and deletions of a conversation's messages; its numbers are changes.
pub const CHANGE: u8 = 1;

/// The longest topic name, in bytes.
const TOPIC_BYTES_MAX: usize = 128;

/// The address of everyone who is subscribed to a conversation.
pub fn conversation(id: Id) -> String {
    format!("conv:{id}")
}

/// The address of everyone who is subscribed to a topic. Clients choose topic names; `None` for an invalid
/// one.
pub fn topic(name: &str) -> Option<String> {
    let valid =
        (1..=TOPIC_BYTES_MAX).contains(&name.len()) && !name.chars().any(|c| c.is_control() || c == ' ');
    valid.then(|| format!("topic:{name}"))
}

/// The conversation of an address; `None` for an address of another kind.
pub fn conversation_of(address: &str) -> Option<Id> {
    address.strip_prefix("conv:").and_then(Id::parse)
}

/// The position of a message.
pub const fn seq(epoch: u32, number: u64) -> Position {
    EpochNumber::new(epoch, number).on(SEQ)
}

/// The position of an edit or deletion.
pub const fn change(epoch: u32, number: u64) -> Position {
    EpochNumber::new(epoch, number).on(CHANGE)
}
