//! Wake bits: hints that shards of the outbox have new events. A bit is set before a listener is notified,
//! and taken before the listener reads, so that an event which arrives during the read causes another wake.
//! Wakes are merged, and never lost within a node.
//!
//! Wakes carry no events and own no shards. The hub sends the bits of shards that this node does not own to
//! the other nodes.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use switchboard_core::limits;
use tokio::sync::Notify;

/// The wake bits of one node. A process has one; clones share it.
#[derive(Clone, Default)]
pub struct Wakes(Arc<Shared>);

#[derive(Default)]
struct Shared {
    listeners: Mutex<Vec<Weak<Notifier>>>,
    /// Bits for other nodes, taken by the hub.
    remote: Notifier,
    /// How often each shard was woken.
    counts: [AtomicU64; limits::OUTBOX_SHARDS as usize],
}

#[derive(Default)]
struct Notifier {
    dirty: AtomicU64,
    owned: AtomicU64,
    notified: Notify,
}

/// Receives the wakes of one consumer. Dropping it ends that.
pub struct Listener(Arc<Notifier>);

impl Wakes {
    /// Sets the bits of shards to which a call of this node has added events. Numbers from
    /// [`limits::OUTBOX_SHARDS`] on are ignored.
    pub fn set(&self, shards: &[u32]) {
        self.set_with(shards, 0);
    }

    /// Like `set`. `published` are shards, one bit for each, whose new events the consumers of this node have
    /// in memory. Their wakes are not counted, so nobody reads Postgres because of them.
    pub fn set_with(&self, shards: &[u32], published: u64) {
        let bits = bits(shards);
        let remote = self.notify(bits, bits & !published);
        if remote != 0 {
            self.0.remote.notify(remote);
        }
    }

    /// Sets bits that another node sent. They are not sent on.
    pub fn set_from_remote(&self, bits: u64) {
        self.notify(bits, bits);
    }

    /// Adds a listener. It gets the wakes of every shard. A shard that every listener owns is not sent to
    /// other nodes.
    pub fn listen(&self) -> Listener {
        let notifier = Arc::new(Notifier::default());
        let mut listeners = self.0.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&notifier));
        Listener(notifier)
    }

    /// Waits for bits that another node may need, because a consumer of this node does not own the shard.
    /// Cancel safe.
    pub async fn remote_shards(&self) -> u64 {
        self.0.remote.take().await
    }

    /// Returns how often each shard was woken for events that are not in memory. A reader that reads the
    /// counts first and the outbox then knows which wakes it has served.
    pub fn counts(&self) -> [u64; limits::OUTBOX_SHARDS as usize] {
        self.0.counts.each_ref().map(|count| count.load(Acquire))
    }

    /// Notifies every listener of this node. Returns the bits that not every listener owns.
    fn notify(&self, bits: u64, counted: u64) -> u64 {
        // Counted first, so that a listener that was notified finds the new count.
        for shard in shards(counted) {
            self.0.counts[shard as usize].fetch_add(1, AcqRel);
        }
        let listeners = self.0.listeners.lock();
        let mut owned_by_all = if listeners.is_empty() { 0 } else { u64::MAX };
        for notifier in listeners.iter().filter_map(Weak::upgrade) {
            owned_by_all &= notifier.owned.load(Acquire);
            notifier.notify(bits);
        }
        bits & !owned_by_all
    }
}

impl Listener {
    /// Waits for wakes. Returns the shards that were set since the last return, at least one. Cancel safe.
    pub async fn woken(&self) -> Vec<u32> {
        shards(self.0.take().await)
    }

    /// Replaces the set of shards that this listener's consumer owns on this node.
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

/// A set of shards is a `u64` with one bit for each.
const _: () = assert!(limits::OUTBOX_SHARDS <= u64::BITS);

fn bits(shards: &[u32]) -> u64 {
    shards.iter().filter(|shard| **shard < limits::OUTBOX_SHARDS).fold(0, |bits, shard| bits | (1 << shard))
}

pub(super) fn shards(bits: u64) -> Vec<u32> {
    (0..limits::OUTBOX_SHARDS).filter(|shard| bits & (1 << shard) != 0).collect()
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
    fn every_consumer_gets_every_wake() {
        let wakes = Wakes::default();
        let (relay, notify) = (wakes.listen(), wakes.listen());
        wakes.set(&[0, 7, 8, u32::MAX]);
        assert_eq!(relay.woken().now_or_never(), Some(vec![0, 7]));
        assert_eq!(notify.woken().now_or_never(), Some(vec![0, 7]));
    }

    #[test]
    fn only_what_is_not_owned_here_travels() {
        let wakes = Wakes::default();
        wakes.set(&[1]);
        assert_eq!(wakes.remote_shards().now_or_never(), Some(1 << 1), "no listener here");
        let (relay, notify) = (wakes.listen(), wakes.listen());
        relay.set_owned(&[1, 2]);
        notify.set_owned(&[1]);
        wakes.set(&[1, 2]);
        assert_eq!(wakes.remote_shards().now_or_never(), Some(1 << 2), "notify of shard 2 is remote");
        drop(notify);
        wakes.set(&[1, 2]);
        assert_eq!(wakes.remote_shards().now_or_never(), None);
        wakes.set_from_remote(1 << 6);
        assert_eq!(wakes.remote_shards().now_or_never(), None, "a wake from another node is not sent on");
        assert_eq!(relay.woken().now_or_never(), Some(vec![1, 2, 6]));
    }

    #[test]
    fn a_wake_for_events_in_memory_is_not_counted() {
        let wakes = Wakes::default();
        let relay = wakes.listen();
        relay.set_owned(&[1]);
        wakes.set_with(&[1, 2], (1 << 1) | (1 << 2));
        assert_eq!(relay.woken().now_or_never(), Some(vec![1, 2]));
        assert_eq!(wakes.remote_shards().now_or_never(), Some(1 << 2), "another node reads it");
        assert_eq!(wakes.counts(), [0; 8]);
        wakes.set_with(&[1, 2], 1 << 1);
        wakes.set_from_remote(1 << 2);
        assert_eq!(wakes.counts(), [0, 0, 2, 0, 0, 0, 0, 0]);
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
        // A consumer that reads only when it is woken must see everything that was written before the last
        // wake.
        let mut seen = 0;
        while seen < 2000 {
            listener.woken().await;
            seen = written.load(Acquire);
        }
    }
}
