//! What is on its way to one connection. Rooms put encoded frames in, the gateway takes them out when the socket has
//! room; neither waits for the other. It costs nothing while it is empty, for most connections are idle.
//!
//! It does not know what was delivered to whom: a room that is refused here remembers where its reader stands.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::ids::{Address, ConnectionId, UserId};
use crate::limits;
use crate::session::Credentials;
use crate::wire::close::Close;
use crate::wire::websocket::encode_text;

/// Who sits at a connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    pub connection: ConnectionId,
    pub user: UserId,
    /// The token's session: what a forced disconnect may name.
    pub session: Arc<str>,
}

/// What `take` left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    All,
    /// There is more; take again when this is written.
    More,
    /// That was all, and nothing will follow: say goodbye.
    Close(Close),
}

pub struct Outlet {
    info: ConnectionInfo,
    state: Mutex<State>,
    /// Told when addresses wait here and there is room again.
    drained: mpsc::UnboundedSender<ConnectionId>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    bytes: usize,
    /// Room promised to pages that were asked for and have not come.
    reserved: usize,
    /// How many in the queue may be dropped.
    droppable: usize,
    waker: Option<Waker>,
    closing: Option<Box<Close>>,
    /// Addresses whose next page waits for room, first come first served. Boxed: hardly any connection ever has one.
    #[allow(clippy::box_collection)]
    waiting: Option<Box<VecDeque<Address>>>,
    /// The hub was told that there is room, and has not come yet.
    told: bool,
    /// When something was refused, unless something was read since.
    full_since: Option<Instant>,
    /// The last droppable word, and when. Boxed: most connections never hear one.
    said: Option<Box<(u64, Instant)>>,
    /// The present token's, once the gateway has said so: a revocation finds the connection by it.
    token: Option<Arc<Credentials>>,
}

/// Who is told the same through several rooms is told within this time.
const SAID_ONCE: Duration = Duration::from_secs(1);

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

    /// Whose token this connection goes by from here on.
    pub fn hold(&self, token: Arc<Credentials>) {
        self.lock().token = Some(token);
    }

    pub(crate) fn token(&self) -> Option<Arc<Credentials>> {
        self.lock().token.clone()
    }

    /// Resolves when there is something to take, a close included. Cancel safe; for one task at a time.
    pub async fn ready(&self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }

    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.queue.is_empty() || state.closing.is_some() {
            return Poll::Ready(());
        }
        state.listen(cx);
        Poll::Pending
    }

    /// For a reader whose peer takes nothing: only the end is news to it.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Close> {
        let mut state = self.lock();
        if let Some(closing) = &state.closing {
            return Poll::Ready(Close::clone(closing));
        }
        state.listen(cx);
        Poll::Pending
    }

    /// Moves frames, in order, until at least `bytes_max` are moved. To be called when what was taken before is
    /// written: that is how the outlet knows that its reader reads.
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
        self.tell_if_drained(&mut state);
        match &state.closing {
            _ if !state.queue.is_empty() => Taken::More,
            Some(closing) => Taken::Close(Close::clone(closing)),
            None => Taken::All,
        }
    }

    /// A reply to the connection's own frame, or anything else the host says to it. It is never refused; a reader
    /// that lets these pile up beyond the hard bound is closed.
    pub fn push_reply(&self, frame: &str) {
        self.push(encode_text(frame));
    }

    /// The reader should be left to catch up before it is asked for more frames.
    pub fn is_full(&self) -> bool {
        self.lock().bytes >= limits::QUEUE_BYTES_MAX
    }

    /// Since when it is full without anything being read. After `stall_ms` the gateway closes with 4008.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.lock().full_since
    }

    /// What is queued is still written; what comes later is not. The first close counts.
    pub fn close(&self, close: Close) {
        let mut state = self.lock();
        state.close(close);
        wake(state);
    }

    // ---- the hub's side ----

    /// For what nobody could ask for again: replies, and pushes that have neither position nor merge key.
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
            // Better to begin anew from known positions than to leave out one of these unnoticed.
            state.close(Close::TOO_SLOW);
        } else {
            state.append(frame, 0);
        }
        wake(state);
    }

    /// What a droppable push says, as a number. Its merge key does not count: it is another one in each room.
    pub(super) fn word(frame: &Bytes) -> u64 {
        let mut hasher = DefaultHasher::new();
        frame.hash(&mut hasher);
        hasher.finish()
    }

    /// For what may be dropped: a slow reader keeps only the newest of each key. The same word that comes again through
    /// another room is said once.
    pub(super) fn push_droppable(&self, frame: Bytes, merge_key: u64, word: u64) {
        let mut state = self.lock();
        if state.closing.is_some() || state.has_just_said(word) {
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

    /// For what can be asked for again. False: not queued, the room remembers where the reader stands, and the address
    /// is named by `next_waiting` once there is room for a page.
    #[must_use]
    pub(super) fn push_durable(&self, frame: &Bytes, address: &Address) -> bool {
        let mut state = self.lock();
        if state.closing.is_some() {
            // It is going away and will resume elsewhere.
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

    /// Promises room for one page. False: there is none, and the address waits for it.
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

    /// The page came, or will not come.
    pub(super) fn release_page(&self) {
        let mut state = self.lock();
        state.reserved = state.reserved.saturating_sub(limits::PAGE_BYTES_MAX);
        self.tell_if_drained(&mut state);
    }

    /// The address that has waited longest for room.
    pub(super) fn next_waiting(&self) -> Option<Address> {
        let mut state = self.lock();
        state.told = false;
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

    fn tell_if_drained(&self, state: &mut State) {
        if state.waiting.is_some() && !state.told && state.has_room_for_page() {
            state.told = true;
            // The hub asks `next_waiting` until there is none or no room. It outlives all connections but at the end.
            let _ = self.drained.send(self.info.connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outside the lock, and once a burst: the waker is put back only when the reader has seen the queue empty.
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

    fn has_just_said(&mut self, word: u64) -> bool {
        let now = Instant::now();
        match &mut self.said {
            Some(said) if said.0 == word && now.duration_since(said.1) < SAID_ONCE => return true,
            Some(said) => **said = (word, now),
            None => self.said = Some(Box::new((word, now))),
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

    fn listen(&mut self, cx: &Context<'_>) {
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
            let (told, drained) = mpsc::unbounded_channel();
            Self { outlet: Arc::new(Outlet::new(info, told)), drained }
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
        ana.outlet.push_reply("{}");
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
    fn the_same_word_through_several_rooms_is_said_once() {
        let ana = Reader::new();
        let says = |of: u8, key: u64| {
            let frame = frame(of, 10);
            let word = Outlet::word(&frame);
            ana.outlet.push_droppable(frame, key, word);
        };
        says(1, 7);
        says(1, 8);
        says(2, 7);
        // It is said again where something else was said in between.
        says(1, 7);
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
        ana.outlet.push_reply("{}");
        ana.outlet.close(Close::DISCONNECTED);
        ana.outlet.close(Close::DRAINING);
        ana.outlet.push_reply("{}");
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
