//! How one subscriber catches up: it is gated and opened, gets pages and then the ring, and becomes live. The
//! gate keeps its positions at every step, so that the subscriber may be slow, or be refused by its outlet,
//! at any step.

use std::ops::Range;
use std::sync::Arc;

use super::{Page, Room, Rules, push_unpositioned};
use crate::envelope::Batch;
use crate::members::{Gate, Member, Phase, PriorState};
use crate::missing::{Mailbox, Reader};
use crate::outlet::Outlet;
use crate::positions::Positions;
use switchboard_contract::types::Position;
use switchboard_core::ids::ConnectionId;
use switchboard_core::limits;

impl<R: Rules> Room<R> {
    /// Holds back every push for this connection until `open_gate` or `undo_gate`. Returns true for a new
    /// subscription.
    pub(crate) fn gate(&mut self, outlet: &Arc<Outlet>) -> bool {
        let connection = outlet.info().connection;
        let Some(place) = self.members.find(connection) else {
            let gate = Gate::new(self.heads.clone(), Phase::Shut);
            self.members.add(Member { connection, outlet: outlet.clone(), gate: Some(Box::new(gate)) });
            self.add_ring_user();
            return true;
        };
        let member = &mut self.members[place];
        let before = member.gate.take();
        let phase = before.as_ref().map(|gate| gate.phase);
        if phase == Some(Phase::Shut) {
            member.gate = before;
            return false;
        }
        let has = before.map_or_else(|| self.heads.clone(), |gate| gate.has);
        let mut gate = Gate::new(has, Phase::Shut);
        gate.prior = Some(match phase {
            Some(Phase::Asking(_) | Phase::Waiting) => PriorState::CatchingUp,
            _ => PriorState::Live,
        });
        member.gate = Some(Box::new(gate));
        match phase {
            Some(Phase::Asking(_)) => member.outlet.release_page(),
            _ => self.add_ring_user(),
        }
        false
    }

