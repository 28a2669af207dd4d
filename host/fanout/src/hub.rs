//! The hub: the part of a node that brings pushes from the bus to its connections. It joins the local rooms,
//! the bus to the other nodes, and the work that waits for a time or for queue space. It does not call
//! handlers. It puts the gaps of its rooms into a mailbox (`gaps`), which the triggers drain.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::bus::{Bus, BusEvent, Unavailable};
use super::envelope::{Addressed, Batch, Envelope, pack};
use super::local::{Local, Mail};
use super::missing::Missing;
use super::outlet::{ConnectionInfo, Outlet};
use super::room;
use super::wakes::{self, Wakes};
use super::watches::Watches;
use switchboard_contract::channels::{Error, Target};
use switchboard_contract::connection::Page;
use switchboard_contract::frame::Subscription;
use switchboard_core::ids::{Address, ConnectionId, NodeId, UserId};
use switchboard_core::limits;
use switchboard_protocol::session::Credentials;
use switchboard_protocol::wire::close::Close;
use switchboard_protocol::wire::websocket::encode_text;
use switchboard_redis::Redis;
use switchboard_telemetry::Tracer;

/// The hub of one node. A process has one; clones share it.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    node: NodeId,
    local: Arc<Local>,
    bus: Bus,
    tracer: Tracer,
    watches: Watches,
    gaps: Mutex<Option<mpsc::UnboundedReceiver<Missing>>>,
    /// How often the bus has reconnected after a loss.
    losses: watch::Sender<u64>,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Hub {
    /// Starts the hub's tasks and returns at once, because a node may start before its Redis. Nodes with the
    /// same namespace are one fleet.
    pub fn start(redis: &Redis, namespace: &str, node: NodeId, wakes: Wakes, tracer: Tracer) -> Self {
        let (bus, orders) = Bus::new(redis.clone(), namespace, node);
        let (local, mail) = Local::new();
        let local = Arc::new(local);
        let (gaps, tasks) = (Mutex::default(), tokio::sync::Mutex::default());
        let losses = watch::Sender::new(0);
        let watches = Watches::new(node);
        let mut hub = Shared {
            node,
            local: local.clone(),
            bus: bus.clone(),
            tracer: tracer.clone(),
            watches: watches.clone(),
            gaps,
            losses: losses.clone(),
            tasks,
        };
        let Mail { asks, retries, drained, emptied, ask } = mail;
        *hub.gaps.get_mut() = Some(asks);

        let tasks = hub.tasks.get_mut();
        tasks.spawn(bus.clone().run_orders(orders));
        tasks.spawn(bus.clone().announce_losses());
        let (of, woken, traces, watched) = (local.clone(), wakes.clone(), tracer.clone(), watches.clone());
        let suspected = Arc::new(Notify::new());
        let suspect = suspected.clone();
        tasks.spawn(bus.clone().listen(move |event| {
            let reconnected = matches!(event, BusEvent::Reconnected);
            if matches!(event, BusEvent::Control(Envelope::PublicationsLost)) {
                suspect.notify_one();
            }
            receive(&of, &woken, &traces, &watched, node, event);
            if reconnected {
                losses.send_modify(|count| *count += 1);
            }
        }));
        tasks.spawn(pass_wakes_on(wakes, bus.clone(), tracer, node));
        tasks.spawn(watches.run(bus.clone()));
        tasks.spawn(HubTask { local, bus, retries, drained, emptied, ask, suspected }.run());
        Self(Arc::new(hub))
    }

    /// Stops the hub's tasks. It delivers nothing after this.
    pub async fn stop(&self) {
        self.0.tasks.lock().await.shutdown().await;
    }

    /// Returns true while the bus delivers, as far as the loopback heartbeat shows.
    pub fn is_up(&self) -> bool {
        self.0.bus.is_up()
    }

    /// Returns the watches of operators.
    pub fn watches(&self) -> &Watches {
        &self.0.watches
    }

    /// Changes whenever the bus reconnects after a loss. Redis may be empty then.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.0.losses.subscribe()
    }

    /// Notifies the rooms of a new position epoch. Each room with live subscribers asks what they missed.
    pub fn history_changed(&self) {
        self.0.local.suspect_loss();
    }

    /// Returns the connections of this node with their users.
    pub fn connections(&self) -> Vec<(ConnectionId, UserId)> {
        self.0.local.connections()
    }

    /// Returns the number of connections of this node.
    pub fn connected(&self) -> usize {
        self.0.local.connected()
    }

    /// Returns the number of addresses with subscribers on this node.
    pub fn addresses(&self) -> usize {
        self.0.local.rooms()
    }

    // ---- one connection ----

    /// Opens a connection: from here on it receives pushes to itself, to its user and to its session. When
    /// the bus is down, this waits for it up to [`limits::BUS_CONFIRM_WAIT`] and then returns anyway,
    /// because these pushes are best effort.
    pub async fn open_connection(&self, info: ConnectionInfo) -> Arc<Outlet> {
        let own = Address::of_user(&info.user);
        let outlet = self.0.local.open_connection(info);
        if self.0.bus.hold(std::slice::from_ref(&own)).await.is_err() {
            tracing::debug!("connection opened while the bus is down; pushes to its user may be missing");
        }
        outlet
    }

    /// Closes a connection in the hub. It gets no more pushes.
    pub fn close_connection(&self, connection: ConnectionId) {
        self.0.local.close_connection(connection);
    }

    /// Subscribes the connection to the addresses, behind a gate: their pushes are held back until
    /// `open_gates` or `undo_gates`.
    ///
    /// # Errors
    /// `Full` beyond [`limits::SUBSCRIPTIONS_MAX`], `Gone` when the connection has closed, `Unavailable`
    /// without the bus.
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
            // These rooms got no member, so no member will leave them and start the timer that unsubscribes.
            addresses.iter().for_each(|address| self.0.local.leave_idle(address));
        }
        gated
    }

    /// Opens the gates of a call whose reply is in the outlet. Addresses that the call gated and that
    /// `subscriptions` does not list are unsubscribed.
    pub fn open_gates(&self, connection: ConnectionId, subscriptions: &[Subscription]) {
        self.0.local.open_gates(connection, subscriptions);
    }

    /// Undoes the gates of a call that failed: new subscriptions end, and those from before the call
    /// continue.
    pub fn undo_gates(&self, connection: ConnectionId) {
        self.0.local.undo_gates(connection);
    }

    pub fn unsubscribe(&self, connection: ConnectionId, addresses: &[Address]) {
        self.0.local.unsubscribe(connection, addresses);
    }

    // ---- all connections ----

    /// Publishes to the bus, and not to this node's rooms directly: Redis gives the publications of all nodes
    /// one order, so this node receives its own publications through Redis in the same order as every other
    /// node. Returns once Redis has taken all of them, in the order given.
    pub async fn publish(&self, publications: &[Addressed<'_>]) -> Result<(), Error> {
        let packed = pack(publications).map_err(Error::Refused)?;
        if !packed.is_empty() {
            // Announces the span first, so that the spans of the other nodes are in the same trace. It costs
            // one more round trip, for traced calls only.
            for (by, addresses) in self.0.tracer.take_unannounced(packed.iter().map(|(address, _)| address)) {
                let node = self.0.node.uuid();
                let _ =
                    self.0.bus.publish_control(&Envelope::Traced { node, by, shards: 0, addresses }).await;
            }
            self.0.bus.publish(&packed).await?;
        }
        Ok(())
    }

    /// Ends the subscriptions of a user, before any push that is published to the address after this. On this
    /// node they end at once: a page that fills a gap may already depend on the removal, and must not reach
    /// the removed user.
    pub async fn revoke(&self, address: &Address, user: &UserId) -> Result<(), Error> {
        self.0.local.revoke(address, user);
        let message = (address.clone(), Envelope::Revoke(user.clone()).encode());
        Ok(self.0.bus.publish(&[message]).await?)
    }

    /// Sends a frame to one connection: on this node at once, on another node over the bus. A frame for a
    /// closed connection is dropped.
    pub async fn send(&self, connection: ConnectionId, frame: &str) -> Result<(), Error> {
        if frame.len() > limits::FRAME_BYTES_MAX {
            return Err(Error::Refused(format!("a frame of {} bytes is over 64 KiB", frame.len())));
        }
        let frame = encode_text(frame);
        if self.0.local.send(connection, frame.clone()) {
            return Ok(());
        }
        Ok(self.0.bus.publish_control(&Envelope::Send { connection, frame }).await?)
    }

    /// Sends a frame to the connection whose frame is being handled. It follows the reply: `open_gates`
    /// releases it, and `undo_gates` drops it.
    pub fn send_after_reply(&self, connection: ConnectionId, frame: &str) -> Result<(), Error> {
        if frame.len() > limits::FRAME_BYTES_MAX {
            return Err(Error::Refused(format!("a frame of {} bytes is over 64 KiB", frame.len())));
        }
        if self.0.local.send_after_reply(connection, encode_text(frame)) { Ok(()) } else { Err(Error::Gone) }
    }

    /// Closes the target's connections on this node at once. Returns once Redis has taken the message for the
    /// other nodes.
    pub async fn disconnect(&self, target: &Target, close: &Close) -> Result<(), Error> {
        self.0.local.disconnect(target, close);
        let (code, reason) = (close.code(), close.reason().to_owned());
        Ok(self.0.bus.publish_control(&Envelope::Disconnect { target: target.clone(), code, reason }).await?)
    }

    /// Closes the connections of this node whose token `is_meant` selects, and returns their number. Each
    /// node has to do this for its own connections.
    pub fn close_where(&self, close: &Close, is_meant: impl Fn(&Credentials) -> bool) -> usize {
        self.0.local.close_where(close, is_meant)
    }

    // ---- gaps ----

    /// Takes the mailbox of gaps. The receiver answers each gap with `fill` or `give_up`. Later calls return
    /// `None`.
    pub fn gaps(&self) -> Option<mpsc::UnboundedReceiver<Missing>> {
        self.0.gaps.lock().take()
    }

    /// Answers a gap with the handler's page.
    pub fn fill(&self, missing: &Missing, page: Page) {
        self.0.local.fill(missing, &within_bounds(page));
    }

    /// Answers a gap without a page: no handler is bound, or it failed. The room asks again after a wait, up
    /// to [`limits::MISSED_RETRIES_MAX`] times.
    pub fn give_up(&self, missing: &Missing) {
        self.0.local.give_up(missing);
    }
}

