//! The outbox as its consumers read it: which node reads which shard, which events are next, which wait, and
//! which were given up. All SQL of the event trigger is here; `triggers/event` decides what happens with an
//! event.
//!
//! Positions come from a sequence, so one may become visible after a later one. A cursor is therefore `high`
//! and the holes below it. A hole is forgotten when every transaction that could still fill it has ended.

mod committed;
mod feed;
mod holes;
mod lag;
mod node_feed;
mod parked;
mod retries;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::Error;
use crate::epochs::Epoch;
use switchboard_core::ids::NodeId;
use switchboard_core::limits;
use switchboard_core::manifest::Start;

pub(crate) use committed::{Committed, Published, Reports};
#[cfg(test)]
pub(crate) use feed::Feed;
use holes::Holes;
pub use lag::Lag;
pub use node_feed::{ConsumerFeed, News, NodeFeed, Pages};
pub use parked::Parked;
pub use retries::Waiting;

/// How far one consumer has read one shard, held under a lease, which the node's poll renews. The epoch
/// fences a former holder.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    pub consumer: String,
    pub shard: i16,
    epoch: i64,
    /// The position epoch in which the cursor was claimed. After a change of the position epoch, the cursor
    /// can neither be renewed nor saved. It must be claimed again, from where the new history has it.
    history: Epoch,
    high: i64,
    holes: Holes,
}

/// An event as its transaction wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub shard: i16,
    pub position: i64,
    pub id: Uuid,
    pub event_type: String,
    pub key: String,
    pub payload: String,
    pub created_ms: i64,
}

impl Stored {
    /// Memory of the event in bytes, about.
    fn size(&self) -> usize {
        size_of::<Self>() + self.event_type.len() + self.key.len() + self.payload.len()
    }
}

/// The events of one shard that became visible, in order, and the cursor after they are handled.
#[derive(Debug)]
pub struct Page {
    pub events: Vec<Arc<Stored>>,
    pub after: Cursor,
}

/// The last position given out in each shard. It must be read *before* the events; then it shows what the
/// read may have missed.
pub type Heads = [i64; limits::OUTBOX_SHARDS as usize];

/// How often each shard was woken on this node: by its own calls, or by another node.
pub type WakeCounts = [u64; limits::OUTBOX_SHARDS as usize];

impl Cursor {
    /// True when every position up to `head` was seen.
    pub fn is_through(&self, head: i64) -> bool {
        self.high >= head && self.holes.is_empty()
    }

    /// The position up to which every position was seen, except the holes.
    pub fn high(&self) -> i64 {
        self.high
    }

    /// Moves the cursor over the first events of a page whose rest was not handled.
    pub fn pass(&mut self, events: &[Arc<Stored>]) {
        events.iter().for_each(|event| self.pass_position(event.position));
    }

    fn pass_position(&mut self, position: i64) {
        self.holes.advance(&mut self.high, [position], None, 0, limits::OUTBOX_HOLES_MAX);
    }

    /// True when both belong to the same claim of the same shard: no other node held it in between.
    pub fn is_same_claim(&self, other: &Self) -> bool {
        (self.shard, self.epoch, self.history) == (other.shard, other.epoch, other.history)
    }

    /// True when both have passed the same positions of the same shard and history.
    fn is_at(&self, other: &Self) -> bool {
        (self.shard, self.history, self.high) == (other.shard, other.history, other.high)
            && self.holes.are_those_of(&other.holes)
    }

    /// Moves the cursor to where another one of the same shard and history is.
    fn move_to(&mut self, other: &Self) {
        self.high = other.high;
        self.holes.clone_from(&other.holes);
    }

    fn has_passed(&self, position: i64) -> bool {
        position <= self.high && !self.holes.contain(position)
    }

    /// The first position that the cursor has not passed.
    fn next_position(&self) -> i64 {
        self.holes.first().unwrap_or(self.high + 1)
    }
}

/// The tables of the outbox.
#[derive(Clone)]
pub struct Outbox(PgPool);

impl Outbox {
    /// `pool` is the host's pool.
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// Creates the cursors of a new consumer.
    pub async fn introduce(&self, consumer: &str, start: Start) -> Result<(), Error> {
        let heads = match start {
            Start::Beginning => [0; limits::OUTBOX_SHARDS as usize],
            Start::Now => self.heads().await?,
        };
        sqlx::query(
            "insert into switchboard.cursors (consumer, shard, high)
             select $1, shard - 1, high from unnest($2::bigint[]) with ordinality as t (high, shard)
             on conflict do nothing",
        )
        .bind(consumer)
        .bind(heads.as_slice())
        .execute(&self.0)
        .await?;
        Ok(())
    }

    /// Claims up to `most` shards that no node holds. A shard that is leased to this node but is not in
    /// `held` is free too: the answer to its claim was lost, or it was claimed in an earlier position epoch.
    pub async fn claim(
        &self,
        consumer: &str,
        node: NodeId,
        lease: Duration,
        most: i64,
        held: &[Held],
    ) -> Result<Vec<Cursor>, Error> {
        let rows: Vec<(i16, i64, i64, sqlx::types::Json<Holes>, Epoch)> = sqlx::query_as(
            "update switchboard.cursors as c
             set owner = $2, epoch = c.epoch + 1, lease_until = now() + $3 * interval '1 millisecond'
             from (select shard from switchboard.cursors
                   where consumer = $1 and (lease_until < now() or owner = $2 and shard <> all($5))
                   order by shard limit $4 for update skip locked) as free
             where c.consumer = $1 and c.shard = free.shard
             returning c.shard, c.epoch, c.high, c.holes, switchboard.current_epoch()",
        )
        .bind(consumer)
        .bind(node.uuid())
        .bind(lease.as_millis() as f64)
        .bind(most)
        .bind(held.iter().map(|held| held.shard).collect::<Vec<_>>())
        .fetch_all(&self.0)
        .await?;
        let cursor = |(shard, epoch, high, holes, history)| {
            let sqlx::types::Json(holes) = holes;
            Cursor { consumer: consumer.to_owned(), shard, epoch, history, high, holes }
        };
        Ok(rows.into_iter().map(cursor).collect())
    }
}

