//! The subscribers of one address, and the gate that each may be behind.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use bytes::Bytes;

use super::outlet::Outlet;
use super::positions::Positions;
use crate::ids::ConnectionId;

pub(super) struct Member {
    pub(super) connection: ConnectionId,
    pub(super) outlet: Arc<Outlet>,
    /// None: it has everything the room has, and gets what comes. Boxed, for hardly anybody is behind a gate.
    pub(super) gate: Option<Box<Gate>>,
}

pub(super) struct Gate {
    /// What was put into the outlet.
    pub(super) has: Positions,
    pub(super) phase: Phase,
    /// Repeated questions without progress.
    pub(super) attempt: u32,
    /// The bus was lost while a head or a page was being read: it may be older than what was lost.
    pub(super) suspect: bool,
    /// How an existing subscription stood when it was gated anew; `has` says where.
    pub(super) prior: Option<PriorState>,
    /// Pushes without a position that came while shut, with their merge keys.
    pub(super) unpositioned: Vec<(Bytes, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PriorState {
    Live,
    /// It would have had to ask for more.
    CatchingUp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// From `gate` to `open`: nothing passes, for the reply comes first.
    Shut,
    /// Its page was asked for, under this ticket.
    Asking(u64),
    /// Its queue has no room for the next page.
    Waiting,
    /// It read more than the bus has brought: pushes that it has are left out.
    Ahead,
}

impl Phase {
    /// What the room gets meanwhile must be kept for it.
    pub(super) fn needs_ring(self) -> bool {
        matches!(self, Self::Shut | Self::Asking(_))
    }
}

impl Gate {
    pub(super) fn new(has: Positions, phase: Phase) -> Self {
        Self { has, phase, attempt: 0, suspect: false, prior: None, unpositioned: Vec::new() }
    }

    /// It has something that the room has not.
    pub(super) fn is_ahead_of(&self, heads: &Positions) -> bool {
        self.has.as_slice().iter().any(|position| !heads.includes(position))
    }
}

impl Member {
    /// It gets what the common stream brings, at once.
    pub(super) fn is_live(&self) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.phase == Phase::Ahead)
    }
}

#[derive(Default)]
pub(super) struct Members {
    list: Vec<Member>,
    /// Places in the list, once it is long enough for a search to cost.
    #[allow(clippy::box_collection)] // a room of one, and there are as many as users, pays 8 bytes
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

    /// The place of the new member.
    pub(super) fn add(&mut self, member: Member) -> usize {
        let place = self.list.len();
        if let Some(places) = &mut self.places {
            places.insert(member.connection, place);
        }
        if place == 0 {
            self.list.reserve_exact(1); // most rooms are one user with one connection
        }
        self.list.push(member);
        if self.places.is_none() && self.list.len() > SEARCHED_MAX {
            let places = self.list.iter().enumerate().map(|(place, member)| (member.connection, place));
            self.places = Some(Box::new(places.collect()));
        }
        place
    }

    /// The last takes the place of the one that goes.
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
