//! The hub as the rest of the host sees it: the local rooms, the bus to the other nodes, and the work that waits for a
//! time or for room. It calls no handler: what rooms lack is left in a mailbox (`gaps`) that the edges answer.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::bus::{Bus, BusEvent, Unavailable};
use super::envelope::{Batch, Envelope, pack};
use super::local::{Local, Mail};
use super::missing::Missing;
use super::outlet::{ConnectionInfo, Outlet};
use super::room;
use super::wakes::{self, Wakes};
use crate::contract::channels::{Error, Publication, Target};
use crate::contract::connection::Page;
use crate::contract::frame::Subscription;
use crate::ids::{Address, ConnectionId, NodeId, UserId};
use crate::limits;
use crate::redis::Redis;
use crate::session::Credentials;
use crate::telemetry::spans;
use crate::wire::close::Close;
use crate::wire::websocket::encode_text;

/// One for the process. Clones are the same.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    node: NodeId,
    local: Arc<Local>,
    bus: Bus,
    gaps: Mutex<Option<mpsc::UnboundedReceiver<Missing>>>,
    /// Counts losses of the bus that are over.
    losses: watch::Sender<u64>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Hub {
    /// Returns at once: a node may start before its Redis. Nodes with the same namespace are one fleet.
    pub fn start(redis: &Redis, namespace: &str, node: NodeId, wakes: Wakes) -> Self {
        let (bus, orders) = Bus::new(redis.clone(), namespace, node);
        let (local, mail) = Local::new();
        let local = Arc::new(local);
        let (gaps, tasks) = (Mutex::default(), tokio::sync::Mutex::default());
        let losses = watch::Sender::new(0);
        let mut hub =
            Shared { node, local: local.clone(), bus: bus.clone(), gaps, losses: losses.clone(), tasks };
        let Mail { asks, retries, drained, emptied, ask } = mail;
        *hub.gaps.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(asks);

        let tasks = hub.tasks.get_mut();
        tasks.spawn(bus.clone().run_orders(orders));
        let (of, woken) = (local.clone(), wakes.clone());
        tasks.spawn(bus.clone().listen(move |heard| {
            let is_back = matches!(heard, BusEvent::Reconnected);
            receive(&of, &woken, node, heard);
            if is_back {
                losses.send_modify(|count| *count += 1);
            }
        }));
        tasks.spawn(pass_wakes_on(wakes, bus.clone(), node));
        tasks.spawn(Keeper { local, bus, retries, drained, emptied, ask }.keep());
        Self(Arc::new(hub))
    }

    /// Ends the work of the hub. Nothing is delivered after this.
    pub async fn stop(&self) {
        self.0.tasks.lock().await.shutdown().await;
    }

    /// Whether publications of any node reach this one, as far as it can tell by hearing itself.
    pub fn is_up(&self) -> bool {
        self.0.bus.is_up()
    }

    /// Changes whenever the bus is back after a loss: Redis may be empty.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.0.losses.subscribe()
    }

    /// The positions of every stream may have gone back: each room with readers asks what they lack.
    pub fn history_changed(&self) {
        self.0.local.suspect_loss();
    }

    /// Who is connected to this node.
    pub fn connections(&self) -> Vec<(ConnectionId, UserId)> {
        self.0.local.connections()
    }

    /// Connections of this node.
    pub fn connected(&self) -> usize {
        self.0.local.connected()
    }

    /// Addresses that somebody here is subscribed to.
    pub fn addresses(&self) -> usize {
        self.0.local.rooms()
    }

    // ---- one connection ----

    /// From here on pushes for it, for its user and for its session arrive. Without a bus it waits for one a bounded
    /// time and then goes on, for those pushes are best effort.
    pub async fn open_connection(&self, info: ConnectionInfo) -> Arc<Outlet> {
        let own = Address::of_user(&info.user);
        let outlet = self.0.local.open_connection(info);
        if self.0.bus.hold(std::slice::from_ref(&own)).await.is_err() {
            tracing::debug!("a connection begins without the bus");
        }
        outlet
    }

    /// The connection has ended. Its outlet takes nothing more.
    pub fn close_connection(&self, connection: ConnectionId) {
        self.0.local.close_connection(connection);
    }

    /// Hears these addresses and holds their pushes back for this connection, until `open` or `take_back`.
    pub async fn gate(&self, connection: ConnectionId, addresses: &[Address]) -> Result<(), Error> {
        if addresses.len() > limits::SUBSCRIPTIONS_MAX {
            return Err(Error::Full);
        }
        let held = self.0.bus.hold(addresses).await;
        let gated = match &held {
            Ok(_) => self.0.local.gate(connection, addresses),
            Err(unavailable) => Err((*unavailable).into()),
        };
        if gated.is_err() {
            // Nobody came into these rooms, so nobody will leave them either.
            addresses.iter().for_each(|address| self.0.local.leave_idle(address));
        }
        gated
    }

    /// The call answered, and its reply is in the outlet: what it lists opens, everything else that it gated is not
    /// subscribed.
    pub fn open_gates(&self, connection: ConnectionId, subscriptions: &[Subscription]) {
        self.0.local.open_gates(connection, subscriptions);
    }

    /// The call failed: new subscriptions go, those that stood before it stand.
    pub fn undo_gates(&self, connection: ConnectionId) {
        self.0.local.undo_gates(connection);
    }

    pub fn unsubscribe(&self, connection: ConnectionId, addresses: &[Address]) {
        self.0.local.unsubscribe(connection, addresses);
    }

    // ---- all connections ----

    /// In order. Returns once the bus has taken all of them.
    pub async fn publish(&self, publications: &[Publication]) -> Result<(), Error> {
        let packed = pack(publications).map_err(Error::Refused)?;
        if !packed.is_empty() {
            // So that the other nodes' part is in the same trace: a round trip more, of traced calls only.
            for (by, addresses) in spans::take_unannounced(packed.iter().map(|(address, _)| address)) {
                let node = self.0.node.uuid();
                let _ =
                    self.0.bus.publish_control(&Envelope::Traced { node, by, shards: 0, addresses }).await;
            }
            self.0.bus.publish(&packed).await?;
        }
        Ok(())
    }

    /// Ends the subscriptions of a user before anything that is published to the address after this. Here it ends at
    /// once: who fills a gap may know that somebody left, and what fills it must not reach them.
    pub async fn revoke(&self, address: &Address, user: &UserId) -> Result<(), Error> {
        self.0.local.revoke(address, user);
        let message = (address.clone(), Envelope::Revoke(user.clone()).encode());
        Ok(self.0.bus.publish(&[message]).await?)
    }

    /// To one connection, here at once or elsewhere over the bus; dropped where it has ended.
    pub async fn send(&self, connection: ConnectionId, frame: &str) -> Result<(), Error> {
        if frame.len() > limits::FRAME_BYTES_MAX {
            return Err(Error::Refused(format!("a frame of {} bytes is over 64 KiB", frame.len())));
        }
        let frame = encode_text(frame);
        if self.0.local.send(connection, frame.clone()) {
            return Ok(());
        }
        Ok(self.0.bus.publish_control(&Envelope::Send { connection: connection.to_string(), frame }).await?)
    }

    /// To the connection whose frame is being handled, after its reply: `open` lets it go, `take_back` forgets it.
    pub fn send_after_reply(&self, connection: ConnectionId, frame: &str) -> Result<(), Error> {
        if frame.len() > limits::FRAME_BYTES_MAX {
            return Err(Error::Refused(format!("a frame of {} bytes is over 64 KiB", frame.len())));
        }
        if self.0.local.send_after_reply(connection, encode_text(frame)) { Ok(()) } else { Err(Error::Gone) }
    }

    /// Closes here at once; returns once the other nodes were told.
    pub async fn disconnect(&self, target: &Target, close: &Close) -> Result<(), Error> {
        self.0.local.disconnect(target, close);
        let (code, reason) = (close.code(), close.reason().to_owned());
        Ok(self.0.bus.publish_control(&Envelope::Disconnect { target: target.clone(), code, reason }).await?)
    }

    /// Closes the connections of this node whose token this says of; how many. Every node has to do it for its own.
    pub fn close_where(&self, close: &Close, is_meant: impl Fn(&Credentials) -> bool) -> usize {
        self.0.local.close_where(close, is_meant)
    }

    // ---- gaps ----

    /// What readers lack, to be answered each by `fill` or `give_up`. There is one mailbox; the first who asks has it.
    pub fn gaps(&self) -> Option<mpsc::UnboundedReceiver<Missing>> {
        self.0.gaps.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The handler's page.
    pub fn fill(&self, missing: &Missing, page: Page) {
        self.0.local.fill(missing, &within_bounds(page));
    }

    /// No handler is bound, or it failed. It is asked again after a while, a bounded number of times.
    pub fn give_up(&self, missing: &Missing) {
        self.0.local.give_up(missing);
    }
}

