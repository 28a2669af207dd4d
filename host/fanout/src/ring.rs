//! The ring: the newest pushes of a room, in the order of the stream and without a gap. A room keeps it only
//! while a subscriber catches up.

use std::collections::VecDeque;

use bytes::Bytes;

use switchboard_contract::types::Position;
use switchboard_core::ids::UserId;
use switchboard_core::limits;

/// A push with a position in the stream.
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
    /// Adds a push. When the ring is full it drops the oldest pushes; a subscriber that still needs them asks
    /// for a page.
    pub(super) fn push(&mut self, push: PositionedPush) {
        self.bytes += push.frame.len();
        self.pushes.push_back(push);
        while self.pushes.len() > limits::RING_PUSHES_MAX || self.bytes > limits::RING_BYTES_MAX {
            let Some(oldest) = self.pushes.pop_front() else { break };
            self.bytes -= oldest.frame.len();
        }
    }

    /// Empties the ring after a jump of the stream, because its pushes no longer connect to those that
    /// follow.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns true when the ring has every push of this track from this number on.
    pub(super) fn holds_from(&self, track: u8, number: u64) -> bool {
        self.pushes.iter().any(|push| push.position == Position { track, number })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PositionedPush> {
        self.pushes.iter()
    }
}

/// Pushes that arrived while the room asks for the pushes before them. At the bound they are all dropped,
/// because a further page will contain them.
#[derive(Default)]
pub(super) struct Held {
    pushes: Vec<PositionedPush>,
    bytes: usize,
    pub(super) overflowed: bool,
}

impl Held {
    pub(super) fn push(&mut self, push: PositionedPush) {
        if self.pushes.len() >= limits::RING_PUSHES_MAX
            || self.bytes + push.frame.len() > limits::RING_BYTES_MAX
        {
            *self = Self { overflowed: true, ..Self::default() };
        }
        self.bytes += push.frame.len();
        self.pushes.push(push);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pushes.is_empty()
    }

    /// Drops the pushes that `stale` selects, and takes the first one that `ready` selects.
    pub(super) fn take_first(
        &mut self,
        stale: impl Fn(&Position) -> bool,
        ready: impl Fn(&Position) -> bool,
    ) -> Option<PositionedPush> {
        self.pushes.retain(|push| !stale(&push.position));
        let place = self.pushes.iter().position(|push| ready(&push.position))?;
        Some(self.pushes.remove(place))
    }

    /// Takes all pushes, sorted by track and number, which is the best known approximation of the stream's
    /// order.
    pub(super) fn into_sorted(mut self) -> Vec<PositionedPush> {
        self.pushes.sort_by_key(|push| (push.position.track, push.position.number));
        self.pushes
    }
}
