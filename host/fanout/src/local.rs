//! The local part of the hub, without the bus: the connections of this node and their rooms. Every method
//! runs at once, under short locks. Work that has to wait (requests for missed pushes, idle addresses,
//! drained outlets) leaves through mailboxes. The same inputs give the same results, which the simulation
//! uses.
//!
//! Locks are taken in this order: a connection, a room, an outlet; at most one of each.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::envelope::Batch;
use super::missing::{Mailbox, Missing, Reader};
use super::outlet::{ConnectionInfo, Outlet};
use super::room::{Page, Room, Rules, Sound};
use switchboard_contract::channels::{Error, Target};
use switchboard_contract::frame::Subscription;
use switchboard_core::ids::{Address, ConnectionId, UserId};
use switchboard_core::limits;
use switchboard_protocol::session::Credentials;
use switchboard_protocol::wire::close::Close;

pub(super) struct Local<R = Sound> {
    connections: Shards<ConnectionId, Connection>,
    rooms: Shards<Address, Room<R>>,
    mailbox: Mailbox,
    drained: UnboundedSender<ConnectionId>,
    emptied: UnboundedSender<Address>,
}

/// The mailboxes of the local part. Each is bounded by the number of subscriptions, connections or rooms.
pub(super) struct Mail {
    /// Gaps to ask about at once.
    pub(super) asks: UnboundedReceiver<Missing>,
    /// Gaps to ask about after a wait.
    pub(super) retries: UnboundedReceiver<Missing>,
    /// Connections whose outlets have space for a page again.
    pub(super) drained: UnboundedReceiver<ConnectionId>,
    /// Addresses without subscribers.
    pub(super) emptied: UnboundedReceiver<Address>,
    /// The sending end of `asks`, for retries whose wait is over.
    pub(super) ask: UnboundedSender<Missing>,
}

struct Connection {
    outlet: Arc<Outlet>,
    addresses: Vec<Address>,
    /// The addresses that the running call has gated.
    shut: Vec<Address>,
    /// Frames that the running call sends to its own connection.
    after_reply: Vec<Bytes>,
}

impl<R: Rules> Local<R> {
    pub(super) fn new() -> (Self, Mail) {
        let (ask, asks) = unbounded_channel();
        let (retry, retries) = unbounded_channel();
        let (drain, drained) = unbounded_channel();
        let (empty, emptied) = unbounded_channel();
        let local = Self {
            connections: Shards::default(),
            rooms: Shards::default(),
            mailbox: Mailbox::new(ask.clone(), retry),
            drained: drain,
            emptied: empty,
        };
        (local, Mail { asks, retries, drained, emptied, ask })
    }

    // ---- connections ----

    pub(super) fn open_connection(&self, info: ConnectionInfo) -> Arc<Outlet> {
        let (connection, own) = (info.connection, Address::of_user(&info.user));
        let outlet = Arc::new(Outlet::new(info, self.drained.clone()));
        let mut connections = self.connections.of(&connection);
        self.rooms.of(&own).entry(own.clone()).or_insert_with(|| Room::new(own.clone())).add_live(&outlet);
        connections.insert(
            connection,
            Connection {
                outlet: outlet.clone(),
                addresses: vec![own],
                shut: Vec::new(),
                after_reply: Vec::new(),
            },
        );
        outlet
    }

    pub(super) fn close_connection(&self, connection: ConnectionId) {
        let Some(gone) = self.connections.of(&connection).remove(&connection) else { return };
        for address in gone.addresses {
            self.change_room(&address, |room| room.remove(connection));
        }
    }

    pub(super) fn outlet(&self, connection: ConnectionId) -> Option<Arc<Outlet>> {
        self.connections.of(&connection).get(&connection).map(|known| known.outlet.clone())
    }

