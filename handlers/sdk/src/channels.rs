//! Publish to addresses, subscribe connections to them. `wit/channels.wit`.

pub use crate::bindings::platform::switchboard::host::channels::{
    Error, Publication, Target, disconnect, publish, revoke, send, subscribe, unsubscribe,
};
use crate::{Position, Problem, log};

/// The low bits of a position's number; the epoch is above them. One track of one address has 6.8e10 numbers.
const NUMBER_BITS: u32 = 36;

/// A number on a track of an address, together with the ordinal of its position epoch (`switchboard.epochs`).
/// The host compares positions as one number, the epoch first. So it never takes a frame of a new epoch for a
/// duplicate, it drops a frame of an older epoch, and it treats a change of epoch as a gap, for which it
/// calls `connection.missed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EpochNumber {
    pub epoch: u32,
    pub number: u64,
}

impl EpochNumber {
    pub const fn new(epoch: u32, number: u64) -> Self {
        Self { epoch, number }
    }

    /// Reads the number of a position.
    pub const fn unpack(position: u64) -> Self {
        Self { epoch: (position >> NUMBER_BITS) as u32, number: position & ((1 << NUMBER_BITS) - 1) }
    }

    /// The position on a track.
    pub const fn on(self, track: u8) -> Position {
        Position { track, number: (self.epoch as u64) << NUMBER_BITS | self.number }
    }
}

/// The address of all connections of a user. The host subscribes each connection to the address of its user.
pub fn user(id: &str) -> String {
    format!("user:{id}")
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
                log::error("the host refused a channels call", &[("why", &why)]);
                Problem::internal()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_compared_by_their_epoch_first() {
        let number = EpochNumber::new;
        let numbers = [number(0, 0), number(0, 300), number(1, 251), number(134_217_727, 1)];
        for number in numbers {
            assert_eq!(EpochNumber::unpack(number.on(0).number), number);
        }
        assert!(numbers.windows(2).all(|pair| pair[0].on(0).number < pair[1].on(0).number));
        // Epoch 0 leaves the number as it is: positions from before epochs were counted stay valid.
        assert_eq!(number(0, 7).on(0).number, 7);
    }
}
