//! Fan-out. `wit/channels.wit`. Addresses are made here, so that their spelling is in one place.

pub use crate::bindings::platform::switchboard::host::channels::{
    Error, Publication, Target, disconnect, publish, revoke, send, subscribe, unsubscribe,
};
use crate::{Id, Position, Problem, log};

/// The messages of a conversation.
pub const SEQ: u8 = 0;
/// The edits and deletions of them.
pub const CHANGE: u8 = 1;

/// Everyone subscribed to a conversation.
pub fn conversation(id: Id) -> String {
    format!("conv:{id}")
}

/// Every connection of a user.
pub fn user(id: &str) -> String {
    format!("user:{id}")
}

/// Everyone subscribed to a topic. Names come from clients, so they are checked.
pub fn topic(name: &str) -> Option<String> {
    let fits = (1..=128).contains(&name.len()) && !name.chars().any(|c| c.is_control() || c == ' ');
    fits.then(|| format!("topic:{name}"))
}

/// The conversation that an address is of.
pub fn conversation_of(address: &str) -> Option<Id> {
    address.strip_prefix("conv:").and_then(Id::parse)
}

pub const fn seq(number: u64) -> Position {
    Position { track: SEQ, number }
}

pub const fn change(number: u64) -> Position {
    Position { track: CHANGE, number }
}

impl Publication {
    pub fn new(address: String, frame: String) -> Self {
        Self { address, frame, position: None, merge_key: None, except_user: None }
    }

    pub fn at(address: String, frame: String, position: Position) -> Self {
        Self { position: Some(position), ..Self::new(address, frame) }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable => Problem::unavailable(),
            Error::Full => Problem::conflict("this connection has as many subscriptions as it may"),
            Error::Gone => Problem::conflict("the connection has ended"),
            Error::Refused(why) => {
                log::error("channels refused", &[("why", &why)]);
                Problem::internal()
            }
        }
    }
}