/// A shard that a node holds for a consumer, by one claim. After another claim of the shard, by any node, it
/// is not held any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    pub shard: i16,
    pub(crate) epoch: i64,
    pub(crate) history: Epoch,
}

impl Cursor {
    pub fn held(&self) -> Held {
        Held { shard: self.shard, epoch: self.epoch, history: self.history }
    }
}

impl Outbox {
    /// Saves how far a consumer is. Events after the saved cursor are delivered again after a crash. Returns
    /// the shards whose cursors are still held: the others were claimed by another node, or belong to another
    /// position epoch. It waits at most [`limits::CURSOR_LOCK_WAIT`] for a row that another transaction has
    /// locked: the server would hold the connection beyond the caller's own bound.
    pub async fn save(&self, consumer: &str, cursors: &[&Cursor]) -> Result<Vec<i16>, Error> {
        sqlx::query_scalar(
            "update switchboard.cursors as c set high = s.high, holes = s.holes
             from unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::jsonb[], $6::int[])
               as s (shard, epoch, high, holes, history)
             where c.consumer = $1 and c.shard = s.shard and c.epoch = s.epoch
               and s.history = (select switchboard.current_epoch())
               and (select set_config('lock_timeout', $7, true)) is not null
             returning c.shard",
        )
        .bind(consumer)
        .bind(cursors.iter().map(|cursor| cursor.shard).collect::<Vec<_>>())
        .bind(cursors.iter().map(|cursor| cursor.epoch).collect::<Vec<_>>())
        .bind(cursors.iter().map(|cursor| cursor.high).collect::<Vec<_>>())
        .bind(cursors.iter().map(|cursor| sqlx::types::Json(&cursor.holes)).collect::<Vec<_>>())
        .bind(cursors.iter().map(|cursor| cursor.history).collect::<Vec<_>>())
        .bind(lock_timeout())
        .fetch_all(&self.0)
        .await
        .map_err(Error::Statement)
    }

    /// Ends the lease, so that another node can claim the shard at once.
    pub async fn release(&self, cursor: &Cursor) -> Result<(), Error> {
        sqlx::query(
            "update switchboard.cursors set lease_until = '-infinity', owner = null
             where consumer = $1 and shard = $2 and epoch = $3
               and (select set_config('lock_timeout', $4, true)) is not null",
        )
        .bind(&cursor.consumer)
        .bind(cursor.shard)
        .bind(cursor.epoch)
        .bind(lock_timeout())
        .execute(&self.0)
        .await?;
        Ok(())
    }

    pub async fn heads(&self) -> Result<Heads, Error> {
        let (a, b, c, d, e, f, g, h): (i64, i64, i64, i64, i64, i64, i64, i64) = sqlx::query_as(
            "select (select case when is_called then last_value else 0 end from switchboard.outbox_position_0),
                    (select case when is_called then last_value else 0 end from switchboard.outbox_position_1),
                    (select case when is_called then last_value else 0 end from switchboard.outbox_position_2),
                    (select case when is_called then last_value else 0 end from switchboard.outbox_position_3),
                    (select case when is_called then last_value else 0 end from switchboard.outbox_position_4),
                    (select case when is_called then last_value else 0 end from switchboard.outbox_position_5),
                    (select case when is_called then last_value else 0 end from switchboard.outbox_position_6),
                    (select case when is_called then last_value else 0 end from switchboard.outbox_position_7)",
        )
        .fetch_one(&self.0)
        .await?;
        Ok([a, b, c, d, e, f, g, h])
    }
}

/// The value of the setting for the statement that sets it. A row is locked after the condition without a
/// column is evaluated.
fn lock_timeout() -> String {
    format!("{}ms", limits::CURSOR_LOCK_WAIT.as_millis())
}

impl FromRow<'_, PgRow> for Stored {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            shard: row.try_get("shard")?,
            position: row.try_get("position")?,
            id: row.try_get("id")?,
            event_type: row.try_get("event_type")?,
            key: row.try_get("key")?,
            payload: row.try_get("payload")?,
            created_ms: row.try_get("created_ms")?,
        })
    }
}

impl Outbox {
    /// Creates the partitions of the next days, and drops those that every consumer has passed. Safe to run
    /// on every node. Returns the retired consumers that missed events of the dropped partitions, each with
    /// the number of all events that it has missed.
    pub async fn maintain(&self) -> Result<Vec<(String, i64)>, Error> {
        let before = self.missed().await?;
        sqlx::query("select switchboard.ensure_outbox(2), switchboard.drop_passed_outbox(2)")
            .execute(&self.0)
            .await?;
        let mut after = self.missed().await?;
        after.retain(|now| !before.contains(now));
        Ok(after)
    }

    async fn missed(&self) -> Result<Vec<(String, i64)>, Error> {
        sqlx::query_as(
            "select consumer, sum(missed)::bigint from switchboard.cursors
             group by consumer having sum(missed) > 0 order by consumer",
        )
        .fetch_all(&self.0)
        .await
        .map_err(Error::Statement)
    }
}
