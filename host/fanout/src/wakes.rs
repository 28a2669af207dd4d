//! Wake bits: a hint that a shard of the outbox has new events. A bit is set before anybody is told, and taken before
//! the work begins, so that an event that comes during the work wakes once more; a wake is never lost, only merged.
//!
//! It carries no events and owns no shard. What no listener of this node owns goes to the other nodes (`hub`).

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

/// Shards are numbered below this; the outbox has fewer.
pub const SHARDS_MAX: u32 = 64;

/// One for the process. Clones are the same.
#[derive(Clone, Default)]
pub struct Wakes(Arc<Shared>);

#[derive(Default)]
struct Shared {
    listeners: Mutex<Vec<Weak<Notifier>>>,
    /// Bits for other nodes, taken by the hub.
    remote: Notifier,
}

#[derive(Default)]
struct Notifier {
    dirty: AtomicU64,
    owned: AtomicU64,
    notified: Notify,
}

/// One consumer's ear. Dropping it ends the listening.
pub struct Listener(Arc<Notifier>);

impl Wakes {
    /// These shards have new events, says a call of this node. Numbers that no shard can have are ignored.
    pub fn set(&self, shards: &[u32]) {
        let bits = bits(shards);
        let remote = self.notify(bits);
        if remote != 0 {
            self.0.remote.notify(remote);
        }
    }

    /// Another node said so. It is not passed on.
    pub fn set_from_remote(&self, bits: u64) {
        self.notify(bits);
    }

    /// A new consumer. It hears every shard; what it owns need not travel to other nodes.
    pub fn listen(&self) -> Listener {
        let notifier = Arc::new(Notifier::default());
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&notifier));
        Listener(notifier)
    }

    /// Bits that some consumer's owner on another node should hear of. Cancel safe.
    pub async fn remote_shards(&self) -> u64 {
        self.0.remote.take().await
    }

    /// The bits that not every listener here owns.
    fn notify(&self, bits: u64) -> u64 {
        let listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let mut owned_by_all = if listeners.is_empty() { 0 } else { u64::MAX };
        for notifier in listeners.iter().filter_map(Weak::upgrade) {
            owned_by_all &= notifier.owned.load(Acquire);
            notifier.notify(bits);
        }
        bits & !owned_by_all
    }
}

impl Listener {
    /// The shards set since the last return, at least one. Cancel safe.
    pub async fn woken(&self) -> Vec<u32> {
        shards(self.0.take().await)
    }

    /// Replaces what was said before.
    pub fn set_owned(&self, shards: &[u32]) {
        self.0.owned.store(bits(shards), Release);
    }
}

impl Notifier {
    fn notify(&self, bits: u64) {
        if bits != 0 && self.dirty.fetch_or(bits, AcqRel) & bits != bits {
            self.notified.notify_one();
        }
    }

    async fn take(&self) -> u64 {
        loop {
            match self.dirty.swap(0, AcqRel) {
                0 => self.notified.notified().await,
                bits => return bits,
            }
        }
    }
}

fn bits(shards: &[u32]) -> u64 {
    shards.iter().filter(|shard| **shard < SHARDS_MAX).fold(0, |bits, shard| bits | (1 << shard))
}

pub(super) fn shards(bits: u64) -> Vec<u32> {
    (0..SHARDS_MAX).filter(|shard| bits & (1 << shard) != 0).collect()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_wake_during_the_work_wakes_once_more() {
        let wakes = Wakes::default();
        let relay = wakes.listen();
        wakes.set(&[3]);
        wakes.set(&[3, 5]);
        assert_eq!(relay.woken().now_or_never(), Some(vec![3, 5]));
        wakes.set(&[3]); // while the work on 3 and 5 goes on
        assert_eq!(relay.woken().now_or_never(), Some(vec![3]));
        assert_eq!(relay.woken().now_or_never(), None);
    }

    #[test]
    fn every_consumer_hears_every_wake() {
        let wakes = Wakes::default();
        let (relay, notify) = (wakes.listen(), wakes.listen());
        wakes.set(&[0, 63, 64, u32::MAX]);
        assert_eq!(relay.woken().now_or_never(), Some(vec![0, 63]));
        assert_eq!(notify.woken().now_or_never(), Some(vec![0, 63]));
    }

    #[test]
    fn only_what_is_not_owned_here_travels() {
        let wakes = Wakes::default();
        wakes.set(&[1]);
        assert_eq!(wakes.remote_shards().now_or_never(), Some(1 << 1), "nobody listens here");
        let (relay, notify) = (wakes.listen(), wakes.listen());
        relay.set_owned(&[1, 2]);
        notify.set_owned(&[1]);
        wakes.set(&[1, 2]);
        assert_eq!(wakes.remote_shards().now_or_never(), Some(1 << 2), "notify of shard 2 is remote");
        drop(notify);
        wakes.set(&[1, 2]);
        assert_eq!(wakes.remote_shards().now_or_never(), None);
        wakes.set_from_remote(1 << 9);
        assert_eq!(wakes.remote_shards().now_or_never(), None, "what came from afar stays");
        assert_eq!(relay.woken().now_or_never(), Some(vec![1, 2, 9]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_wake_is_lost_between_many_setters_and_a_busy_consumer() {
        let wakes = Wakes::default();
        let listener = wakes.listen();
        let written = Arc::new(AtomicU64::new(0));
        for _ in 0..4 {
            let (wakes, written) = (wakes.clone(), written.clone());
            tokio::spawn(async move {
                for _ in 0..500 {
                    written.fetch_add(1, AcqRel);
                    wakes.set(&[7]);
                    tokio::task::yield_now().await;
                }
            });
        }
        // Whatever was written before the last wake must be seen by a consumer that only reads when woken.
        let mut seen = 0;
        while seen < 2000 {
            listener.woken().await;
            seen = written.load(Acquire);
        }
    }
}
