//! Events that calls of this node have committed, on their way to the tails. A node that reads a shard then
//! needs no query for the events that it wrote itself.
//!
//! The server reports the events of a transaction while its statements run (`migrations/host/1360`). They are
//! published here only after COMMIT. What is missing here is read from Postgres, so every bound and every
//! error of this module costs a query, and loses nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::error::{DbError, Severity};
use uuid::Uuid;

use super::{Cursor, Stored};
use crate::epochs::Epoch;
use switchboard_core::limits;

/// The message of the server that carries events.
const REPORT: &str = "switchboard.events";
/// The function of the trigger that sends it.
const REPORTER: &str = "switchboard.report_events()";

/// Events by shard. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Committed(Arc<Inner>);

#[derive(Default)]
struct Inner {
    shards: Mutex<[Pending; limits::OUTBOX_SHARDS as usize]>,
    /// The consumers of this node. Events of shards that none of them reads are not kept.
    readers: Mutex<Vec<Weak<ShardsRead>>>,
}

/// The shards that one consumer reads.
#[derive(Default)]
pub(super) struct ShardsRead {
    /// One bit for each.
    shards: AtomicU64,
    /// The position epoch of its cursors.
    history: AtomicI32,
}

/// The events of one shard that no tail has taken yet.
#[derive(Default)]
struct Pending {
    events: BTreeMap<i64, Stored>,
    /// The position epoch of all of them.
    history: Epoch,
    bytes: usize,
    /// Rises with each event that is added.
    added: u64,
}

/// The shards in which a transaction has committed events, by where its events are. A set of shards has one
/// bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Published {
    /// Shards whose events consumers of this node get without a query.
    pub taken: u64,
    /// Shards with events that must be read from Postgres.
    pub left: u64,
}

impl Published {
    /// Adds what became of a later transaction of the same call.
    pub(crate) fn add(&mut self, later: Self) {
        self.left |= later.left;
        self.taken = (self.taken | later.taken) & !self.left;
    }

    /// Nothing is known of the events of a transaction.
    pub(crate) const UNKNOWN: Self = Self { taken: 0, left: u64::MAX };
}

/// The events of the transaction that is open on one connection.
#[derive(Clone, Default)]
pub(crate) struct Reports(Arc<Mutex<Reported>>);

/// Events that the server has reported.
#[derive(Default)]
pub(crate) struct Reported {
    events: Vec<Stored>,
    bytes: usize,
    /// There were other events too: too many, or too large for a report.
    is_partial: bool,
}

#[derive(Deserialize)]
struct Event(i16, i64, Uuid, String, String, i64, Box<RawValue>);

impl Reports {
    /// Keeps a message of the server if it reports events. They are parsed here, while the server writes the
    /// COMMIT, so that nobody waits for it.
    pub(crate) fn keep(&self, notice: &DbError) {
        if let Some(report) = report_of(notice) {
            let mut kept = self.0.lock();
            kept.bytes += report.len();
            match serde_json::from_str::<Vec<Event>>(report) {
                Ok(events) if kept.bytes <= limits::OUTBOX_REPORTS_BYTES_MAX => {
                    kept.events.extend(events.into_iter().map(Stored::from));
                }
                // Also the report of a statement whose events are too many or too large.
                _ => *kept = Reported { bytes: kept.bytes, is_partial: true, ..Reported::default() },
            }
        }
    }

    pub(crate) fn take(&self) -> Reported {
        std::mem::take(&mut self.0.lock())
    }
}

/// The report in a message, if the trigger of the outbox has sent it. A function for handlers can send the
/// same text. But in every language, the first line of the context names the function that sent it.
fn report_of(notice: &DbError) -> Option<&str> {
    let is_report = notice.message() == REPORT
        && notice.parsed_severity() == Some(Severity::Info)
        && notice.where_().and_then(|context| context.lines().next()).is_some_and(|at| at.contains(REPORTER));
    notice.detail().filter(|_| is_report)
}

impl From<Event> for Stored {
    fn from(Event(shard, position, id, event_type, key, created_ms, payload): Event) -> Self {
        let payload = Box::<str>::from(payload).into_string();
        Self { shard, position, id, event_type, key, payload, created_ms }
    }
}

