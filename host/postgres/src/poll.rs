//! The one poll of a node: one statement a second writes the node's heartbeat, renews the leases of its
//! cursors, and reads everything that other nodes and operators may have changed. Tasks of the node compare
//! the result with what they know, and query Postgres only when something is new for them.
//!
//! The poll is a fallback. Notifications and wakes are faster, and a lost one costs at most the interval of
//! the poll (`docs/decisions/idle-node.md`). This module decides nothing by what it reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, Row};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::epochs::Epoch;
use crate::outbox::{Heads, Held};
use crate::owner::Suspicion;
use crate::timers::wait_of;
use crate::{Error, in_time};
use switchboard_core::ids::NodeId;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;

/// The channel of notifications to all nodes. After one, a node polls at once; after [`RETRY`], its consumers
/// look for retries.
pub const CHANNEL: &str = "switchboard_releases";
/// The notification that an operator asked for the retry of an event.
pub const RETRY: &str = "retry";

const POLL: &str = include_str!("poll.sql");

/// The poll of one node. Clones share it.
#[derive(Clone)]
pub struct Poll(Arc<Inner>);

struct Inner {
    pool: PgPool,
    /// Raised when a poll fails, so that the pool checks its connections before their next use.
    suspicion: Suspicion,
    node: NodeId,
    /// The address of the node's admin listener, for operators.
    admin: SocketAddr,
    /// The shards that each consumer of this node holds.
    held: Mutex<BTreeMap<String, Vec<Held>>>,
    /// The handlers whose timers this node fires.
    timer_handlers: Mutex<Vec<String>>,
    results: watch::Sender<Polled>,
    requested: Notify,
    /// Changes when an operator may have asked for a retry.
    retry_requests: watch::Sender<()>,
    /// False while this node receives no notifications.
    is_notified: AtomicBool,
}

/// The result of the last poll. `None` before the first one.
pub type Polled = Option<Result<Arc<Snapshot>, Arc<Error>>>;

/// The result of one poll.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// True when the fleet did not know the node. Then its reports are gone too.
    pub is_new_node: bool,
    /// The generation of the fleet's releases.
    pub generation: i64,
    pub epoch: Epoch,
    /// The position of the newest revocation, 0 without any.
    pub revocations: i64,
    /// The generation of the fleet's keys in Redis.
    pub redis_generation: i64,
    pub heads: Heads,
    /// The time until the next timer of the handlers of [`Poll::watch_timers`] is due.
    pub timer_due_in: Option<Duration>,
    consumers: BTreeMap<String, ConsumerSnapshot>,
}

/// The result of one poll for one consumer of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerSnapshot {
    /// The shards that the node held when the poll began.
    asked: Vec<Held>,
    /// Those that it still holds. Their leases were renewed.
    pub kept: Vec<Held>,
    /// True when a claim would find a shard.
    pub has_free_shard: bool,
}

impl ConsumerSnapshot {
    /// Returns true when the node held the shard at the beginning of the poll, and does not hold it any more.
    /// A shard that was claimed during the poll is not lost, also if it was held by an earlier claim.
    pub fn has_lost(&self, held: &Held) -> bool {
        self.asked.contains(held) && !self.kept.contains(held)
    }
}

impl Snapshot {
    /// Returns the result for a consumer. `None` when it has not called [`Poll::hold`] before the poll began.
    pub fn consumer(&self, name: &str) -> Option<&ConsumerSnapshot> {
        self.consumers.get(name)
    }
}

impl Poll {
    /// `pool` is the host's pool.
    pub fn new(pool: PgPool, node: NodeId, admin: SocketAddr) -> Self {
        Self::of(pool, Suspicion::default(), node, admin)
    }

    pub(super) fn of(pool: PgPool, suspicion: Suspicion, node: NodeId, admin: SocketAddr) -> Self {
        Self(Arc::new(Inner {
            pool,
            suspicion,
            node,
            admin,
            held: Mutex::default(),
            timer_handlers: Mutex::default(),
            results: watch::Sender::new(None),
            requested: Notify::new(),
            retry_requests: watch::Sender::new(()),
            is_notified: AtomicBool::new(false),
        }))
    }

    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Changes at every poll. The last result counts as a change too, so that a new task sees the state
    /// before the next poll.
    pub fn results(&self) -> watch::Receiver<Polled> {
        let mut results = self.0.results.subscribe();
        results.mark_changed();
        results
    }

    /// The last result that was no error.
    pub fn last(&self) -> Option<Arc<Snapshot>> {
        self.0.results.borrow().as_ref().and_then(|result| result.as_ref().ok()).cloned()
    }

    /// Makes the node poll at once.
    pub fn request(&self) {
        self.0.requested.notify_one();
    }

    /// Notes that an operator may have asked for the retry of an event. The poll itself does not read the
    /// retries, because an operator may have locked their table.
    pub fn retry_was_requested(&self) {
        self.0.retry_requests.send_replace(());
    }

