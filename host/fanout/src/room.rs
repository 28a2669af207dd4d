//! A room: the state of one address on one node, with its positions, its subscribers and its gap. It has no
//! clock and no IO. Pushes, subscribers and pages come in; frames go into outlets, and requests for missed
//! pushes into the mailbox.
//!
//! A *live* subscriber has every push that the room has, so a new push costs one comparison and one `Bytes`
//! for each outlet. Any other subscriber (one that resumes, is slow, or is ahead of the bus) is *catching
//! up*: it has a gate, which remembers its positions. It gets its missed pushes alone, and then becomes live.
//! A push that does not follow the last one opens a *gap*: the room holds the stream back until a page has
//! filled the gap.
//!
//! A gap that cannot be filled becomes a jump. It never closes a connection, because a socket's life does not
//! depend on a handler's life. A client answers a jump by asking for `history` (docs/protocol.md, section 2).

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use super::envelope::Batch;
use super::members::{Gate, Member, Members, Phase};
use super::missing::{Mailbox, Reader};
use super::outlet::Outlet;
use super::positions::Positions;
use super::ring::{Held, PositionedPush, Ring};
use switchboard_contract::types::Position;
use switchboard_core::ids::{Address, ConnectionId, UserId};
use switchboard_core::limits;

mod reader;
mod rules;

pub(super) use rules::{Rules, Sound};

pub(super) struct Room<R = Sound> {
    address: Address,
    /// The last position of each track that was delivered. Empty until a subscriber or a push sets it.
    heads: Positions,
    members: Members,
    /// The number of members that need the ring. The ring exists exactly while this is not zero.
    ring_users: u32,
    ring: Option<Box<Ring>>,
    gap: Option<Box<Gap>>,
    rules: PhantomData<R>,
}

/// Pushes between `heads` and `held` are missing, or may be missing.
struct Gap {
    ticket: u64,
    attempt: u32,
    held: Held,
    /// The bus was lost after the request, so the answer may be older than the lost pushes.
    suspect: bool,
}

/// An answer of `connection.missed`, with its frames encoded.
pub(super) struct Page {
    pub(super) pushes: Batch,
    pub(super) reached: Vec<Position>,
    pub(super) more: bool,
}

impl<R: Rules> Room<R> {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            heads: Positions::default(),
            members: Members::default(),
            ring_users: 0,
            ring: None,
            gap: None,
            rules: PhantomData,
        }
    }

    // ---- members ----

    /// Adds a live member, without a gate. For addresses whose pushes cannot be resumed.
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

    /// Removes the connections of a user, and returns them.
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

    // ---- input ----

    /// Delivers a batch from the bus, in the order of the bus.
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
                // A gap without held pushes is only suspected. It does not hold back a push that follows,
                // because after a loss of the bus every room has such a gap.
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
                // No member is live. Each member that catches up asks for its own missed pushes.
                self.forget_ring();
            }
            at = self.spread_run(batch, at - 1);
        }
    }

    /// Delivers the answer to a request for the live members.
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
                // The handler skipped positions, for instance with a `resync`, so the ring no longer
                // connects.
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

    /// Handles a request for the live members that got no answer.
    pub(super) fn give_up_all(&mut self, ticket: u64, mailbox: &Mailbox) {
        if let Some(gap) = self.gap.take_if(|gap| gap.ticket == ticket) {
            self.ask_for_all(gap.held, gap.attempt + 1, mailbox);
        }
    }

    /// Asks for missed pushes, after the bus reconnected or the position epoch changed.
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

    // ---- the stream of the live members ----

    fn follows(&self, position: &Position) -> bool {
        R::follows(self.heads.number_of(position.track), position.number)
    }

    fn has_live_member(&self) -> bool {
        self.members.iter().any(Member::is_live)
    }

    fn ask_for_all(&mut self, held: Held, attempt: u32, mailbox: &Mailbox) {
        if attempt > limits::MISSED_RETRIES_MAX {
            metrics::counter!("switchboard_fanout_jumps_total").increment(1);
            tracing::warn!(
                address = %self.address,
                "no handler filled the gap after {} requests; subscribers see a jump and ask for `history`",
                limits::MISSED_RETRIES_MAX + 1
            );
            for push in held.into_sorted() {
                if !self.heads.includes(&push.position) {
                    self.accept(push.frame, push.position, push.except);
                }
            }
            return;
        }
        metrics::counter!("switchboard_fanout_gaps_total").increment(1);
        let ticket = mailbox.ask(&self.address, Reader::Live, &self.heads, attempt);
        self.gap = Some(Box::new(Gap { ticket, attempt, held, suspect: false }));
    }

    /// Delivers the held pushes that now follow. Returns true when there was one.
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

    /// Delivers one push above the heads, even when it does not follow them.
    fn accept(&mut self, frame: Bytes, position: Position, except: Option<UserId>) {
        if !self.follows(&position) {
            self.forget_ring();
        }
        let before = self.heads.clone();
        self.heads.raise(&position);
        self.spread_positioned(&frame, &before, &[PositionedPush { frame: frame.clone(), position, except }]);
    }

    /// Delivers a run: the push at `begin`, which is above the heads, and those after it in the batch that
    /// follow without a gap and have the same `except`. Each outlet gets the run as one piece. Returns the
    /// index after its last push.
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

    /// Delivers pushes that have the same `except`: the user whose connections do not get them. `whole` is
    /// their frames in one piece, and `before` are the heads before them. A live member whose outlet has no
    /// space gets none of them, and a gate at `before`.
    fn spread_positioned(&mut self, whole: &Bytes, before: &Positions, pushes: &[PositionedPush]) {
        let except = pushes.first().and_then(|push| push.except.as_ref());
        for member in self.members.iter_mut() {
            let excepted = except.is_some_and(|user| member.outlet.info().user == *user);
            match &mut member.gate {
                None if excepted => {}
                None => {
                    if !R::stays_live(member.outlet.push_durable(whole, &self.address)) {
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

    /// Delivers a push without a position, except to members whose gate is shut. These get it after their
    /// reply.
    fn spread_unpositioned(&mut self, frame: Bytes, merge_key: u64, except: Option<&UserId>) {
        let content_hash = if merge_key == 0 { 0 } else { Outlet::content_hash(&frame) };
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
                _ => push_unpositioned(&member.outlet, frame.clone(), merge_key, content_hash),
            }
        }
        count_deliveries(self.members.len());
    }

    // ---- the ring ----

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

fn push_unpositioned(outlet: &Outlet, frame: Bytes, merge_key: u64, content_hash: u64) {
    match merge_key {
        0 => outlet.push(frame),
        key => outlet.push_droppable(frame, key, content_hash),
    }
}

fn count_deliveries(deliveries: usize) {
    metrics::counter!("switchboard_fanout_deliveries_total").increment(deliveries as u64);
}
