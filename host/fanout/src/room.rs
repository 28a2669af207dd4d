//! One address on one node: where its stream stands, who reads it, and what is missing. No clock, no IO: pushes,
//! subscribers and pages come in; frames go into outlets and questions into the mailbox.
//!
//! Everybody who *rides* has what the room has, so a push is one comparison and one `Bytes` put into each outlet. Whoever
//! is elsewhere (resuming, slow, ahead of the bus) has a gate that remembers where it stands, catches up alone, and then
//! rides. A push that does not follow the last one opens a *gap*: the stream is held back until a page has filled it.
//!
//! A gap that cannot be filled ends in a jump, never in a close: a socket's life does not depend on a handler's, and
//! clients answer a jump by asking for `history` (docs/protocol.md, section 2).

use std::sync::Arc;

use bytes::Bytes;

use super::envelope::Batch;
use super::members::{Gate, Member, Members, Phase};
use super::missing::{Mailbox, Reader};
use super::outlet::Outlet;
use super::positions::Positions;
use super::ring::{Held, PositionedPush, Ring};
use super::seeded::{Mistake, made};
use crate::contract::types::Position;
use crate::ids::{Address, ConnectionId, UserId};
use crate::limits;

mod reader;

pub(super) struct Room {
    address: Address,
    /// The last push of each track that was put into the stream. Empty until a reader or a push says.
    heads: Positions,
    members: Members,
    /// Readers that need the ring; it is there exactly while there are any.
    ring_users: u32,
    ring: Option<Box<Ring>>,
    gap: Option<Box<Gap>>,
}

/// Something between `heads` and what was held is missing, or may be.
struct Gap {
    ticket: u64,
    attempt: u32,
    held: Held,
    /// The bus was lost after the question: the answer may be older than what was lost.
    suspect: bool,
}

/// An answer to a question, encoded.
pub(super) struct Page {
    pub(super) pushes: Batch,
    pub(super) reached: Vec<Position>,
    pub(super) more: bool,
}

