//! The members of a room: the subscribers of one address, and the gates of those that catch up.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use bytes::Bytes;

use super::outlet::Outlet;
use super::positions::Positions;
use switchboard_core::ids::ConnectionId;

pub(super) struct Member {
    pub(super) connection: ConnectionId,
    pub(super) outlet: Arc<Outlet>,
    /// None for a live member, which has everything that the room has. Boxed, because few members are behind
    /// a gate.
    pub(super) gate: Option<Box<Gate>>,
}

pub(super) struct Gate {
    /// The positions up to which pushes were put into the outlet.
    pub(super) has: Positions,
    pub(super) phase: Phase,
    /// Requests for missed pushes that brought no progress.
    pub(super) attempt: u32,
    /// The bus was lost while the handler read a head or a page, which may therefore be older than the lost
    /// pushes.
    pub(super) suspect: bool,
    /// The state of an existing subscription before it was gated again. Its positions are in `has`.
    pub(super) prior: Option<PriorState>,
    /// Pushes without a position that arrived while the gate was shut, with their merge keys.
    pub(super) unpositioned: Vec<(Bytes, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PriorState {
    Live,
    /// It still lacked pushes, so it has to ask again.
    CatchingUp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// From `gate` to `open_gate`. Nothing passes, because the reply comes first.
    Shut,
    /// The room has asked for a page, under this ticket.
    Asking(u64),
    /// The outlet has no space for the next page.
    Waiting,
    /// The member is live, and has read more than the bus has delivered. Pushes that it already has are left
    /// out.
    Ahead,
}

impl Phase {
    /// Returns true when the room must keep new pushes for this member.
    pub(super) fn needs_ring(self) -> bool {
        matches!(self, Self::Shut | Self::Asking(_))
    }
}

impl Gate {
    pub(super) fn new(has: Positions, phase: Phase) -> Self {
        Self { has, phase, attempt: 0, suspect: false, prior: None, unpositioned: Vec::new() }
    }

    /// Returns true when the member has a push that the room does not have.
    pub(super) fn is_ahead_of(&self, heads: &Positions) -> bool {
        self.has.as_slice().iter().any(|position| !heads.includes(position))
    }
}

impl Member {
    /// Returns true when the member gets each push of the room at once.
    pub(super) fn is_live(&self) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.phase == Phase::Ahead)
    }
}

#[derive(Default)]
pub(super) struct Members {
    list: Vec<Member>,
    /// Indexes into the list, once a search of the list would be slow.
    #[allow(clippy::box_collection)] // rooms with one member are as many as users; each pays 8 bytes
    places: Option<Box<HashMap<ConnectionId, usize>>>,
}

const SEARCHED_MAX: usize = 32;

impl Members {
    pub(super) fn find(&self, connection: ConnectionId) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&connection).copied(),
            None => self.list.iter().position(|member| member.connection == connection),
        }
    }

    /// Returns the index of the new member.
    pub(super) fn add(&mut self, member: Member) -> usize {
        let place = self.list.len();
        if let Some(places) = &mut self.places {
            places.insert(member.connection, place);
        }
        if place == 0 {
            self.list.reserve_exact(1); // most rooms have one member: a user with one connection
        }
        self.list.push(member);
        if self.places.is_none() && self.list.len() > SEARCHED_MAX {
            let places = self.list.iter().enumerate().map(|(place, member)| (member.connection, place));
            self.places = Some(Box::new(places.collect()));
        }
        place
    }

    /// Removes a member. The last member moves to its index.
    pub(super) fn remove(&mut self, place: usize) -> Member {
        let gone = self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(&gone.connection);
            if let Some(moved) = self.list.get(place) {
                places.insert(moved.connection, place);
            }
        }
        gone
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Member> {
        self.list.iter_mut()
    }
}

impl Index<usize> for Members {
    type Output = Member;

    fn index(&self, place: usize) -> &Member {
        &self.list[place]
    }
}

impl IndexMut<usize> for Members {
    fn index_mut(&mut self, place: usize) -> &mut Member {
        &mut self.list[place]
    }
}
