//! The bytes of bodies that fetches hold in this process, until their host call has ended. They have two
//! bounds: what the call may still carry, and the quota of the node, of which each release always gets its
//! share. So neither one call with many fetches nor one handler with large answers takes all the memory.

use parking_lot::Mutex;

use switchboard_contract::fetch::Error;
use switchboard_core::limits;
use switchboard_core::quota::{Claim, Grant, Quota};
use switchboard_core::shares::Division;

/// The quota of a node for the bodies of fetches, in units of [`limits::FETCH_BODIES_UNIT_BYTES`].
pub fn quota() -> Quota {
    let total = limits::FETCH_BODIES_BYTES_MAX / limits::FETCH_BODIES_UNIT_BYTES;
    Quota::new(Division { total, reserve: total / 4, lent: 2 })
}

/// The room for the bodies of one host call. Dropping it gives all of it back.
pub struct Room {
    claim: Claim,
    state: Mutex<State>,
}

struct State {
    /// The bytes of answers that the call may still get.
    left: u64,
    /// Of the answers that are whole.
    kept: Vec<Grant>,
}

/// Why a body gets no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The call has room for so many bytes of this body.
    OfCall(u64),
    OfNode,
}

impl NoRoom {
    /// The error of a fetch whose answer has no room. The service has done what was asked.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::OfCall(bytes_max) => Error::TooLarge(bytes_max),
            Self::OfNode => {
                let why = "the bodies of fetches take all the memory that this node has for them; try later";
                Error::UnknownOutcome(why.to_owned())
            }
        }
    }
}

impl Room {
    /// `bytes_max` bounds the answers of all fetches of the host call together.
    pub fn new(claim: Claim, bytes_max: u64) -> Self {
        Self { claim, state: Mutex::new(State { left: bytes_max, kept: Vec::new() }) }
    }

    /// Takes the room for the body of a request, and at least one unit. `None` if the node has none.
    pub(super) fn request(&self, bytes: usize) -> Option<Grant> {
        self.claim.take(units(bytes as u64).max(1))
    }

    /// Begins the body of an answer.
    pub(super) fn answer(&self) -> Held<'_> {
        Held { room: self, grant: None, bytes: 0 }
    }
}

/// The room of the body of one answer. Dropping it gives it back.
pub(super) struct Held<'a> {
    room: &'a Room,
    grant: Option<Grant>,
    bytes: u64,
}

impl Held<'_> {
    /// Takes room for more bytes.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = bytes as u64;
        {
            let mut state = self.room.state.lock();
            if more > state.left {
                return Err(NoRoom::OfCall(self.bytes + state.left));
            }
            state.left -= more;
        }
        self.bytes += more;
        let needs = units(self.bytes);
        let is_granted = match &mut self.grant {
            Some(grant) => grant.grow(needs.saturating_sub(grant.units())),
            None => {
                self.grant = self.room.claim.take(needs);
                self.grant.is_some()
            }
        };
        if is_granted { Ok(()) } else { Err(NoRoom::OfNode) }
    }

    /// Keeps the room until the host call has ended: the body is whole, and the guest gets it then.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
        if let Some(grant) = self.grant.take() {
            self.room.state.lock().kept.push(grant);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.room.state.lock().left += self.bytes;
    }
}

fn units(bytes: u64) -> usize {
    bytes.div_ceil(limits::FETCH_BODIES_UNIT_BYTES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: usize = limits::FETCH_BODIES_UNIT_BYTES;

    #[test]
    fn the_answers_of_a_call_are_bounded_together_and_one_that_fails_gives_its_room_back() {
        let quota = quota();
        let all = quota.free();
        let room = Room::new(quota.claim(), 1000);
        let (mut first, mut second) = (room.answer(), room.answer());
        assert_eq!(first.grow(600), Ok(()));
        assert_eq!(second.grow(300), Ok(()));
        assert_eq!(second.grow(101), Err(NoRoom::OfCall(400)));
        drop(second);
        first.keep();
        assert_eq!(quota.free(), all - 1, "the whole answer is held until the host call has ended");
        let mut third = room.answer();
        assert_eq!(third.grow(401), Err(NoRoom::OfCall(400)));
        assert_eq!(third.grow(400), Ok(()));
        drop(third);
        drop(room);
        assert_eq!(quota.free(), all);
    }

    #[test]
    fn a_release_that_takes_all_it_gets_leaves_the_others_their_share() {
        let quota = quota();
        let (greedy, other) = (quota.claim(), quota.claim());
        let greedy = Room::new(greedy, u64::MAX);
        let mut held: Vec<Held<'_>> = Vec::new();
        loop {
            let mut body = greedy.answer();
            if body.grow(UNIT) == Err(NoRoom::OfNode) {
                break;
            }
            held.push(body);
        }
        let bytes = held.len() * UNIT;
        assert!((UNIT..limits::FETCH_BODIES_BYTES_MAX).contains(&bytes), "{bytes}");
        let other = Room::new(other, u64::MAX);
        let mut body = other.answer();
        assert_eq!(body.grow(limits::FETCH_BYTES_MAX as usize), Ok(()), "its largest answer fits");
        let free = quota.free();
        let request = other.request(2 * UNIT).unwrap();
        assert_eq!(quota.free(), free - 2);
        drop(request);
        assert!(other.request(0).is_some_and(|grant| grant.units() == 1));
    }
}
