//! Fan-out. `wit/channels.wit`. Addresses are made here, so that their spelling is in one place.

pub use crate::bindings::platform::switchboard::host::channels::{
    Error, Publication, Target, disconnect, publish, revoke, send, subscribe, unsubscribe,
};
use crate::{Id, Position, Problem, log};

/// The messages of a conversation.
pub const SEQ: u8 = 0;
/// The edits and deletions of them.
pub const CHANGE: u8 = 1;

/// The low bits of a position's number: seq or change. 6.8e10 of them in one conversation.
const NUMBER_BITS: u32 = 36;

/// Where something stands on a track of a conversation: the ordinal of a position epoch (`switchboard.epochs`), and a seq or
/// a change. The host compares positions as one number, the epoch first: what a new epoch publishes is never taken for a
/// duplicate, what an older one still publishes is dropped, and a change of epoch is a gap, about which the host asks
/// `connection.missed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub epoch: u32,
    pub number: u64,
}

impl Place {
    pub const fn new(epoch: u32, number: u64) -> Self {
        Self { epoch, number }
    }

    /// Out of the number of a position.
    pub const fn of(position: u64) -> Self {
        Self { epoch: (position >> NUMBER_BITS) as u32, number: position & ((1 << NUMBER_BITS) - 1) }
    }

    pub const fn on(self, track: u8) -> Position {
        Position { track, number: (self.epoch as u64) << NUMBER_BITS | self.number }
    }
}

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

pub const fn seq(epoch: u32, number: u64) -> Position {
    Place::new(epoch, number).on(SEQ)
}

pub const fn change(epoch: u32, number: u64) -> Position {
    Place::new(epoch, number).on(CHANGE)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_compared_by_its_epoch_first() {
        let places = [Place::new(0, 0), Place::new(0, 300), Place::new(1, 251), Place::new(134_217_727, 1)];
        for place in places {
            assert_eq!(Place::of(place.on(SEQ).number), place);
        }
        assert!(places.windows(2).all(|pair| pair[0].on(SEQ).number < pair[1].on(SEQ).number));
        // What was written before epochs were counted has the positions that it always had.
        assert_eq!(seq(0, 7).number, 7);
    }
}