impl Room {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            heads: Positions::default(),
            members: Members::default(),
            ring_users: 0,
            ring: None,
            gap: None,
        }
    }

    // ---- who reads ----

    /// Rides from now on, without a gate: for addresses whose pushes nobody resumes.
    pub(super) fn add_live(&mut self, outlet: &Arc<Outlet>) {
        let connection = outlet.info().connection;
        if self.members.find(connection).is_none() {
            self.members.add(Member { connection, outlet: outlet.clone(), gate: None });
        }
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) {
        if let Some(place) = self.members.find(connection) {
            self.remove_at(place);
        }
    }

    /// Ends the subscriptions of a user; returns whose.
    pub(super) fn revoke(&mut self, user: &UserId) -> Vec<ConnectionId> {
        let of_user = |member: &&Member| member.outlet.info().user == *user;
        let gone: Vec<_> = self.members.iter().filter(of_user).map(|member| member.connection).collect();
        for connection in &gone {
            self.remove(*connection);
        }
        gone
    }

    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.members.find(connection).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn outlets(&self) -> impl Iterator<Item = &Arc<Outlet>> {
        self.members.iter().map(|member| &member.outlet)
    }

    // ---- what comes ----

    /// From the bus, in the order of the bus.
    pub(super) fn deliver(&mut self, batch: &Batch, mailbox: &Mailbox) {
        let items = batch.items();
        let mut at = 0;
        while let Some(item) = items.get(at) {
            at += 1;
            let Some(position) = item.position else {
                self.spread_unpositioned(batch.frames(at - 1..at), item.merge_key, item.except.as_ref());
                continue;
            };
            if self.heads.includes(&position) {
                continue;
            }
            let follows = self.follows(&position);
            if let Some(gap) = &mut self.gap
                && !(follows && gap.held.is_empty())
            {
                // A mere doubt does not hold back what follows: after a loss there is one in every room.
                gap.held.push(positioned(batch, at - 1, position));
                continue;
            }
            if !follows {
                if self.has_live_member() {
                    let mut held = Held::default();
                    held.push(positioned(batch, at - 1, position));
                    self.ask_for_all(held, 0, mailbox);
                    continue;
                }
                // Only readers behind gates: each finds out by itself what it lacks.
                self.forget_ring();
            }
            at = self.spread_run(batch, at - 1);
        }
    }

    /// The answer to a question for all.
    pub(super) fn fill_all(&mut self, ticket: u64, page: &Page, mailbox: &Mailbox) {
        let Some(mut gap) = self.gap.take_if(|gap| gap.ticket == ticket) else { return };
        let (mut progress, mut at) = (false, 0);
        while let Some(item) = page.pushes.items().get(at) {
            at += 1;
            match item.position {
                None => self.spread_unpositioned(page.pushes.frames(at - 1..at), 0, None),
                Some(position) if self.heads.includes(&position) => {}
                Some(position) => {
                    progress = true;
                    if !self.follows(&position) {
                        self.forget_ring();
                    }
                    at = self.spread_run(&page.pushes, at - 1);
                }
            }
        }
        for position in &page.reached {
            if !self.heads.includes(position) {
                // The handler skipped, for instance with a `resync`: the ring does not join what follows.
                progress = true;
                self.forget_ring();
                self.heads.raise(position);
            }
        }
        let unsure = page.more || gap.suspect || gap.held.overflowed;
        if !page.more {
            progress |= self.release(&mut gap.held);
        }
        if unsure || !gap.held.is_empty() {
            let attempt = if progress { 0 } else { gap.attempt + 1 };
            gap.held.overflowed = false;
            self.ask_for_all(gap.held, attempt, mailbox);
        }
    }

    /// No answer to a question for all.
    pub(super) fn give_up_all(&mut self, ticket: u64, mailbox: &Mailbox) {
        if let Some(gap) = self.gap.take_if(|gap| gap.ticket == ticket) {
            self.ask_for_all(gap.held, gap.attempt + 1, mailbox);
        }
    }

    /// The bus is back after a loss: anything may have been missed.
    pub(super) fn suspect_loss(&mut self, mailbox: &Mailbox) {
        self.forget_ring();
        for gate in self.members.iter_mut().filter_map(|member| member.gate.as_deref_mut()) {
            gate.suspect |= gate.phase.needs_ring();
        }
        if let Some(gap) = &mut self.gap {
            gap.suspect = true;
        } else if !self.heads.is_empty() && self.has_live_member() {
            self.ask_for_all(Held::default(), 0, mailbox);
        }
    }

    // ---- the common stream ----

    fn follows(&self, position: &Position) -> bool {
        let head = self.heads.of(position.track);
        head.is_none_or(|head| head.checked_add(1) == Some(position.number)) || made(Mistake::JumpOverlooked)
    }

    fn has_live_member(&self) -> bool {
        self.members.iter().any(Member::is_live)
    }

    fn ask_for_all(&mut self, held: Held, attempt: u32, mailbox: &Mailbox) {
        if attempt > limits::MISSED_ATTEMPTS_MAX {
            metrics::counter!("switchboard_fanout_jumps_total").increment(1);
            tracing::warn!(address = %self.address, "gave up asking what was missed: readers see a jump");
            for placed in held.into_sorted() {
                if !self.heads.includes(&placed.position) {
                    self.accept(placed.frame, placed.position, placed.except);
                }
            }
            return;
        }
        metrics::counter!("switchboard_fanout_gaps_total").increment(1);
        let ticket = mailbox.ask(&self.address, Reader::Live, &self.heads, attempt);
        self.gap = Some(Box::new(Gap { ticket, attempt, held, suspect: false }));
    }

    /// Puts into the stream what now follows. True when something did.
    fn release(&mut self, held: &mut Held) -> bool {
        let mut released = false;
        loop {
            let (heads, follows) = (&self.heads, |position: &Position| self.follows(position));
            let Some(next) = held.take_first(|position| heads.includes(position), follows) else {
                return released;
            };
            self.accept(next.frame, next.position, next.except);
            released = true;
        }
    }

    /// One push above the heads, which need not follow.
    fn accept(&mut self, frame: Bytes, position: Position, except: Option<UserId>) {
        if !self.follows(&position) {
            self.forget_ring();
        }
        let before = self.heads.clone();
        self.heads.raise(&position);
        self.spread_positioned(&frame, &before, &[PositionedPush { frame: frame.clone(), position, except }]);
    }

    /// This push, which is above the heads, and those that follow it, as one piece for each reader. Returns where it
    /// stopped.
    fn spread_run(&mut self, batch: &Batch, begin: usize) -> usize {
        let before = self.heads.clone();
        let mut run = Vec::new();
        for (item, at) in batch.items()[begin..].iter().zip(begin..) {
            let Some(position) = item.position else { break };
            if at > begin && (item.except != batch.items()[begin].except || !self.follows(&position)) {
                break;
            }
            self.heads.raise(&position);
            run.push(positioned(batch, at, position));
        }
        let end = begin + run.len();
        self.spread_positioned(&batch.frames(begin..end), &before, &run);
        end
    }

    /// `whole` is the frames of all `pushes`, which have the same exception. Whoever has no room keeps to `before`.
    fn spread_positioned(&mut self, whole: &Bytes, before: &Positions, pushes: &[PositionedPush]) {
        let except = pushes.first().and_then(|push| push.except.as_ref());
        for member in self.members.iter_mut() {
            let excepted = except.is_some_and(|user| member.outlet.info().user == *user);
            match &mut member.gate {
                None if excepted => {}
                None => {
                    if !member.outlet.push_durable(whole, &self.address) && !made(Mistake::RefusalForgotten) {
                        member.gate = Some(Box::new(Gate::new(before.clone(), Phase::Waiting)));
                    }
                }
                Some(gate) if gate.phase == Phase::Ahead => {
                    for push in pushes {
                        if gate.has.includes(&push.position) {
                            continue;
                        }
                        if !excepted && !member.outlet.push_durable(&push.frame, &self.address) {
                            gate.phase = Phase::Waiting;
                            break;
                        }
                        gate.has.raise(&push.position);
                    }
                    if gate.phase == Phase::Ahead && !gate.is_ahead_of(&self.heads) {
                        member.gate = None;
                    }
                }
                Some(_) => {}
            }
        }
        if let Some(ring) = &mut self.ring {
            pushes.iter().for_each(|push| ring.push(push.clone()));
        }
        count_deliveries(self.members.len() * pushes.len());
    }

    /// A push without a place in the stream: to everybody whose reply is out.
    fn spread_unpositioned(&mut self, frame: Bytes, merge_key: u64, except: Option<&UserId>) {
        let word = if merge_key == 0 { 0 } else { Outlet::word(&frame) };
        for member in self.members.iter_mut() {
            if except.is_some_and(|user| member.outlet.info().user == *user) {
                continue;
            }
            match &mut member.gate {
                Some(gate) if gate.phase == Phase::Shut => {
                    if gate.unpositioned.len() >= limits::GATE_UNPOSITIONED_MAX {
                        gate.unpositioned.remove(0);
                        metrics::counter!("switchboard_fanout_dropped_total", "reason" => "gate")
                            .increment(1);
                    }
                    gate.unpositioned.push((frame.clone(), merge_key));
                }
                _ => push_unpositioned(&member.outlet, frame.clone(), merge_key, word),
            }
        }
        count_deliveries(self.members.len());
    }

    // ---- who needs the ring ----

    fn remove_at(&mut self, place: usize) {
        let gone = self.members.remove(place);
        let Some(gate) = gone.gate else { return };
        if matches!(gate.phase, Phase::Asking(_)) {
            gone.outlet.release_page();
        }
        if gate.phase.needs_ring() {
            self.remove_ring_user();
        }
    }

    fn add_ring_user(&mut self) {
        self.ring_users += 1;
        self.ring.get_or_insert_default();
    }

    fn remove_ring_user(&mut self) {
        self.ring_users -= 1;
        if self.ring_users == 0 {
            self.ring = None;
        }
    }

    fn forget_ring(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.clear();
        }
    }
}

fn positioned(batch: &Batch, at: usize, position: Position) -> PositionedPush {
    PositionedPush { frame: batch.frames(at..at + 1), position, except: batch.items()[at].except.clone() }
}

fn push_unpositioned(outlet: &Outlet, frame: Bytes, merge_key: u64, word: u64) {
    match merge_key {
        0 => outlet.push(frame),
        key => outlet.push_droppable(frame, key, word),
    }
}

fn count_deliveries(deliveries: usize) {
    metrics::counter!("switchboard_fanout_deliveries_total").increment(deliveries as u64);
}