impl From<Unavailable> for Error {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

fn receive(local: &Local, wakes: &Wakes, node: NodeId, heard: BusEvent) {
    match heard {
        BusEvent::Address(address, Envelope::Publications(batch)) => {
            local.deliver(&address, &batch);
            spans::delivered(&address, batch.items().len());
        }
        BusEvent::Address(address, Envelope::Revoke(user)) => local.revoke(&address, &user),
        BusEvent::Control(Envelope::Disconnect { target, code, reason }) => {
            if let Some(close) = Close::requested(code, &reason) {
                local.disconnect(&target, &close);
            }
        }
        BusEvent::Control(Envelope::Send { connection, frame }) => {
            if let Some(connection) = ConnectionId::parse(&connection) {
                local.send(connection, frame);
            }
        }
        BusEvent::Control(Envelope::Wake { node: from, shards }) if from != node.uuid() => {
            wakes.set_from_remote(shards);
        }
        BusEvent::Control(Envelope::Traced { node: from, by, shards, addresses }) if from != node.uuid() => {
            if spans::is_on() {
                spans::record_wake(&wakes::shards(shards), by);
                spans::published_remotely(addresses, by);
            }
        }
        BusEvent::Reconnected => local.suspect_loss(),
        // An envelope on a channel where it does not belong says nothing.
        BusEvent::Address(..) | BusEvent::Control(_) => {}
    }
}

/// What is set while one message is on its way goes with the next.
async fn pass_wakes_on(wakes: Wakes, bus: Bus, node: NodeId) {
    loop {
        let shards = wakes.remote_shards().await;
        let node = node.uuid();
        if let Some(by) = spans::waker(wakes::shards(shards).into_iter()) {
            let _ = bus.publish_control(&Envelope::Traced { node, by, shards, addresses: Vec::new() }).await;
        }
        // Lost with the bus: a wake is a hint, and a tick stands behind it.
        let _ = bus.publish_control(&Envelope::Wake { node, shards }).await;
    }
}

/// A handler may answer with more than it was asked for: the rest is asked for again. A frame that no client would
/// take is left out.
fn within_bounds(page: Page) -> room::Page {
    let Page { mut pushes, mut reached, mut more } = page;
    pushes.retain(|push| push.frame.len() <= limits::FRAME_BYTES_MAX);
    let mut bytes = 0;
    let fitting = pushes.iter().take(limits::PAGE_PUSHES_MAX).take_while(|push| {
        let is_first = bytes == 0;
        bytes += push.frame.len();
        is_first || bytes <= limits::PAGE_BYTES_MAX
    });
    let fitting = fitting.count();
    if fitting < pushes.len() {
        pushes.truncate(fitting);
        reached = pushes.iter().filter_map(|push| push.position).collect();
        more = true;
    }
    room::Page { pushes: Batch::of_page(&pushes), reached, more }
}

/// The one who waits: before questions are repeated, until idle addresses may go, for queues that have room again.
struct Keeper {
    local: Arc<Local>,
    bus: Bus,
    retries: mpsc::UnboundedReceiver<Missing>,
    drained: mpsc::UnboundedReceiver<ConnectionId>,
    emptied: mpsc::UnboundedReceiver<Address>,
    ask: mpsc::UnboundedSender<Missing>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut due: BTreeMap<(Instant, u64), Missing> = BTreeMap::new();
        let mut idle = Idle::default();
        let mut count = 0;
        loop {
            let next_due = due.first_key_value().map(|((at, _), _)| *at);
            let next_idle = idle.next();
            tokio::select! {
                Some(connection) = self.drained.recv() => self.local.drained(connection),
                Some(missing) = self.retries.recv() => {
                    count += 1;
                    due.insert((Instant::now() + missing.wait(), count), missing);
                }
                Some(address) = self.emptied.recv() => idle.add(address),
                () = at(next_due) => {
                    if let Some((_, missing)) = due.pop_first() {
                        // Whoever answers is gone only when the process ends.
                        let _ = self.ask.send(missing);
                    }
                }
                () = at(next_idle) => {
                    self.bus.unsubscribe_idle(&idle.take(), |address| self.local.has_room(address));
                }
                else => return,
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Addresses that were left, in the order in which they were. One that is left again while it waits is not added: it is
/// looked at once, and again when it is left after that.
#[derive(Default)]
struct Idle {
    since: VecDeque<(Instant, Address)>,
    known: HashSet<Address>,
}

impl Idle {
    fn add(&mut self, address: Address) {
        if self.known.insert(address.clone()) {
            self.since.push_back((Instant::now(), address));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.since.front().map(|(since, _)| *since + Duration::from_millis(limits::BUS_IDLE_MS))
    }

    /// Everything that has waited long enough.
    fn take(&mut self) -> Vec<Address> {
        let mut due = Vec::new();
        while self.next().is_some_and(|time| time <= Instant::now())
            && let Some((_, address)) = self.since.pop_front()
        {
            self.known.remove(&address);
            due.push(address);
        }
        due
    }
}

#[cfg(test)]
mod tests;