impl From<Unavailable> for Error {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

fn receive(local: &Local, wakes: &Wakes, tracer: &Tracer, watches: &Watches, node: NodeId, event: BusEvent) {
    match event {
        BusEvent::Address(address, Envelope::Publications(batch)) => {
            local.deliver(&address, &batch);
            tracer.delivered(&address, batch.items().len());
        }
        BusEvent::Address(address, Envelope::Revoke(user)) => local.revoke(&address, &user),
        BusEvent::Control(Envelope::Disconnect { target, code, reason }) => {
            if let Some(close) = Close::requested(code, &reason) {
                local.disconnect(&target, &close);
            }
        }
        BusEvent::Control(Envelope::Send { connection, frame }) => {
            local.send(connection, frame);
        }
        BusEvent::Control(Envelope::Wake { node: from, shards }) if from != node.uuid() => {
            wakes.set_from_remote(shards);
        }
        BusEvent::Control(Envelope::Traced { node: from, by, shards, addresses }) if from != node.uuid() => {
            tracer.announced(&wakes::shards(shards), addresses, by);
        }
        BusEvent::Control(Envelope::Watch { node: from, watch, filter }) if from != node.uuid() => {
            watches.announced(from, watch, filter);
        }
        BusEvent::Control(Envelope::Watched { watch, dropped, events }) => {
            watches.arrived(watch, dropped, events);
        }
        BusEvent::Reconnected => local.suspect_loss(),
        // The hub's task handles lost publications. An envelope on the wrong kind of channel is ignored.
        BusEvent::Address(..) | BusEvent::Control(_) => {}
    }
}

/// Publishes wakes for the shards of other nodes. Bits that are set during one publication go with the next.
async fn pass_wakes_on(wakes: Wakes, bus: Bus, tracer: Tracer, node: NodeId) {
    loop {
        let shards = wakes.remote_shards().await;
        let node = node.uuid();
        if let Some(by) = tracer.waker(wakes::shards(shards).into_iter()) {
            let _ = bus.publish_control(&Envelope::Traced { node, by, shards, addresses: Vec::new() }).await;
        }
        // An error loses the wake. That is allowed: a wake is a hint, and the tick finds the events.
        let _ = bus.publish_control(&Envelope::Wake { node, shards }).await;
    }
}

/// Cuts a page at the bounds. A handler may answer with more than it was asked for; the room asks for the
/// rest again. A frame that is too large for clients is left out.
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

/// The hub's background task. It waits before it repeats requests for missed pushes, until it unsubscribes
/// from idle addresses, for outlets that have space again, and for announcements of lost publications.
struct HubTask {
    local: Arc<Local>,
    bus: Bus,
    retries: mpsc::UnboundedReceiver<Missing>,
    drained: mpsc::UnboundedReceiver<ConnectionId>,
    emptied: mpsc::UnboundedReceiver<Address>,
    ask: mpsc::UnboundedSender<Missing>,
    /// A node announced that its publications may have reached nobody.
    suspected: Arc<Notify>,
}

impl HubTask {
    async fn run(mut self) {
        let mut due: BTreeMap<(Instant, u64), Missing> = BTreeMap::new();
        let mut idle = Idle::default();
        // After a failover each node of a fleet announces losses. The rooms then ask once and not for each.
        let mut suspect_at = None;
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
                        // The receiver is dropped only when the process ends.
                        let _ = self.ask.send(missing);
                    }
                }
                () = self.suspected.notified(), if suspect_at.is_none() => {
                    suspect_at = Some(Instant::now() + limits::BUS_SUSPECT_WAIT);
                }
                () = at(suspect_at) => {
                    suspect_at = None;
                    self.local.suspect_loss();
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

/// Addresses without members, in the order in which the last member left. An address that loses its last
/// member again while it waits is not added a second time.
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
        self.since.front().map(|(since, _)| *since + limits::BUS_IDLE_WAIT)
    }

    /// Takes the addresses that have waited for [`limits::BUS_IDLE_WAIT`].
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
