//! The last pushes of an address, in the order of the stream and without a hole, for readers behind their gates. Kept
//! only while there are such readers.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::contract::types::Position;
use crate::ids::UserId;
use crate::limits;

/// A push that has its place in the stream.
#[derive(Clone, Debug)]
pub(super) struct PositionedPush {
    pub(super) frame: Bytes,
    pub(super) position: Position,
    pub(super) except: Option<UserId>,
}

#[derive(Default)]
pub(super) struct Ring {
    pushes: VecDeque<PositionedPush>,
    bytes: usize,
}

impl Ring {
    /// The oldest go when it is full: whoever still needs them asks for a page.
    pub(super) fn push(&mut self, placed: PositionedPush) {
        self.bytes += placed.frame.len();
        self.pushes.push_back(placed);
        while self.pushes.len() > limits::RING_PUSHES_MAX || self.bytes > limits::RING_BYTES_MAX {
            let Some(oldest) = self.pushes.pop_front() else { break };
            self.bytes -= oldest.frame.len();
        }
    }

    /// After a jump of the stream: what is in here no longer joins what follows.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Everything of this track from this number on is here.
    pub(super) fn holds_from(&self, track: u8, number: u64) -> bool {
        self.pushes.iter().any(|placed| placed.position == Position { track, number })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PositionedPush> {
        self.pushes.iter()
    }
}

/// Pushes that came while what is before them is asked for. At its bound all of it is forgotten: the next page has it.
#[derive(Default)]
pub(super) struct Held {
    pushes: Vec<PositionedPush>,
    bytes: usize,
    pub(super) overflowed: bool,
}

impl Held {
    pub(super) fn push(&mut self, placed: PositionedPush) {
        if self.pushes.len() >= limits::RING_PUSHES_MAX
            || self.bytes + placed.frame.len() > limits::RING_BYTES_MAX
        {
            *self = Self { overflowed: true, ..Self::default() };
        }
        self.bytes += placed.frame.len();
        self.pushes.push(placed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pushes.is_empty()
    }

    /// The first that `ready` says yes to, taken out; those that `stale` says yes to are dropped on the way.
    pub(super) fn take_first(
        &mut self,
        stale: impl Fn(&Position) -> bool,
        ready: impl Fn(&Position) -> bool,
    ) -> Option<PositionedPush> {
        self.pushes.retain(|placed| !stale(&placed.position));
        let place = self.pushes.iter().position(|placed| ready(&placed.position))?;
        Some(self.pushes.remove(place))
    }

    /// All of it, as near to the order of the stream as can be known.
    pub(super) fn into_sorted(mut self) -> Vec<PositionedPush> {
        self.pushes.sort_by_key(|placed| (placed.position.track, placed.position.number));
        self.pushes
    }
}