    pub(super) fn connected(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn connections(&self) -> Vec<(ConnectionId, UserId)> {
        let mut connections = Vec::with_capacity(self.connected());
        self.connections.each(|id, known| connections.push((*id, known.outlet.info().user.clone())));
        connections
    }

    /// Returns false when the connection is not on this node.
    pub(super) fn send(&self, connection: ConnectionId, frame: Bytes) -> bool {
        self.outlet(connection).map(|outlet| outlet.push(frame)).is_some()
    }

    /// Keeps the frame until `open_gates`, when the reply of the call is in the outlet. Returns false when
    /// the connection is not on this node. The bytes are bounded by the host-call budget of the call.
    pub(super) fn send_after_reply(&self, connection: ConnectionId, frame: Bytes) -> bool {
        let mut connections = self.connections.of(&connection);
        connections.get_mut(&connection).map(|known| known.after_reply.push(frame)).is_some()
    }

    pub(super) fn disconnect(&self, target: &Target, close: &Close) {
        let close_room = |address: Option<Address>| {
            if let Some(address) = address
                && let Some(room) = self.rooms.of(&address).get(&address)
            {
                room.outlets().for_each(|outlet| outlet.close(close.clone()));
            }
        };
        match target {
            Target::Connection(id) => {
                if let Some(outlet) = ConnectionId::parse(id).and_then(|id| self.outlet(id)) {
                    outlet.close(close.clone());
                }
            }
            // A session is disconnected rarely, so it has no index.
            Target::Session(session) => self.connections.each(|_, known| {
                if *known.outlet.info().session == **session {
                    known.outlet.close(close.clone());
                }
            }),
            Target::User(user) => close_room(UserId::parse(user).map(|user| Address::of_user(&user))),
            Target::Address(address) => close_room(Address::parse(address)),
        }
    }

    /// Closes every connection whose token `is_meant` selects. Returns their number.
    pub(super) fn close_where(&self, close: &Close, is_meant: impl Fn(&Credentials) -> bool) -> usize {
        let mut closed = 0;
        self.connections.each(|_, known| {
            if known.outlet.token().is_some_and(|token| is_meant(&token)) {
                known.outlet.close(close.clone());
                closed += 1;
            }
        });
        closed
    }

    // ---- subscriptions ----

    /// Adds the connection to the rooms, behind gates. The caller has subscribed the bus to the addresses. At
    /// the bound, the remaining addresses are not gated, and the end of the call undoes the others.
    pub(super) fn gate(&self, connection: ConnectionId, addresses: &[Address]) -> Result<(), Error> {
        let mut connections = self.connections.of(&connection);
        let known = connections.get_mut(&connection).ok_or(Error::Gone)?;
        for address in addresses {
            if Some(address) == known.addresses.first() {
                continue; // the address of its own user, which has no gate
            }
            let mut rooms = self.rooms.of(address);
            let room = rooms.entry(address.clone()).or_insert_with(|| Room::new(address.clone()));
            if !room.has(connection) && known.addresses.len() >= limits::SUBSCRIPTIONS_MAX {
                self.remove_if_empty(rooms, address);
                return Err(Error::Full);
            }
            if room.gate(&known.outlet) {
                known.addresses.push(address.clone());
            }
            known.shut.push(address.clone());
        }
        Ok(())
    }

    /// Opens the gates of a call whose reply is in the outlet. Gated addresses that are not listed are
    /// unsubscribed.
    pub(super) fn open_gates(&self, connection: ConnectionId, subscriptions: &[Subscription]) {
        let mut connections = self.connections.of(&connection);
        let Some(known) = connections.get_mut(&connection) else { return };
        std::mem::take(&mut known.after_reply).into_iter().for_each(|frame| known.outlet.push(frame));
        let listed: HashMap<&str, &Subscription> =
            subscriptions.iter().map(|subscription| (subscription.address.as_str(), subscription)).collect();
        let mut refused = Vec::new();
        for address in std::mem::take(&mut known.shut) {
            match listed.get(address.as_str()) {
                Some(Subscription { after, missed, .. }) => {
                    self.change_room(&address, |room| {
                        room.open_gate(connection, after, *missed, &self.mailbox);
                    });
                }
                None => {
                    self.change_room(&address, |room| room.remove(connection));
                    refused.push(address);
                }
            }
        }
        known.forget(&refused);
    }

    /// Undoes the gates of a call that failed. Subscriptions from before the call continue.
    pub(super) fn undo_gates(&self, connection: ConnectionId) {
        let mut connections = self.connections.of(&connection);
        let Some(known) = connections.get_mut(&connection) else { return };
        known.after_reply.clear();
        let mut gone = Vec::new();
        for address in std::mem::take(&mut known.shut) {
            if self.change_room(&address, |room| room.undo_gate(connection, &self.mailbox)) == Some(true) {
                gone.push(address);
            }
        }
        known.forget(&gone);
    }

    pub(super) fn unsubscribe(&self, connection: ConnectionId, addresses: &[Address]) {
        let mut connections = self.connections.of(&connection);
        let Some(known) = connections.get_mut(&connection) else { return };
        let own = known.addresses.first().cloned();
        let gone: Vec<_> =
            addresses.iter().filter(|address| Some(*address) != own.as_ref()).cloned().collect();
        for address in &gone {
            self.change_room(address, |room| room.remove(connection));
        }
        known.forget(&gone);
    }

    /// Ends the subscriptions of a user to an address. The user's own address cannot be revoked.
    pub(super) fn revoke(&self, address: &Address, user: &UserId) {
        if *address == Address::of_user(user) {
            return;
        }
        let gone = self.change_room(address, |room| room.revoke(user)).unwrap_or_default();
        for connection in gone {
            let mut connections = self.connections.of(&connection);
            let Some(known) = connections.get_mut(&connection) else { continue };
            // The connection may have subscribed again meanwhile.
            let has_subscribed = self.rooms.of(address).get(address).is_some_and(|room| room.has(connection));
            if !has_subscribed {
                known.forget(std::slice::from_ref(address));
            }
        }
    }

    // ---- the stream ----

    pub(super) fn deliver(&self, address: &Address, batch: &Batch) {
        if let Some(room) = self.rooms.of(address).get_mut(address) {
            room.deliver(batch, &self.mailbox);
        }
    }

    pub(super) fn fill(&self, missing: &Missing, page: &Page) {
        self.change_room(&missing.address, |room| match missing.reader {
            Reader::Live => room.fill_all(missing.ticket, page, &self.mailbox),
            Reader::One(connection) => room.fill_one(connection, missing.ticket, page, &self.mailbox),
        });
    }

    pub(super) fn give_up(&self, missing: &Missing) {
        self.change_room(&missing.address, |room| match missing.reader {
            Reader::Live => room.give_up_all(missing.ticket, &self.mailbox),
            Reader::One(connection) => room.give_up_one(connection, missing.ticket, &self.mailbox),
        });
    }

    /// Resumes the rooms that wait for space in this connection's outlet.
    pub(super) fn drained(&self, connection: ConnectionId) {
        let Some(outlet) = self.outlet(connection) else { return };
        while let Some(address) = outlet.next_waiting() {
            self.change_room(&address, |room| room.resume(connection, &self.mailbox));
        }
    }

    /// Lets every room ask for missed pushes, after the bus reconnected or the position epoch changed.
    pub(super) fn suspect_loss(&self) {
        self.rooms.each(|_, room| room.suspect_loss(&self.mailbox));
    }

    pub(super) fn has_room(&self, address: &Address) -> bool {
        self.rooms.of(address).contains_key(address)
    }

    pub(super) fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// Reports an address as idle: the bus is subscribed to it, and it has no room.
    pub(super) fn leave_idle(&self, address: &Address) {
        // The receiver is gone only when the hub has stopped.
        let _ = self.emptied.send(address.clone());
    }

    /// Changes a room, and removes it when it has no members afterwards.
    fn change_room<T>(&self, address: &Address, change: impl FnOnce(&mut Room<R>) -> T) -> Option<T> {
        let mut rooms = self.rooms.of(address);
        let changed = rooms.get_mut(address).map(change);
        self.remove_if_empty(rooms, address);
        changed
    }

    fn remove_if_empty(&self, mut rooms: MutexGuard<'_, HashMap<Address, Room<R>>>, address: &Address) {
        if rooms.get(address).is_some_and(Room::is_empty) {
            rooms.remove(address);
            self.leave_idle(address);
        }
    }
}

impl Connection {
    fn forget(&mut self, addresses: &[Address]) {
        match addresses {
            [] => {}
            [one] => self.addresses.retain(|address| address != one),
            many => {
                let many: std::collections::HashSet<_> = many.iter().collect();
                self.addresses.retain(|address| !many.contains(address));
            }
        }
    }
}

/// A map that is divided under many locks, so that rooms seldom wait for each other.
struct Shards<K, V> {
    hasher: RandomState,
    maps: [Mutex<HashMap<K, V>>; 64],
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), maps: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<K: Hash + Eq, V> Shards<K, V> {
    fn of(&self, key: &K) -> MutexGuard<'_, HashMap<K, V>> {
        let shard = self.hasher.hash_one(key) as usize % self.maps.len();
        self.maps[shard].lock()
    }

    fn each(&self, mut visit: impl FnMut(&K, &mut V)) {
        for map in &self.maps {
            let mut map = map.lock();
            map.iter_mut().for_each(|(key, value)| visit(key, value));
        }
    }

    fn len(&self) -> usize {
        self.maps.iter().map(|map| map.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests;
