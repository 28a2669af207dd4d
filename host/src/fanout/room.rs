//! One address on one node: where its stream stands, who reads it, and what is missing. No clock, no IO: pushes,
//! subscribers and pages come in; frames go into outlets and questions into the mailbox.
//!
//! Everybody who *rides* has what the room has, so a push is one comparison and one `Bytes` put into each outlet. Whoever
//! is elsewhere (resuming, slow, ahead of the bus) has a gate that remembers where it stands, catches up alone, and then
//! rides. A push that does not follow the last one opens a *gap*: the stream is held back until a page has filled it.
//!
//! A gap that cannot be filled ends in a jump, never in a close: a socket's life does not depend on a handler's, and
//! clients answer a jump by asking for `history` (protocol.md, section 2).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::envelope::Batch;
use super::members::{Gate, Member, Members, Phase};
use super::missing::{Mailbox, Reader};
use super::outlet::Outlet;
use super::positions::Positions;
use super::ring::{Held, Placed, Ring};
use crate::contract::types::Position;
use crate::ids::{Address, ConnectionId, UserId};
use crate::limits;

pub(super) struct Room {
    address: Address,
    /// The last push of each track that was put into the stream. Empty until a reader or a push says.
    heads: Positions,
    members: Members,
    /// Readers that need the ring; it is there exactly while there are any.
    recorders: u32,
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
            recorders: 0,
            ring: None,
            gap: None,
        }
    }

    // ---- who reads ----

    /// Rides from now on, without a gate: for addresses whose pushes nobody resumes.
    pub(super) fn seat(&mut self, outlet: &Arc<Outlet>) {
        let connection = outlet.seat().connection;
        if self.members.find(connection).is_none() {
            self.members.add(Member { connection, outlet: outlet.clone(), gate: None });
        }
    }

    /// Holds back everything for this connection until `open` or `take_back`. True when it is new here.
    pub(super) fn gate(&mut self, outlet: &Arc<Outlet>) -> bool {
        let connection = outlet.seat().connection;
        let Some(place) = self.members.find(connection) else {
            let gate = Gate::new(self.heads.clone(), Phase::Shut);
            self.members.add(Member { connection, outlet: outlet.clone(), gate: Some(Box::new(gate)) });
            self.recorder_came();
            return true;
        };
        let member = &mut self.members[place];
        let before = member.gate.take();
        let phase = before.as_ref().map(|gate| gate.phase);
        if phase == Some(Phase::Shut) {
            member.gate = before;
            return false;
        }
        let stood = before.map_or_else(|| self.heads.clone(), |gate| gate.has);
        let mut gate = Gate::new(stood.clone(), Phase::Shut);
        gate.stood = Some(stood);
        // It was in the middle of catching up, and would have to go on.
        gate.suspect = matches!(phase, Some(Phase::Asking(_) | Phase::Waiting));
        member.gate = Some(Box::new(gate));
        match phase {
            Some(Phase::Asking(_)) => member.outlet.release_page(),
            _ => self.recorder_came(),
        }
        false
    }

    /// The reply is in the outlet. `after` is what the client has; tracks it does not name go on from the gate.
    pub(super) fn open(
        &mut self,
        connection: ConnectionId,
        after: &[Position],
        missed: bool,
        mailbox: &Mailbox,
    ) {
        let Some(place) = self.shut(connection) else { return };
        let Some(gate) = self.members[place].gate.as_deref_mut() else { return };
        let mut has = Positions::new(after);
        for position in gate.has.as_slice() {
            if has.of(position.track).is_none() {
                has.raise(position);
            }
        }
        gate.has = has;
        gate.stood = None;
        gate.suspect |= missed;
        self.let_through(place, mailbox);
    }

    /// The call that gated it failed: a new subscription goes, one that stood before stands as before. True when it went.
    pub(super) fn take_back(&mut self, connection: ConnectionId, mailbox: &Mailbox) -> bool {
        let Some(place) = self.shut(connection) else { return false };
        let stood = self.members[place].gate.as_deref_mut().and_then(|gate| gate.stood.take());
        match stood {
            Some(_) => self.let_through(place, mailbox),
            None => self.remove_at(place),
        }
        stood.is_none()
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) {
        if let Some(place) = self.members.find(connection) {
            self.remove_at(place);
        }
    }

    /// Ends the subscriptions of a user; returns whose.
    pub(super) fn revoke(&mut self, user: &UserId) -> Vec<ConnectionId> {
        let of_user = |member: &&Member| member.outlet.seat().user == *user;
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
                self.spread_loose(batch.frames(at - 1..at), item.merge_key, item.except.as_ref());
                continue;
            };
            if self.heads.includes(&position) {
                continue;
            }
            if let Some(gap) = &mut self.gap {
                gap.held.push(placed(batch, at - 1, position));
                continue;
            }
            if !self.follows(&position) {
                if self.anybody_rides() {
                    let mut held = Held::default();
                    held.push(placed(batch, at - 1, position));
                    self.ask_for_all(held, 0, mailbox);
                    continue;
                }
                // Only readers behind gates: each finds out by itself what it lacks.
                self.forget_ring();
            }
            // A run of pushes that follow each other is one piece for each reader.
            let (begin, before) = (at - 1, self.heads.clone());
            self.heads.raise(&position);
            while let Some(next) = items.get(at)
                && next.except == item.except
                && let Some(position) = next.position
                && self.follows(&position)
            {
                self.heads.raise(&position);
                at += 1;
            }
            self.spread(batch, begin..at, &before);
        }
    }

    /// The answer to a question for all.
    pub(super) fn fill_all(&mut self, ticket: u64, page: &Page, mailbox: &Mailbox) {
        let Some(mut gap) = self.gap.take_if(|gap| gap.ticket == ticket) else { return };
        let mut progress = false;
        for (at, item) in page.pushes.items().iter().enumerate() {
            match item.position {
                None => self.spread_loose(page.pushes.frames(at..at + 1), 0, None),
                Some(position) if self.heads.includes(&position) => {}
                Some(position) => {
                    progress = true;
                    self.accept(page.pushes.frames(at..at + 1), position, None);
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

    /// The answer to one reader's question.
    pub(super) fn fill_one(&mut self, connection: ConnectionId, ticket: u64, page: &Page, mailbox: &Mailbox) {
        let Some(place) = self.answered(connection, ticket) else { return };
        let Member { outlet, gate: Some(gate), .. } = &mut self.members[place] else { return };
        let mut progress = false;
        let mut run = 0..0;
        for (at, item) in page.pushes.items().iter().enumerate() {
            let known = item.position.is_some_and(|position| gate.has.includes(&position));
            if known {
                push_run(outlet, &page.pushes, &mut run, at + 1);
                continue;
            }
            run.end = at + 1;
            if let Some(position) = &item.position {
                progress |= gate.has.raise(position);
            }
        }
        push_run(outlet, &page.pushes, &mut run, 0);
        progress |= gate.has.raise_all(&page.reached);
        gate.attempt = if progress { 0 } else { gate.attempt + 1 };
        gate.suspect |= page.more;
        self.let_through(place, mailbox);
    }

    /// No answer to one reader's question.
    pub(super) fn give_up_one(&mut self, connection: ConnectionId, ticket: u64, mailbox: &Mailbox) {
        let Some(place) = self.answered(connection, ticket) else { return };
        let Some(gate) = self.members[place].gate.as_deref_mut() else { return };
        gate.attempt += 1;
        gate.suspect = true;
        self.let_through(place, mailbox);
    }

    /// There is room in its outlet again.
    pub(super) fn resume(&mut self, connection: ConnectionId, mailbox: &Mailbox) {
        if let Some(place) = self.members.find(connection)
            && self.members[place].gate.as_ref().is_some_and(|gate| gate.phase == Phase::Waiting)
        {
            self.ask(place, mailbox);
        }
    }

    /// The bus is back after a loss: anything may have been missed.
    pub(super) fn doubt(&mut self, mailbox: &Mailbox) {
        self.forget_ring();
        for gate in self.members.iter_mut().filter_map(|member| member.gate.as_deref_mut()) {
            gate.suspect |= gate.phase.needs_ring();
        }
        if let Some(gap) = &mut self.gap {
            gap.suspect = true;
        } else if !self.heads.is_empty() && self.anybody_rides() {
            self.ask_for_all(Held::default(), 0, mailbox);
        }
    }

    // ---- the common stream ----

    fn follows(&self, position: &Position) -> bool {
        self.heads.of(position.track).is_none_or(|head| head.checked_add(1) == Some(position.number))
    }

    fn anybody_rides(&self) -> bool {
        self.members.iter().any(Member::rides)
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
        let ticket = mailbox.ask(&self.address, Reader::All, &self.heads, attempt);
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
        self.spread_placed(&frame, &before, &[Placed { frame: frame.clone(), position, except }]);
    }

    /// A run of a batch, of which `heads` knows already.
    fn spread(&mut self, batch: &Batch, run: Range<usize>, before: &Positions) {
        let items = batch.items()[run.clone()].iter().zip(run.clone());
        let pushes: Vec<_> = items.filter_map(|(item, at)| Some(placed(batch, at, item.position?))).collect();
        self.spread_placed(&batch.frames(run), before, &pushes);
    }

    /// `whole` is the frames of all `pushes`, which have the same exception. Whoever has no room keeps to `before`.
    fn spread_placed(&mut self, whole: &Bytes, before: &Positions, pushes: &[Placed]) {
        let except = pushes.first().and_then(|push| push.except.as_ref());
        for member in self.members.iter_mut() {
            let excepted = except.is_some_and(|user| member.outlet.seat().user == *user);
            match &mut member.gate {
                None if excepted => {}
                None => {
                    if !member.outlet.push_durable(whole, &self.address) {
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
                    if gate.phase == Phase::Ahead && !is_ahead(&gate.has, &self.heads) {
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
    fn spread_loose(&mut self, frame: Bytes, merge_key: u64, except: Option<&UserId>) {
        for member in self.members.iter_mut() {
            if except.is_some_and(|user| member.outlet.seat().user == *user) {
                continue;
            }
            match &mut member.gate {
                Some(gate) if gate.phase == Phase::Shut => {
                    if gate.loose.len() >= limits::GATE_LOOSE_MAX {
                        gate.loose.remove(0);
                        metrics::counter!("switchboard_fanout_dropped_total", "reason" => "gate")
                            .increment(1);
                    }
                    gate.loose.push((frame.clone(), merge_key));
                }
                _ => push_loose(&member.outlet, frame.clone(), merge_key),
            }
        }
        count_deliveries(self.members.len());
    }

    // ---- one reader's way to the common stream ----

    /// Its place, if it is behind a shut gate.
    fn shut(&self, connection: ConnectionId) -> Option<usize> {
        let place = self.members.find(connection)?;
        let gate = self.members[place].gate.as_ref()?;
        (gate.phase == Phase::Shut).then_some(place)
    }

    /// Its place, if this is the question it waits for.
    fn answered(&self, connection: ConnectionId, ticket: u64) -> Option<usize> {
        let place = self.members.find(connection)?;
        let member = &self.members[place];
        let asked = member.gate.as_ref().is_some_and(|gate| gate.phase == Phase::Asking(ticket));
        if asked {
            member.outlet.release_page();
        }
        asked.then_some(place)
    }

    /// From a shut or answered gate onwards.
    fn let_through(&mut self, place: usize, mailbox: &Mailbox) {
        let Member { outlet, gate: Some(gate), .. } = &mut self.members[place] else { return };
        for (frame, merge_key) in std::mem::take(&mut gate.loose) {
            push_loose(outlet, frame, merge_key);
        }
        if std::mem::take(&mut gate.suspect) || !self.is_covered(place) {
            self.ask(place, mailbox);
        } else {
            self.join_stream(place);
        }
    }

    fn ask(&mut self, place: usize, mailbox: &Mailbox) {
        let Member { outlet, gate: Some(gate), .. } = &mut self.members[place] else { return };
        if gate.attempt > limits::MISSED_ATTEMPTS_MAX {
            metrics::counter!("switchboard_fanout_jumps_total").increment(1);
            tracing::warn!(address = %self.address, "gave up asking what a reader missed: it sees a jump");
            return self.join_stream(place);
        }
        let phase = if outlet.reserve_page(&self.address) {
            let reader = Reader::One(outlet.seat().connection);
            Phase::Asking(mailbox.ask(&self.address, reader, &gate.has, gate.attempt))
        } else {
            Phase::Waiting
        };
        self.enter(place, phase);
    }

    /// Whether the ring has all that it lacks. A reader that is alone also says where an unknown stream stands.
    fn is_covered(&mut self, place: usize) -> bool {
        let others_ride =
            || self.members.iter().enumerate().any(|(at, member)| at != place && member.rides());
        let Some(gate) = self.members[place].gate.as_deref() else { return true };
        let unknown = |position: &&Position| self.heads.of(position.track).is_none();
        let new: Vec<_> = gate.has.as_slice().iter().filter(unknown).copied().collect();
        if !new.is_empty() && !others_ride() {
            // With others it is not raised: what they still wait for may be below it.
            self.heads.raise_all(&new);
        }
        self.heads.as_slice().iter().all(|head| match gate.has.of(head.track) {
            Some(number) if number < head.number => {
                self.ring.as_ref().is_some_and(|ring| ring.holds_from(head.track, number + 1))
            }
            _ => true,
        })
    }

    /// Gives it what the ring has beyond it; then it rides.
    fn join_stream(&mut self, place: usize) {
        let Member { outlet, gate: Some(gate), .. } = &mut self.members[place] else { return };
        gate.attempt = 0;
        let mut refused = false;
        for push in self.ring.iter().flat_map(|ring| ring.iter()) {
            if gate.has.includes(&push.position) {
                continue;
            }
            let excepted = push.except.as_ref().is_some_and(|user| outlet.seat().user == *user);
            if !excepted && !outlet.push_durable(&push.frame, &self.address) {
                refused = true;
                break;
            }
            gate.has.raise(&push.position);
        }
        if refused {
            return self.enter(place, Phase::Waiting);
        }
        gate.has.raise_all(self.heads.as_slice());
        self.enter(place, Phase::Ahead);
        let member = &mut self.members[place];
        member.gate.take_if(|gate| !is_ahead(&gate.has, &self.heads));
    }

    fn enter(&mut self, place: usize, phase: Phase) {
        let Some(gate) = self.members[place].gate.as_deref_mut() else { return };
        let before = std::mem::replace(&mut gate.phase, phase);
        match (before.needs_ring(), phase.needs_ring()) {
            (false, true) => self.recorder_came(),
            (true, false) => self.recorder_went(),
            _ => {}
        }
    }

    fn remove_at(&mut self, place: usize) {
        let gone = self.members.remove(place);
        let Some(gate) = gone.gate else { return };
        if matches!(gate.phase, Phase::Asking(_)) {
            gone.outlet.release_page();
        }
        if gate.phase.needs_ring() {
            self.recorder_went();
        }
    }

    fn recorder_came(&mut self) {
        self.recorders += 1;
        self.ring.get_or_insert_default();
    }

    fn recorder_went(&mut self) {
        self.recorders -= 1;
        if self.recorders == 0 {
            self.ring = None;
        }
    }

    fn forget_ring(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.clear();
        }
    }
}

fn placed(batch: &Batch, at: usize, position: Position) -> Placed {
    Placed { frame: batch.frames(at..at + 1), position, except: batch.items()[at].except.clone() }
}

fn is_ahead(has: &Positions, heads: &Positions) -> bool {
    has.as_slice().iter().any(|position| !heads.includes(position))
}

fn push_loose(outlet: &Outlet, frame: Bytes, merge_key: u64) {
    match merge_key {
        0 => outlet.push(frame),
        key => outlet.push_droppable(frame, key),
    }
}

/// The pushes gathered so far as one piece; the next run begins at `next`.
fn push_run(outlet: &Outlet, pushes: &Batch, run: &mut Range<usize>, next: usize) {
    if run.start < run.end {
        outlet.push(pushes.frames(run.clone()));
    }
    *run = next..next;
}

fn count_deliveries(deliveries: usize) {
    metrics::counter!("switchboard_fanout_deliveries_total").increment(deliveries as u64);
}
