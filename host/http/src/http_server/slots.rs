//! The connections of a listener, and which one it closes when it needs room for another.
//!
//! The listener can close a connection that waits for its client only: it has sent no request yet, is idle,
//! does not read its answer, or sends a body slowly. A request that is being handled is never ended for
//! another connection. Connections without a signed-in user are counted for each remote address, HTTP
//! connections and WebSockets together.
//!
//! All times are milliseconds since the listener began, so that a phase and its time fit into two atomics.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use switchboard_core::limits::{
    DROPPED_AFTER_MIN, LARGE_ANSWER_BYTES_MIN, LARGE_ANSWERS_BYTES_MAX, REQUEST_HEAD_WAIT, SLOTS_CHECK_EVERY,
};

/// The phase of a connection. Connections are closed for others in this order; [`Phase::Handling`] is never
/// closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The head of its next request is not complete. For a WebSocket: no user has signed in.
    Head,
    /// Its client has read the last answer.
    Idle,
    /// Its client has not read the last answer yet.
    Unread,
    /// The client sends the body of a request.
    Body,
    Handling,
}

impl Phase {
    const CLOSABLE: [Self; 4] = [Self::Head, Self::Idle, Self::Unread, Self::Body];

    fn of(number: u8) -> Self {
        *Self::CLOSABLE.get(usize::from(number)).unwrap_or(&Self::Handling)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    WebSocket,
}

/// An IPv4 address, or the network of an IPv6 address: one subscriber has a whole /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address => address,
        })
    }
}

pub struct Slots {
    /// The maximum of HTTP connections. WebSockets without a user are bounded by the gateway's
    /// `connections_max`.
    connections_max: usize,
    /// The maximum of connections of one address without a signed-in user. 0 means no bound.
    per_address_max: usize,
    began: Instant,
    inner: Mutex<Inner>,
    /// Notified when a connection has ended. The task that accepts waits for it.
    freed: Notify,
    /// Added to the time.
    #[cfg(test)]
    skew_ms: AtomicU64,
}

#[derive(Default)]
struct Inner {
    next_id: u64,
    connections: usize,
    entries: HashMap<u64, Entry>,
    /// The connections that can be closed, by kind.
    http: BTreeSet<Rank>,
    websockets: BTreeSet<Rank>,
    /// Connections with a large unread answer.
    unread: BTreeSet<Rank>,
    unread_bytes: usize,
    addresses: HashMap<Address, OfAddress>,
}

/// The phase, since when, and the id of a connection.
type Rank = (Phase, u64, u64);

struct Entry {
    kind: Kind,
    phase: Phase,
    since_ms: u64,
    /// Set until a user has signed in.
    address: Option<Address>,
    /// The bytes of an unread answer that is large enough to count.
    unread_bytes: usize,
    shared: Arc<Shared>,
    /// Dropped when the connection ends or is closed for another.
    held: Option<Held>,
}

/// The resource that a connection without a user holds besides its slot.
pub type Held = Box<dyn Send>;

#[derive(Default)]
struct OfAddress {
    connections: usize,
    closable: BTreeSet<Rank>,
}

struct Shared {
    slots: Arc<Slots>,
    id: u64,
    phase: AtomicU8,
    since_ms: AtomicU64,
    is_dropped: AtomicBool,
    dropped: AtomicWaker,
    written: AtomicWaker,
}

/// The slot of one connection. Dropping it frees the slot.
pub struct Slot(Arc<Shared>);

