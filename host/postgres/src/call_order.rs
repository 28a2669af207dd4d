//! The order of the calls of one connection, for calls that overlap.
//!
//! A call may begin while the write of the call before it is not committed yet. Group commits then share a
//! COMMIT, and they stay in the order of the calls: a write joins the queue of its lane when the write before
//! it waits in the same queue and will be in the same batch, or when the call before it has ended. Until then
//! it is parked with the call before it (`docs/decisions/overlapping-calls.md`).

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::collect::Write;

/// Gives each call of one connection its rank.
#[derive(Default)]
pub struct CallOrder {
    last: Option<Arc<Place>>,
}

impl CallOrder {
    /// Begins the next call, and returns its rank. The receiver gets a value when this call asks for its
    /// write, and an error when it ends without one: in both cases the call after it may begin.
    pub fn begin(&mut self) -> (Rank, oneshot::Receiver<()>) {
        let (asked, is_ordered) = oneshot::channel();
        let own = Arc::new(Place::default());
        let before = self.last.replace(own.clone());
        (Rank { own, before, asked: Some(asked) }, is_ordered)
    }
}

/// The place of a call among the calls of its connection. Its owner drops it when the call ends.
pub struct Rank {
    own: Arc<Place>,
    before: Option<Arc<Place>>,
    asked: Option<oneshot::Sender<()>>,
}

impl Rank {
    /// Waits until the calls before this one have ended.
    pub async fn end_before(&mut self) {
        let mut before = self.before.take();
        while let Some(place) = before {
            // The sender is in the place, so it cannot be gone.
            let _ = place.has_ended.subscribe().wait_for(|has_ended| *has_ended).await;
            before = place.state.lock().overtaken.clone();
        }
    }

    /// Notes that this call has reached its ordered point: the call after it may begin.
    pub fn reach_ordered_point(&mut self) {
        if let Some(asked) = self.asked.take() {
            // The connection may be gone.
            let _ = asked.send(());
        }
    }

    /// Notes that this call asks for a write, and returns its place and that of the call before it.
    pub(crate) fn ask(&mut self) -> (Arc<Place>, Option<Arc<Place>>) {
        self.reach_ordered_point();
        (self.own.clone(), self.before.clone())
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        // The nearest call before this one that has not ended.
        let mut before = self.before.take();
        while let Some(ended) = before.take_if(|place| *place.has_ended.borrow()) {
            before = ended.state.lock().overtaken.clone();
        }
        let mut state = self.own.state.lock();
        state.queue = None;
        state.overtaken.clone_from(&before);
        self.own.has_ended.send_replace(true);
        let follower = state.follower.take();
        drop(state);
        if let Some(follower) = follower {
            follower.submit(before);
        }
    }
}

/// A call as the next call sees it.
pub(crate) struct Place {
    state: Mutex<State>,
    has_ended: watch::Sender<bool>,
}

impl Default for Place {
    fn default() -> Self {
        Self { state: Mutex::default(), has_ended: watch::Sender::new(false) }
    }
}

#[derive(Default)]
struct State {
    /// The lane in whose queue the write of this call waits for its batch.
    queue: Option<usize>,
    /// The write of the next call, which waits for this call.
    follower: Option<Write>,
    /// The call before this one, if this one ended first. The next call then waits for that one.
    overtaken: Option<Arc<Place>>,
}

impl Place {
    /// Parks the write of the next call, unless it may join the queue of `lane` now. `is_next_batch` says
    /// that everything in this queue, and this write, will be in the next batch. The caller holds the lock of
    /// the lanes.
    pub(crate) fn park(self: Arc<Self>, write: Write, lane: usize, is_next_batch: bool) -> Option<Write> {
        let mut place = self;
        loop {
            let mut state = place.state.lock();
            if !*place.has_ended.borrow() {
                if state.queue == Some(lane) && is_next_batch {
                    return Some(write);
                }
                // A write that is parked already is that of a call that has ended.
                state.follower = Some(write);
                return None;
            }
            let overtaken = state.overtaken.clone();
            drop(state);
            match overtaken {
                Some(before) => place = before,
                None => return Some(write),
            }
        }
    }

    /// True when this call has ended, and the calls before it that it overtook.
    pub(crate) fn has_ended(self: &Arc<Self>) -> bool {
        let mut place = Some(self.clone());
        while let Some(ended) = place.take_if(|place| *place.has_ended.borrow()) {
            place = ended.state.lock().overtaken.clone();
        }
        place.is_none()
    }

    /// Notes that the write of this call waits in the queue of `lane`. Returns the write of the next call if
    /// it is parked here and `joins`.
    pub(crate) fn queued(&self, lane: usize, joins: impl FnOnce(&Write) -> bool) -> Option<Write> {
        let mut state = self.state.lock();
        if *self.has_ended.borrow() {
            return None;
        }
        state.queue = Some(lane);
        state.follower.take_if(|follower| joins(follower))
    }

    /// Notes that the batch with the write of this call starts.
    pub(crate) fn started(&self) {
        self.state.lock().queue = None;
    }
}
