//! The outlet: the bounded queue of frames to one connection. Rooms put encoded frames in, and the gateway
//! takes them out when the socket has space. Neither side waits for the other. An empty outlet holds no
//! queue, because most connections are idle.
//!
//! The outlet does not know positions. When it refuses a push, the room remembers up to where the subscriber
//! has pushes.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio::time::Instant;

use switchboard_core::ids::{Address, ConnectionId, UserId};
use switchboard_core::limits;
use switchboard_protocol::session::Credentials;
use switchboard_protocol::wire::close::Close;

/// The identity of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    pub connection: ConnectionId,
    pub user: UserId,
    /// The session of the token. A forced disconnect may name it.
    pub session: Arc<str>,
}

/// State of the outlet after a `take`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing.
    All,
    /// More frames. The gateway takes them after it has written these.
    More,
    /// Nothing, and no frame will follow. The gateway closes the connection.
    Close(Close),
}

/// The queue of frames to one connection, shared by the hub and the gateway.
pub struct Outlet {
    info: ConnectionInfo,
    state: Mutex<State>,
    /// Gets the connection when addresses wait here and the queue has space again.
    drained: mpsc::UnboundedSender<ConnectionId>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    bytes: usize,
    /// Bytes reserved for pages that were requested and have not arrived.
    reserved: usize,
    /// The number of frames in the queue that may be dropped.
    droppable: usize,
    waker: Option<Waker>,
    closing: Option<Box<Close>>,
    /// Addresses whose next page waits for space, in order of arrival. Boxed, because few connections ever
    /// have one.
    #[allow(clippy::box_collection)]
    waiting: Option<Box<VecDeque<Address>>>,
    /// The hub was notified that there is space, and has not called `next_waiting` yet.
    drain_notified: bool,
    /// When a frame was refused, unless the client has read something since.
    full_since: Option<Instant>,
    /// The content hash of the last droppable push, and its time. Boxed, because most connections never get
    /// one.
    last_droppable: Option<Box<(u64, Instant)>>,
    /// The credentials of the present token, once the gateway has set them. A revocation finds the connection
    /// by them.
    token: Option<Arc<Credentials>>,
}

struct Queued {
    frame: Bytes,
    /// Not zero: may be dropped, or replaced by a newer one with the same key.
    merge_key: u64,
}

impl Outlet {
    pub fn new(info: ConnectionInfo, drained: mpsc::UnboundedSender<ConnectionId>) -> Self {
        Self { info, state: Mutex::default(), drained }
    }

    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    // ---- the gateway's side ----

    /// Replaces the credentials of this connection.
    pub fn set_token(&self, token: Arc<Credentials>) {
        self.lock().token = Some(token);
    }

    /// The credentials of the present token, once the gateway has set them.
    pub fn token(&self) -> Option<Arc<Credentials>> {
        self.lock().token.clone()
    }