impl Slots {
    pub fn new(connections_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self {
            connections_max,
            per_address_max,
            began: Instant::now(),
            inner: Mutex::default(),
            freed: Notify::new(),
            #[cfg(test)]
            skew_ms: AtomicU64::new(0),
        })
    }

    /// Takes a slot for an HTTP connection. When all slots are taken, the oldest connection that waits for
    /// its client is closed. When there is none, this waits.
    pub async fn admit(self: &Arc<Self>, remote: IpAddr) -> Slot {
        loop {
            {
                let mut inner = self.lock();
                if inner.connections < self.connections_max
                    || inner.drop_oldest(Kind::Http, self.closable_since())
                {
                    return self.enter(&mut inner, Kind::Http, remote.into(), None);
                }
            }
            tokio::select! {
                () = self.freed.notified() => {}
                // By then, connections may have become old enough to be closed.
                () = sleep(SLOTS_CHECK_EVERY) => {}
            }
        }
    }

    /// Takes a slot for a WebSocket without a user. It keeps `held` until it ends, is closed for another, or
    /// a user signs in.
    pub fn anonymous(self: &Arc<Self>, remote: IpAddr, held: Held) -> Slot {
        self.enter(&mut self.lock(), Kind::WebSocket, remote.into(), Some(held))
    }

    /// Closes the oldest WebSocket without a user. Returns false when none is old enough.
    pub fn drop_anonymous(&self) -> bool {
        self.lock().drop_oldest(Kind::WebSocket, self.closable_since())
    }

    fn enter(self: &Arc<Self>, inner: &mut Inner, kind: Kind, address: Address, held: Option<Held>) -> Slot {
        if self.per_address_max > 0 {
            inner.bound_address(address, self.per_address_max, self.closable_since());
        }
        let (id, since_ms) = (inner.next_id, self.now_ms());
        inner.next_id += 1;
        let shared = Arc::new(Shared {
            slots: self.clone(),
            id,
            phase: AtomicU8::new(Phase::Head as u8),
            since_ms: AtomicU64::new(since_ms),
            is_dropped: AtomicBool::new(false),
            dropped: AtomicWaker::new(),
            written: AtomicWaker::new(),
        });
        inner.connections += usize::from(kind == Kind::Http);
        inner.addresses.entry(address).or_default().connections += 1;
        let entry = Entry {
            kind,
            phase: Phase::Handling,
            since_ms,
            address: Some(address),
            unread_bytes: 0,
            shared: shared.clone(),
            held,
        };
        inner.entries.insert(id, entry);
        inner.set(id, Phase::Head, since_ms);
        Slot(shared)
    }

    fn now_ms(&self) -> u64 {
        let now_ms = self.began.elapsed().as_millis() as u64;
        #[cfg(test)]
        let now_ms = now_ms + self.skew_ms.load(Ordering::Relaxed);
        now_ms
    }

    /// Younger connections are not closed for others, because their bytes may be on the way.
    fn closable_since(&self) -> Option<u64> {
        self.now_ms().checked_sub(DROPPED_AFTER_MIN.as_millis() as u64)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Inner {
    /// Moves a connection to another phase.
    fn set(&mut self, id: u64, phase: Phase, since_ms: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (before, after) = ((entry.phase, entry.since_ms, id), (phase, since_ms, id));
        (entry.phase, entry.since_ms) = (phase, since_ms);
        entry.shared.phase.store(phase as u8, Ordering::Release);
        entry.shared.since_ms.store(since_ms, Ordering::Release);
        let of_kind = match entry.kind {
            Kind::Http => &mut self.http,
            Kind::WebSocket => &mut self.websockets,
        };
        let of_address = entry.address.and_then(|address| self.addresses.get_mut(&address));
        for closable in [Some(of_kind), of_address.map(|it| &mut it.closable)].into_iter().flatten() {
            closable.remove(&before);
            if phase != Phase::Handling {
                closable.insert(after);
            }
        }
    }

    /// Removes a connection that ends. The caller gets what it held, and drops it outside the lock.
    fn remove(&mut self, id: u64) -> Option<Entry> {
        self.read(id);
        self.set(id, Phase::Handling, 0);
        self.sign_in(id);
        let entry = self.entries.remove(&id)?;
        self.connections -= usize::from(entry.kind == Kind::Http);
        Some(entry)
    }

    /// Stops counting the connection for its address.
    fn sign_in(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(address) = entry.address.take() else { return };
        let Some(of_address) = self.addresses.get_mut(&address) else { return };
        of_address.closable.remove(&(entry.phase, entry.since_ms, id));
        of_address.connections -= 1;
        if of_address.connections == 0 {
            self.addresses.remove(&address);
        }
    }

    /// Stops counting the connection's answer as unread.
    fn read(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.unread_bytes > 0 {
            self.unread_bytes -= std::mem::take(&mut entry.unread_bytes);
            self.unread.remove(&(entry.phase, entry.since_ms, id));
        }
    }

    /// Closes the oldest connection of the first phase that has one old enough.
    fn drop_oldest(&mut self, kind: Kind, since: Option<u64>) -> bool {
        let closable = match kind {
            Kind::Http => &self.http,
            Kind::WebSocket => &self.websockets,
        };
        match oldest(closable, since) {
            Some(id) => self.drop_now(id, "full"),
            None => false,
        }
    }

    /// Closes the oldest connections of an address until there is room for one more, as far as they are old
    /// enough.
    fn bound_address(&mut self, address: Address, connections_max: usize, since: Option<u64>) {
        while let Some(of_address) = self.addresses.get(&address)
            && of_address.connections >= connections_max
            && let Some(id) = oldest(&of_address.closable, since)
        {
            self.drop_now(id, "address");
        }
    }

    fn drop_now(&mut self, id: u64, why: &'static str) -> bool {
        let Some(entry) = self.remove(id) else { return false };
        entry.shared.is_dropped.store(true, Ordering::Release);
        entry.shared.dropped.wake();
        metrics::counter!("switchboard_connections_dropped_total", "why" => why).increment(1);
        true
    }
}

/// Returns the first connection that was in its phase at `since`, by phase and then by time.
fn oldest(closable: &BTreeSet<Rank>, since: Option<u64>) -> Option<u64> {
    let since = since?;
    Phase::CLOSABLE
        .into_iter()
        .find_map(|phase| closable.range((phase, 0, 0)..=(phase, since, u64::MAX)).next())
        .map(|(_, _, id)| *id)
}

impl Slot {
    /// Ready when the slot was given to another connection. Only one task may poll.
    pub fn poll_dropped(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.dropped.register(cx.waker());
        if self.0.is_dropped.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    pub async fn dropped(&self) {
        poll_fn(|cx| self.poll_dropped(cx)).await;
    }

    /// A user has signed in: stops counting the connection for its address, and returns what the slot held.
    pub fn sign_in(&self) -> Option<Held> {
        let mut inner = self.0.slots.lock();
        inner.sign_in(self.0.id);
        inner.entries.get_mut(&self.0.id)?.held.take()
    }

    /// Marks that the body of the present request is being read; [`Slot::handling`] ends it.
    pub fn reading_body(&self) {
        self.set(Phase::Body);
    }

    pub fn handling(&self) {
        if self.phase() != Phase::Handling {
            self.set(Phase::Handling);
        }
    }

    /// When the connection must close unless its client does something; `None` while the client may wait.
    pub(super) fn due(&self, keep_alive: Duration) -> Option<Instant> {
        let wait = match self.phase() {
            Phase::Head => REQUEST_HEAD_WAIT,
            Phase::Idle => keep_alive,
            // The time-outs of a write and of a body, and the deadline of a call, end these.
            Phase::Unread | Phase::Body | Phase::Handling => return None,
        };
        let since = Duration::from_millis(self.0.since_ms.load(Ordering::Acquire));
        Some(self.0.slots.began + since + wait)
    }

    /// Bytes arrived. On an idle connection they begin the next request.
    pub(super) fn received_bytes(&self) {
        if self.phase() == Phase::Idle {
            self.set(Phase::Head);
        }
    }

    /// The answer is being sent. Returns false when it does not fit: large unread answers have their own
    /// bound, and at the bound the connections that wait longest are closed.
    pub(super) fn answered(&self, bytes: usize) -> bool {
        let mut inner = self.0.slots.lock();
        inner.set(self.0.id, Phase::Unread, self.0.slots.now_ms());
        if bytes < LARGE_ANSWER_BYTES_MIN {
            return true;
        }
        while inner.unread_bytes + bytes > LARGE_ANSWERS_BYTES_MAX {
            let Some(id) = oldest(&inner.unread, self.0.slots.closable_since()) else { return false };
            inner.drop_now(id, "unread");
        }
        if let Some(entry) = inner.entries.get_mut(&self.0.id) {
            entry.unread_bytes = bytes;
            let rank = (entry.phase, entry.since_ms, self.0.id);
            inner.unread_bytes += bytes;
            inner.unread.insert(rank);
        }
        true
    }

    /// The kernel has taken all written bytes.
    pub(super) fn written(&self) {
        if self.phase() == Phase::Unread {
            let mut inner = self.0.slots.lock();
            inner.read(self.0.id);
            inner.set(self.0.id, Phase::Idle, self.0.slots.now_ms());
            drop(inner);
            self.0.written.wake();
        }
    }

    /// Waits until the client has read the previous answer.
    pub(super) async fn until_written(&self) {
        poll_fn(|cx| {
            self.0.written.register(cx.waker());
            if self.phase() == Phase::Unread { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    fn phase(&self) -> Phase {
        Phase::of(self.0.phase.load(Ordering::Acquire))
    }

    fn set(&self, phase: Phase) {
        self.0.slots.lock().set(self.0.id, phase, self.0.slots.now_ms());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let ended = self.0.slots.lock().remove(self.0.id);
        if ended.is_some() {
            self.0.slots.freed.notify_one();
        }
    }
}

#[cfg(test)]
impl Slots {
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    fn advance(&self, by: Duration) {
        self.skew_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::timeout;

    use super::*;

    const ANA: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const BO: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn is_dropped(slot: &Slot) -> bool {
        slot.0.is_dropped.load(Ordering::Acquire)
    }

    #[tokio::test]
    async fn connections_are_closed_in_the_order_of_their_phases_and_the_oldest_first() {
        let slots = Slots::new(5, 0);
        let handled = slots.admit(ANA).await;
        handled.handling();
        let (body, unread, idle) = (slots.admit(ANA).await, slots.admit(ANA).await, slots.admit(ANA).await);
        body.reading_body();
        assert!(unread.answered(1) && idle.answered(1));
        idle.written();
        slots.advance(Duration::from_millis(10));
        let silent = slots.admit(BO).await;
        slots.advance(DROPPED_AFTER_MIN);
        let mut later = Vec::new();
        for dropped in [&silent, &idle, &unread, &body] {
            assert!(!is_dropped(dropped));
            let next = slots.admit(BO).await;
            next.handling();
            later.push(next);
            assert!(is_dropped(dropped));
        }
        assert!(!is_dropped(&handled));
        // No connection waits for its client: the next one waits until another ends.
        assert!(timeout(2 * SLOTS_CHECK_EVERY, slots.admit(BO)).await.is_err(), "there is no slot");
        drop(handled);
        slots.admit(BO).await;
        drop((silent, idle, unread, body, later));
        let inner = slots.lock();
        assert!(inner.entries.is_empty() && inner.addresses.is_empty() && inner.http.is_empty());
        assert_eq!((inner.connections, inner.unread_bytes), (0, 0));
    }

    #[tokio::test]
    async fn a_connection_is_due_after_the_wait_of_its_phase() {
        let keep_alive = Duration::from_secs(75);
        let slots = Slots::new(5, 0);
        let slot = slots.admit(ANA).await;
        let waits = || {
            let due = slot.due(keep_alive)?.duration_since(slots.began).as_millis() as u64;
            Some(Duration::from_millis(due - slots.now_ms()).as_secs_f64().round() as u64)
        };
        slots.advance(Duration::from_secs(10));
        slot.received_bytes();
        // The first bytes of a head do not extend its time.
        assert_eq!(waits(), Some(REQUEST_HEAD_WAIT.as_secs() - 10));
        slot.handling();
        assert_eq!(waits(), None);
        slot.answered(1);
        assert_eq!(waits(), None);
        slots.advance(Duration::from_secs(100));
        slot.written();
        assert_eq!(waits(), Some(75));
        slots.advance(Duration::from_secs(60));
        slot.received_bytes();
        assert_eq!(waits(), Some(REQUEST_HEAD_WAIT.as_secs()));
    }

    #[tokio::test]
    async fn an_address_is_bounded_until_somebody_signs_in() {
        let slots = Slots::new(100, 2);
        let (first, second) = (slots.admit(ANA).await, slots.admit(ANA).await);
        // A burst is admitted.
        let third = slots.admit(ANA).await;
        assert!(!is_dropped(&first));
        slots.advance(DROPPED_AFTER_MIN);
        let socket = slots.anonymous(ANA, Box::new(()));
        assert!(is_dropped(&first) && is_dropped(&second) && !is_dropped(&third));
        // Other addresses have their own bound.
        let bo = slots.admit(BO).await;
        assert!(third.sign_in().is_none() && socket.sign_in().is_some());
        slots.advance(DROPPED_AFTER_MIN);
        let more = [slots.admit(ANA).await, slots.admit(ANA).await];
        assert!(![&third, &socket, &bo, &more[0], &more[1]].into_iter().any(is_dropped));
    }

    #[tokio::test]
    async fn an_anonymous_socket_returns_at_once_what_it_holds() {
        let slots = Slots::new(100, 0);
        let held = Arc::new(());
        let slot = slots.anonymous(ANA, Box::new(held.clone()));
        assert!(!slots.drop_anonymous(), "it is too young");
        slots.advance(DROPPED_AFTER_MIN);
        assert!(slots.drop_anonymous() && is_dropped(&slot));
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(slot.sign_in().is_none());
        let slot = slots.anonymous(ANA, Box::new(held.clone()));
        let held_now = slot.sign_in();
        slots.advance(DROPPED_AFTER_MIN);
        drop(slot);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(held_now);
    }

    #[test]
    fn the_network_of_an_ipv6_address_is_one_address() {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
        assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
    }
}