    /// Opens the gate, because the reply is in the outlet. `after` are the client's positions. A track that
    /// it does not name continues from the position at which the gate was made. `missed`: the client lacks
    /// pushes, so the room asks for a page.
    pub(crate) fn open_gate(
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
            if has.number_of(position.track).is_none() {
                has.raise(position);
            }
        }
        gate.has = has;
        gate.prior = None;
        gate.suspect |= missed;
        self.let_through(place, mailbox);
    }

    /// Undoes the gate of a call that failed: a new subscription ends, and one from before the call
    /// continues. Returns true when the subscription ended.
    pub(crate) fn undo_gate(&mut self, connection: ConnectionId, mailbox: &Mailbox) -> bool {
        let Some(place) = self.shut(connection) else { return false };
        let Some(gate) = self.members[place].gate.as_deref_mut() else { return false };
        let Some(prior) = gate.prior.take() else {
            self.remove_at(place);
            return true;
        };
        gate.suspect |= prior == PriorState::CatchingUp;
        self.let_through(place, mailbox);
        false
    }

    /// Delivers the answer to a request for one subscriber.
    pub(crate) fn fill_one(&mut self, connection: ConnectionId, ticket: u64, page: &Page, mailbox: &Mailbox) {
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

    /// Handles a request for one subscriber that got no answer.
    pub(crate) fn give_up_one(&mut self, connection: ConnectionId, ticket: u64, mailbox: &Mailbox) {
        let Some(place) = self.answered(connection, ticket) else { return };
        let Some(gate) = self.members[place].gate.as_deref_mut() else { return };
        gate.attempt += 1;
        gate.suspect = true;
        self.let_through(place, mailbox);
    }

    /// Asks for the next page, because the outlet has space again.
    pub(crate) fn resume(&mut self, connection: ConnectionId, mailbox: &Mailbox) {
        if let Some(place) = self.members.find(connection)
            && self.members[place].gate.as_ref().is_some_and(|gate| gate.phase == Phase::Waiting)
        {
            self.ask(place, mailbox);
        }
    }

    /// Returns the index of a member behind a shut gate.
    fn shut(&self, connection: ConnectionId) -> Option<usize> {
        let place = self.members.find(connection)?;
        let gate = self.members[place].gate.as_ref()?;
        (gate.phase == Phase::Shut).then_some(place)
    }

    /// Returns the index of a member that waits for the answer to this request, and gives the reserved space
    /// back.
    fn answered(&self, connection: ConnectionId, ticket: u64) -> Option<usize> {
        let place = self.members.find(connection)?;
        let member = &self.members[place];
        let asked = member.gate.as_ref().is_some_and(|gate| gate.phase == Phase::Asking(ticket));
        if asked {
            member.outlet.release_page();
        }
        asked.then_some(place)
    }

    /// Continues after the gate was opened or a request was answered: with another request, or with the live
    /// stream.
    fn let_through(&mut self, place: usize, mailbox: &Mailbox) {
        let Member { outlet, gate: Some(gate), .. } = &mut self.members[place] else { return };
        for (frame, merge_key) in std::mem::take(&mut gate.unpositioned) {
            let content_hash = Outlet::content_hash(&frame);
            push_unpositioned(outlet, frame, merge_key, content_hash);
        }
        if std::mem::take(&mut gate.suspect) || !self.is_covered(place) {
            self.ask(place, mailbox);
        } else {
            self.join_stream(place);
        }
    }

    fn ask(&mut self, place: usize, mailbox: &Mailbox) {
        let Member { outlet, gate: Some(gate), .. } = &mut self.members[place] else { return };
        if gate.attempt > limits::MISSED_RETRIES_MAX {
            metrics::counter!("switchboard_fanout_jumps_total").increment(1);
            tracing::warn!(
                address = %self.address,
                connection = %outlet.info().connection,
                "no handler filled the subscriber's gap after {} requests; it sees a jump and asks for `history`",
                limits::MISSED_RETRIES_MAX + 1
            );
            return self.join_stream(place);
        }
        let phase = if outlet.reserve_page(&self.address) {
            let reader = Reader::One(outlet.info().connection);
            Phase::Asking(mailbox.ask(&self.address, reader, &gate.has, gate.attempt))
        } else {
            Phase::Waiting
        };
        self.enter(place, phase);
    }

    /// Returns true when the ring has every push that the subscriber lacks. If no other member is live, the
    /// positions of the subscriber also set the unknown tracks of the room.
    fn is_covered(&mut self, place: usize) -> bool {
        let others_are_live =
            || self.members.iter().enumerate().any(|(at, member)| at != place && member.is_live());
        let Some(gate) = self.members[place].gate.as_deref() else { return true };
        let unknown = |position: &&Position| self.heads.number_of(position.track).is_none();
        let new: Vec<_> = gate.has.as_slice().iter().filter(unknown).copied().collect();
        if !new.is_empty() && !others_are_live() {
            // With another live member they are not set, because pushes that it still waits for may be below
            // them.
            self.heads.raise_all(&new);
        }
        self.heads.as_slice().iter().all(|head| match gate.has.number_of(head.track) {
            Some(number) if number < head.number => {
                self.ring.as_ref().is_some_and(|ring| ring.holds_from(head.track, number + 1))
            }
            _ => true,
        })
    }

    /// Delivers the ring's pushes that the subscriber lacks. Then the subscriber is live.
    fn join_stream(&mut self, place: usize) {
        let Member { outlet, gate: Some(gate), .. } = &mut self.members[place] else { return };
        gate.attempt = 0;
        let mut refused = false;
        for push in self.ring.iter().flat_map(|ring| ring.iter()) {
            if gate.has.includes(&push.position) {
                continue;
            }
            let excepted = push.except.as_ref().is_some_and(|user| outlet.info().user == *user);
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
        member.gate.take_if(|gate| !gate.is_ahead_of(&self.heads));
    }

    fn enter(&mut self, place: usize, phase: Phase) {
        let Some(gate) = self.members[place].gate.as_deref_mut() else { return };
        let before = std::mem::replace(&mut gate.phase, phase);
        match (before.needs_ring(), phase.needs_ring()) {
            (false, true) => self.add_ring_user(),
            (true, false) => self.remove_ring_user(),
            _ => {}
        }
    }
}

/// Pushes the frames of `run` as one piece, and begins the next run at `next`.
fn push_run(outlet: &Outlet, pushes: &Batch, run: &mut Range<usize>, next: usize) {
    if run.start < run.end {
        outlet.push(pushes.frames(run.clone()));
    }
    *run = next..next;
}