    /// Changes when a consumer must look for retries.
    pub fn retry_requests(&self) -> watch::Receiver<()> {
        self.0.retry_requests.subscribe()
    }

    /// States whether this node receives notifications. While it does not, it polls more often.
    pub fn set_notified(&self, is_notified: bool) {
        self.0.is_notified.store(is_notified, Relaxed);
        self.request();
    }

    /// Replaces the shards of a consumer whose leases the polls renew.
    pub fn hold(&self, consumer: &str, held: &[Held]) {
        self.0.held.lock().insert(consumer.to_owned(), held.to_vec());
    }

    /// Removes a consumer that has ended on this node.
    pub fn forget(&self, consumer: &str) {
        self.0.held.lock().remove(consumer);
    }

    /// Replaces the handlers whose next timer the polls look for.
    pub fn watch_timers(&self, handlers: Vec<String>) {
        *self.0.timer_handlers.lock() = handlers;
    }

    /// Polls until the shutdown begins. `connections` returns the number of open connections, for the
    /// heartbeat.
    pub async fn run(&self, connections: impl Fn() -> u64, mut guard: ShutdownGuard) {
        loop {
            let began_at = Instant::now();
            let is_ok = self.once(connections()).await.is_ok();
            let wait = match is_ok && self.0.is_notified.load(Relaxed) {
                true => limits::NODE_POLL_EVERY,
                false => limits::FOLLOW_EVERY,
            };
            tokio::select! {
                () = sleep_until(began_at + wait) => {}
                () = self.0.requested.notified() => {}
                () = guard.begun() => return,
            }
        }
    }

    /// Polls once, and publishes the result.
    pub async fn once(&self, connections: u64) -> Result<Arc<Snapshot>, Arc<Error>> {
        let result = in_time(limits::NODE_POLL_WAIT, self.read(connections)).await;
        if result.is_err() {
            self.0.suspicion.raise();
        }
        let result = result.map(Arc::new).map_err(Arc::new);
        self.0.results.send_replace(Some(result.clone()));
        result
    }

    async fn read(&self, connections: u64) -> Result<Snapshot, Error> {
        let asked = self.0.held.lock().clone();
        let held: Vec<(&str, Held)> =
            asked.iter().flat_map(|(name, held)| held.iter().map(|held| (name.as_str(), *held))).collect();
        let timer_handlers = self.0.timer_handlers.lock().clone();
        let row = sqlx::query(POLL)
            .bind(self.0.node.uuid())
            .bind(self.0.admin.to_string())
            .bind(env!("CARGO_PKG_VERSION"))
            .bind(i64::try_from(connections).unwrap_or(i64::MAX))
            .bind(held.iter().map(|(name, _)| *name).collect::<Vec<_>>())
            .bind(held.iter().map(|(_, held)| held.shard).collect::<Vec<_>>())
            .bind(held.iter().map(|(_, held)| held.history).collect::<Vec<_>>())
            .bind(held.iter().map(|(_, held)| held.epoch).collect::<Vec<_>>())
            .bind(asked.keys().map(String::as_str).collect::<Vec<_>>())
            .bind(limits::CURSOR_LEASE.as_millis() as f64)
            .bind(limits::CURSOR_RENEWED_BEFORE.as_millis() as f64)
            .bind(limits::NODE_FORGOTTEN_AFTER.as_millis() as f64)
            .bind(timer_handlers)
            .fetch_one(&self.0.pool)
            .await?;
        Ok(snapshot(&row, asked)?)
    }
}

fn snapshot(row: &PgRow, asked: BTreeMap<String, Vec<Held>>) -> sqlx::Result<Snapshot> {
    let names = |column| row.try_get::<Vec<String>, _>(column);
    let (kept, shards) = (names("kept_consumers")?, row.try_get::<Vec<i16>, _>("kept_shards")?);
    let free = names("free")?;
    let of = |name: String, asked: Vec<Held>| {
        let is_kept = |held: &&Held| {
            kept.iter().zip(&shards).any(|(consumer, shard)| *consumer == name && *shard == held.shard)
        };
        let kept = asked.iter().filter(is_kept).copied().collect();
        let has_free_shard = free.contains(&name);
        (name, ConsumerSnapshot { asked, kept, has_free_shard })
    };
    Ok(Snapshot {
        is_new_node: row.try_get("is_new_node")?,
        generation: row.try_get("generation")?,
        epoch: row.try_get("epoch")?,
        revocations: row.try_get("revocations")?,
        redis_generation: row.try_get("redis_generation")?,
        heads: PolledHeads::from_row(row)?.0,
        timer_due_in: row.try_get::<Option<f64>, _>("timer_due_in")?.map(wait_of),
        consumers: asked.into_iter().map(|(name, asked)| of(name, asked)).collect(),
    })
}

struct PolledHeads(Heads);

impl FromRow<'_, PgRow> for PolledHeads {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let heads: Vec<i64> = row.try_get("heads")?;
        let wrong = || sqlx::Error::Decode("the number of heads is not the number of shards".into());
        heads.try_into().map(Self).map_err(|_| wrong())
    }
}