impl Committed {
    /// Registers a consumer, until the result is dropped.
    pub(super) fn reader(&self) -> Arc<ShardsRead> {
        let reader = Arc::new(ShardsRead::default());
        let mut readers = self.0.readers.lock();
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(&reader));
        reader
    }

    /// The shards that consumers of this node read in a position epoch.
    fn read_here(&self, history: Epoch) -> u64 {
        let readers = self.0.readers.lock();
        let readers = readers.iter().filter_map(Weak::upgrade);
        readers
            .filter(|reader| reader.history.load(Acquire) == history)
            .fold(0, |all, reader| all | reader.shards.load(Acquire))
    }

    /// Publishes the events of a committed transaction. `history` is the position epoch of its connection.
    pub(crate) fn publish(&self, reported: Reported, history: Epoch) -> Published {
        let mut published = Published::default();
        if reported.is_partial {
            return Published::UNKNOWN;
        }
        if reported.events.is_empty() {
            return published;
        }
        let read_here = self.read_here(history);
        let mut shards = self.0.shards.lock();
        for event in reported.events {
            let bit = bit(event.shard);
            let pending = usize::try_from(event.shard).ok().and_then(|shard| shards.get_mut(shard));
            let is_taken = read_here & bit != 0 && pending.is_some_and(|pending| pending.add(event, history));
            *if is_taken { &mut published.taken } else { &mut published.left } |= bit;
        }
        published.taken &= !published.left;
        published
    }

    /// Takes the events that continue a cursor without a missing position, and forgets those that it has
    /// passed. If events are left, positions before them are missing here: then the second value is the
    /// number of events that were ever added.
    pub(super) fn take(&self, cursor: &Cursor) -> (Vec<Stored>, Option<u64>) {
        let mut shards = self.0.shards.lock();
        let pending = &mut shards[cursor.shard as usize];
        if pending.events.is_empty() {
            return (Vec::new(), None);
        }
        if pending.history != cursor.history {
            pending.forget(|_| true);
            pending.added += 1;
            return (Vec::new(), Some(pending.added));
        }
        let (mut taken, mut cursor) = (Vec::new(), cursor.clone());
        while let Some(event) = pending.events.remove(&cursor.next_position()) {
            pending.bytes -= event.size();
            cursor.pass_position(event.position);
            taken.push(event);
        }
        pending.forget(|position| cursor.has_passed(position));
        (taken, (!pending.events.is_empty()).then_some(pending.added))
    }
}

impl ShardsRead {
    /// Sets what the consumer reads.
    pub(super) fn set(&self, cursors: &[&Cursor]) {
        self.history.store(cursors.first().map_or(0, |cursor| cursor.history), Release);
        self.shards.store(cursors.iter().fold(0, |bits, cursor| bits | bit(cursor.shard)), Release);
    }
}

impl Pending {
    /// Returns false if the event is not kept: the shard has too many, which nobody took.
    fn add(&mut self, event: Stored, history: Epoch) -> bool {
        let size = event.size();
        if self.bytes + size > limits::OUTBOX_COMMITTED_BYTES_MAX || history < self.history {
            // Those that are kept are of no use: the position of this one is missing after them.
            self.forget(|_| true);
            return false;
        }
        if history > self.history {
            self.forget(|_| true);
            self.history = history;
        }
        self.added += 1;
        self.bytes += size;
        // A statement of a handler may insert a position twice.
        if let Some(replaced) = self.events.insert(event.position, event) {
            self.bytes -= replaced.size();
        }
        true
    }

    fn forget(&mut self, which: impl Fn(i64) -> bool) {
        self.events.retain(|position, event| {
            let keeps = !which(*position);
            if !keeps {
                self.bytes -= event.size();
            }
            keeps
        });
    }
}

fn bit(shard: i16) -> u64 {
    u64::try_from(shard).ok().and_then(|shard| 1_u64.checked_shl(shard as u32)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_that_is_published_twice_counts_once() {
        let text = "x".repeat(1000);
        let event = |position| {
            let (id, event_type, key, payload) = (Uuid::nil(), text.clone(), text.clone(), text.clone());
            Stored { shard: 0, position, id, event_type, key, payload, created_ms: 0 }
        };
        let mut pending = Pending::default();
        for _ in 0..limits::OUTBOX_COMMITTED_BYTES_MAX / text.len() {
            assert!(pending.add(event(1), 0));
        }
        assert_eq!((pending.bytes, pending.events.len()), (event(1).size(), 1));
        pending.forget(|_| true);
        assert_eq!(pending.bytes, 0);
    }
}
