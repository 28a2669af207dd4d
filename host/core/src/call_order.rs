//! The order of the calls of one connection, for calls that overlap.
//!
//! A call may begin while the write of the call before it is not committed yet. Collected writes then share a
//! COMMIT, and they stay in the order of the calls: a write waits until the write before it is in the queue of
//! the same lane and will be in the same batch, or until the call before it has ended. Meanwhile the next call
//! can get as far (`docs/decisions/overlapping-calls.md`).

use tokio::sync::{oneshot, watch};

/// How far a call is with its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It has queued no write.
    Running,
    /// Its write waits in the queue of this lane.
    Queued(usize),
    /// A batch with its write was started.
    Started,
    Ended,
}

/// Gives each call of one connection its rank.
#[derive(Default)]
pub struct CallOrder {
    last: Option<watch::Receiver<Progress>>,
}

impl CallOrder {
    /// Returns the rank of the next call. The receiver gets a value when this call asks for its write, and an
    /// error when it ends without one: in both cases the next call may begin.
    pub fn next(&mut self) -> (Rank, oneshot::Receiver<()>) {
        let (first_write, ordered) = oneshot::channel();
        let progress = watch::Sender::new(Progress::Running);
        let before = self.last.replace(progress.subscribe());
        (Rank { progress, before, first_write: Some(first_write) }, ordered)
    }
}

/// The place of a call among the calls of its connection. Its owner drops it when the call ends.
pub struct Rank {
    progress: watch::Sender<Progress>,
    before: Option<watch::Receiver<Progress>>,
    first_write: Option<oneshot::Sender<()>>,
}

impl Rank {
    /// Returns true when a write may join the queue of `lane` now. `is_next_batch` says that everything in
    /// this queue, and this write, will be in the next batch. The caller holds the lock of the lanes.
    pub fn may_join(&self, lane: usize, is_next_batch: bool) -> bool {
        let before = self.before.as_ref().map_or(Progress::Ended, |before| *before.borrow());
        match before {
            Progress::Ended => true,
            Progress::Queued(of) => of == lane && is_next_batch,
            Progress::Running | Progress::Started => false,
        }
    }

    /// Waits until the call before this one has made progress since the last look.
    pub async fn progress_before(&mut self) {
        if let Some(before) = &mut self.before
            && before.changed().await.is_err()
        {
            self.before = None;
        }
    }

    /// Waits until the call before this one has ended.
    pub async fn end_before(&mut self) {
        if let Some(mut before) = self.before.take() {
            // An error says that its rank is gone, so it has ended.
            let _ = before.wait_for(|progress| *progress == Progress::Ended).await;
        }
    }

    /// Notes that this call asks for a write, which keeps its place from here on.
    pub fn asks(&mut self) {
        if let Some(first_write) = self.first_write.take() {
            // The connection may be gone.
            let _ = first_write.send(());
        }
    }

    /// Notes that the write of this call waits in the queue of `lane`.
    pub fn joined(&self, lane: usize) -> Queued {
        self.progress.send_replace(Progress::Queued(lane));
        Queued(self.progress.clone())
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        self.progress.send_replace(Progress::Ended);
    }
}

/// A write in the queue of a lane.
pub struct Queued(watch::Sender<Progress>);

impl Queued {
    /// Notes that the batch with this write starts. The call may have ended before.
    pub fn start(&self) {
        self.0.send_if_modified(|progress| {
            let waits = matches!(progress, Progress::Queued(_));
            if waits {
                *progress = Progress::Started;
            }
            waits
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_write_joins_the_batch_of_the_write_before_it_or_waits_for_the_end_of_that_call() {
        let mut order = CallOrder::default();
        let (mut first, mut first_ordered) = order.next();
        let (mut second, mut second_ordered) = order.next();
        assert!(first.may_join(1, false), "there is no call before the first one");
        assert!(!second.may_join(1, true), "the first call has queued nothing");
        assert!(first_ordered.try_recv().is_err());

        first.asks();
        assert_eq!(first_ordered.try_recv(), Ok(()));
        assert!(!second.may_join(1, true), "the write of the first call may still go elsewhere");
        let queued = first.joined(1);
        assert!(second.may_join(1, true));
        assert!(!second.may_join(2, true), "another lane can commit first");
        assert!(
            !second.may_join(1, false),
            "the next batch would leave before the first call has its answer"
        );

        queued.start();
        assert!(!second.may_join(1, true), "the batch has left");
        assert!(second.progress_before().now_or_never().is_some());
        assert!(second.progress_before().now_or_never().is_none());
        // The first call writes again, and the second one follows it.
        let again = first.joined(1);
        assert!(second.may_join(1, true));
        drop(first);
        again.start();
        assert!(second.may_join(2, false), "the first call has ended");
        assert!(second.end_before().now_or_never().is_some());
        drop(second);
        assert_eq!(second_ordered.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