    /// Resolves when there is something to take, including a close. Cancel safe. One task at a time may wait.
    pub async fn ready(&self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }

    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.queue.is_empty() || state.closing.is_some() {
            return Poll::Ready(());
        }
        state.register_waker(cx);
        Poll::Pending
    }

    /// Resolves only for a close. For a connection whose socket takes no bytes, so that frames cannot be
    /// written anyway.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Close> {
        let mut state = self.lock();
        if let Some(closing) = &state.closing {
            return Poll::Ready(Close::clone(closing));
        }
        state.register_waker(cx);
        Poll::Pending
    }

    /// Moves frames into `into`, in order, until at least `bytes_max` bytes are moved. The gateway calls this
    /// after it has written the frames of the last call, so each call tells the outlet that the client reads.
    pub fn take(&self, into: &mut Vec<Bytes>, bytes_max: usize) -> Taken {
        let mut state = self.lock();
        let mut moved = 0;
        while moved < bytes_max
            && let Some(queued) = state.queue.pop_front()
        {
            moved += queued.frame.len();
            state.droppable -= usize::from(queued.merge_key != 0);
            if !queued.frame.is_empty() {
                into.push(queued.frame);
            }
        }
        state.bytes -= moved;
        if state.queue.is_empty() && state.queue.capacity() > 4 {
            state.queue = VecDeque::new();
        }
        let still_behind = state.full_since.is_some() && state.bytes > 0;
        state.full_since = still_behind.then(Instant::now);
        self.notify_if_drained(&mut state);
        match &state.closing {
            _ if !state.queue.is_empty() => Taken::More,
            Some(closing) => Taken::Close(Close::clone(closing)),
            None => Taken::All,
        }
    }

    /// Queues a reply here, and not on the socket directly, because the queue gives replies and pushes one
    /// order: the reply to a `subscribe` must precede the pushes of that subscription, and must follow the
    /// frames that were queued before it. A reply is never refused. When unread frames exceed
    /// [`limits::QUEUE_BYTES_HARD`], the connection is closed with 4008.
    pub fn push_reply(&self, frame: Bytes) {
        self.push(frame);
    }

    /// Returns true when the client should read before the gateway takes further frames from it.
    pub fn is_full(&self) -> bool {
        self.lock().bytes >= limits::QUEUE_BYTES_MAX
    }

    /// Returns since when the queue has been full while the client read nothing. After `stall_ms` the gateway
    /// closes the connection with 4008.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.lock().full_since
    }

    /// Closes the connection after the frames that are queued. Later frames are dropped. Only the first close
    /// counts.
    pub fn close(&self, close: Close) {
        let mut state = self.lock();
        state.close(close);
        wake(state);
    }

    // ---- the hub's side ----

    /// Queues a frame that the client cannot ask for again: a reply, or a push with neither position nor
    /// merge key. Over [`limits::QUEUE_BYTES_HARD`] the connection is closed instead.
    pub fn push(&self, frame: Bytes) {
        let mut state = self.lock();
        if state.closing.is_some() {
            return;
        }
        if state.bytes + frame.len() > limits::QUEUE_BYTES_MAX {
            state.drop_droppable();
            state.full_since.get_or_insert_with(Instant::now);
        }
        if state.bytes + frame.len() > limits::QUEUE_BYTES_HARD {
            // A client that reconnects resumes from known positions. A frame left out here would never be
            // noticed.
            state.close(Close::TOO_SLOW);
        } else {
            state.append(frame, 0);
        }
        wake(state);
    }

    /// Returns a hash of a droppable push. The merge key is not part of it, because it differs in each room.
    pub(super) fn content_hash(frame: &Bytes) -> u64 {
        let mut hasher = DefaultHasher::new();
        frame.hash(&mut hasher);
        hasher.finish()
    }

    /// Queues a push that may be dropped. While the client is slow, only the newest push of each merge key
    /// stays queued. A push with the same content that arrives again through another room is left out.
    pub(super) fn push_droppable(&self, frame: Bytes, merge_key: u64, content_hash: u64) {
        let mut state = self.lock();
        if state.closing.is_some() || state.is_repeated(content_hash) {
            return;
        }
        if state.bytes > limits::QUEUE_MERGE_BYTES && state.droppable > 0 {
            state.drop_older(merge_key);
        }
        if state.bytes + frame.len() > limits::QUEUE_BYTES_MAX {
            metrics::counter!("switchboard_fanout_dropped_total", "reason" => "slow reader").increment(1);
            return;
        }
        state.append(frame, merge_key);
        wake(state);
    }

    /// Queues a push that the room can ask for again. Returns false when the queue has no space: then the
    /// room remembers the subscriber's positions, and `next_waiting` returns the address once there is space
    /// for a page.
    #[must_use]
    pub(super) fn push_durable(&self, frame: &Bytes, address: &Address) -> bool {
        let mut state = self.lock();
        if state.closing.is_some() {
            // The connection is about to close; the client resumes on another one.
            return true;
        }
        if state.bytes + frame.len() > limits::QUEUE_BYTES_MAX && state.droppable > 0 {
            state.drop_droppable();
        }
        if state.bytes + frame.len() > limits::QUEUE_BYTES_MAX {
            state.full_since.get_or_insert_with(Instant::now);
            state.wait(address);
            return false;
        }
        state.append(frame.clone(), 0);
        wake(state);
        true
    }

    /// Reserves space for one page. Returns false when there is none; then the address waits for it.
    #[must_use]
    pub(super) fn reserve_page(&self, address: &Address) -> bool {
        let mut state = self.lock();
        let has_room = state.has_room_for_page();
        if has_room {
            state.reserved += limits::PAGE_BYTES_MAX;
        } else {
            state.wait(address);
        }
        has_room
    }

    /// Gives back the space of one page, which has arrived or will not arrive.
    pub(super) fn release_page(&self) {
        let mut state = self.lock();
        state.reserved = state.reserved.saturating_sub(limits::PAGE_BYTES_MAX);
        self.notify_if_drained(&mut state);
    }

    /// Takes the address that has waited longest, when there is space for its page.
    pub(super) fn next_waiting(&self) -> Option<Address> {
        let mut state = self.lock();
        state.drain_notified = false;
        if !state.has_room_for_page() {
            return None;
        }
        let waiting = state.waiting.as_mut()?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            state.waiting = None;
        }
        next
    }

    fn notify_if_drained(&self, state: &mut State) {
        if state.waiting.is_some() && !state.drain_notified && state.has_room_for_page() {
            state.drain_notified = true;
            // The hub calls `next_waiting` until that returns `None`. Only at the end of the process the hub
            // is gone.
            let _ = self.drained.send(self.info.connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Wakes the gateway's task, outside the lock and once for each burst: the task registers its waker again
/// only when it has seen the queue empty.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl State {
    fn append(&mut self, frame: Bytes, merge_key: u64) {
        self.bytes += frame.len();
        self.droppable += usize::from(merge_key != 0);
        self.queue.push_back(Queued { frame, merge_key });
    }

    fn is_repeated(&mut self, content_hash: u64) -> bool {
        let now = Instant::now();
        match &mut self.last_droppable {
            Some(last_droppable)
                if last_droppable.0 == content_hash
                    && now.duration_since(last_droppable.1) < limits::DROPPABLE_REPEAT_WINDOW =>
            {
                return true;
            }
            Some(last_droppable) => **last_droppable = (content_hash, now),
            None => self.last_droppable = Some(Box::new((content_hash, now))),
        }
        false
    }

    fn drop_droppable(&mut self) {
        let before = self.queue.len();
        self.queue.retain(|queued| queued.merge_key == 0);
        self.bytes = self.queue.iter().map(|queued| queued.frame.len()).sum();
        self.droppable = 0;
        metrics::counter!("switchboard_fanout_dropped_total", "reason" => "slow reader")
            .increment((before - self.queue.len()) as u64);
    }

    fn drop_older(&mut self, merge_key: u64) {
        if let Some(place) = self.queue.iter().rposition(|queued| queued.merge_key == merge_key)
            && let Some(older) = self.queue.remove(place)
        {
            self.bytes -= older.frame.len();
            self.droppable -= 1;
            metrics::counter!("switchboard_fanout_dropped_total", "reason" => "merged").increment(1);
        }
    }

    fn register_waker(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    fn close(&mut self, close: Close) {
        self.closing.get_or_insert_with(|| Box::new(close));
    }

    fn has_room_for_page(&self) -> bool {
        self.bytes + self.reserved + limits::PAGE_BYTES_MAX <= limits::QUEUE_BYTES_MAX
    }

    fn wait(&mut self, address: &Address) {
        self.waiting.get_or_insert_default().push_back(address.clone());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use switchboard_protocol::wire::websocket::encode_text;

    struct Reader {
        outlet: Arc<Outlet>,
        drained: mpsc::UnboundedReceiver<ConnectionId>,
    }

    impl Reader {
        fn new() -> Self {
            let info = ConnectionInfo {
                connection: ConnectionId::random(),
                user: UserId::parse("ana").unwrap(),
                session: "s".into(),
            };
            let (notify, drained) = mpsc::unbounded_channel();
            Self { outlet: Arc::new(Outlet::new(info, notify)), drained }
        }

        fn reads(&self, bytes_max: usize) -> (Vec<Bytes>, Taken) {
            let mut frames = Vec::new();
            let taken = self.outlet.take(&mut frames, bytes_max);
            (frames, taken)
        }

        fn reads_all(&self) -> Vec<Bytes> {
            self.reads(usize::MAX).0
        }
    }

    fn frame(of: u8, bytes: usize) -> Bytes {
        vec![of; bytes].into()
    }

    fn lobby() -> Address {
        Address::parse("conv:lobby").unwrap()
    }

    #[test]
    fn frames_come_out_in_the_order_they_went_in() {
        let ana = Reader::new();
        assert!(ana.outlet.ready().now_or_never().is_none());
        ana.outlet.push_reply(encode_text("{}"));
        assert!(ana.outlet.push_durable(&frame(1, 10), &lobby()));
        ana.outlet.push_droppable(frame(2, 10), 7, 101);
        assert!(ana.outlet.ready().now_or_never().is_some());
        assert_eq!(ana.reads(14), (vec![encode_text("{}"), frame(1, 10)], Taken::More));
        assert_eq!(ana.reads(100), (vec![frame(2, 10)], Taken::All));
        assert!(ana.outlet.ready().now_or_never().is_none());
    }

    #[test]
    fn a_slow_reader_keeps_only_the_newest_of_a_key() {
        let ana = Reader::new();
        ana.outlet.push_droppable(frame(1, 10), 7, 102);
        ana.outlet.push_droppable(frame(2, 10), 7, 103);
        assert_eq!(ana.reads_all().len(), 2, "a reader that keeps up gets both");

        ana.outlet.push(frame(0, limits::QUEUE_MERGE_BYTES + 1));
        ana.outlet.push_droppable(frame(1, 10), 7, 104);
        ana.outlet.push_droppable(frame(2, 10), 8, 105);
        ana.outlet.push_droppable(frame(3, 10), 7, 106);
        assert_eq!(ana.reads_all()[1..], [frame(2, 10), frame(3, 10)]);
    }

    #[test]
    fn the_same_push_through_several_rooms_is_delivered_once() {
        let ana = Reader::new();
        let pushes = |of: u8, key: u64| {
            let frame = frame(of, 10);
            let content_hash = Outlet::content_hash(&frame);
            ana.outlet.push_droppable(frame, key, content_hash);
        };
        pushes(1, 7);
        pushes(1, 8);
        pushes(2, 7);
        // After another push, the first one is delivered again.
        pushes(1, 7);
        assert_eq!(ana.reads_all(), [frame(1, 10), frame(2, 10), frame(1, 10)]);
    }

    #[test]
    fn what_may_be_dropped_makes_room_for_what_may_not() {
        let ana = Reader::new();
        let half = limits::QUEUE_BYTES_MAX / 2;
        ana.outlet.push_droppable(frame(1, half), 7, 107);
        assert!(ana.outlet.push_durable(&frame(2, half), &lobby()));
        assert!(ana.outlet.push_durable(&frame(3, half), &lobby()), "the droppable one went");
        ana.outlet.push_droppable(frame(4, 1), 8, 108);
        assert_eq!(ana.reads_all(), [frame(2, half), frame(3, half)]);
    }

    #[test]
    fn a_full_queue_refuses_the_durable_and_calls_when_there_is_room_for_a_page() {
        let mut ana = Reader::new();
        let eighth = limits::QUEUE_BYTES_MAX / 8;
        for _ in 0..8 {
            assert!(ana.outlet.push_durable(&frame(1, eighth), &lobby()));
        }
        assert!(ana.outlet.is_full() && ana.outlet.stalled_since().is_none());
        assert!(!ana.outlet.push_durable(&frame(2, 1), &lobby()), "one past the bound");
        assert!(ana.outlet.stalled_since().is_some());

        ana.reads(eighth);
        assert!(ana.drained.try_recv().is_err(), "not yet room for a page");
        assert_eq!(ana.outlet.next_waiting(), None);
        ana.reads(eighth);
        assert_eq!(ana.drained.try_recv(), Ok(ana.outlet.info().connection));
        assert_eq!(ana.outlet.next_waiting(), Some(lobby()));
        ana.reads_all();
        assert!(ana.outlet.stalled_since().is_none());
    }

    #[test]
    fn pages_are_promised_only_as_many_as_fit() {
        let mut ana = Reader::new();
        for _ in 0..limits::QUEUE_BYTES_MAX / limits::PAGE_BYTES_MAX {
            assert!(ana.outlet.reserve_page(&lobby()));
        }
        assert!(!ana.outlet.reserve_page(&lobby()));
        assert!(ana.drained.try_recv().is_err());
        ana.outlet.release_page();
        assert!(ana.drained.try_recv().is_ok());
    }

    #[test]
    fn a_reader_that_lets_replies_pile_up_is_closed() {
        let ana = Reader::new();
        for _ in 0..limits::QUEUE_BYTES_HARD / limits::PAGE_BYTES_MAX {
            ana.outlet.push(frame(1, limits::PAGE_BYTES_MAX));
        }
        assert_eq!(ana.outlet.lock().closing, None);
        ana.outlet.push(frame(2, 1));
        let (frames, taken) = ana.reads(usize::MAX);
        assert_eq!(frames.len(), 8);
        assert_eq!(taken, Taken::Close(Close::TOO_SLOW));
    }

    #[test]
    fn a_close_comes_after_what_was_queued_and_before_nothing() {
        let ana = Reader::new();
        ana.outlet.push_reply(encode_text("{}"));
        ana.outlet.close(Close::DISCONNECTED);
        ana.outlet.close(Close::DRAINING);
        ana.outlet.push_reply(encode_text("{}"));
        assert!(ana.outlet.ready().now_or_never().is_some());
        let (frames, taken) = ana.reads(usize::MAX);
        assert_eq!(frames.len(), 1);
        assert_eq!(taken, Taken::Close(Close::DISCONNECTED));
    }

    #[test]
    fn an_idle_outlet_is_small() {
        assert!(size_of::<Outlet>() <= 224, "{}", size_of::<Outlet>());
    }
}
