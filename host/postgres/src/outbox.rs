//! The outbox as its consumers read it: who reads which shard, what is next, what has to wait, what was given up. All SQL
//! of the event trigger; what to do with an event is decided in `triggers/event`.
//!
//! Positions come from a sequence, so one may become visible after a later one. A cursor is therefore `high` and the
//! holes below it. A hole is forgotten when every transaction that could still fill it has ended.

mod feed;
mod holes;
mod lag;
mod parked;
mod retries;
#[cfg(test)]
mod tests;

use std::time::Duration;

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::epochs::Epoch;
use crate::ids::NodeId;
use crate::limits;
use crate::manifest::Start;

pub use feed::{Error, Feed};
use holes::Holes;
pub use lag::{Lag, lag};
pub use parked::{Parked, drop_parked, park, parked, replay};
pub use retries::{Waiting, due, postpone, settle, waiting_keys};

/// Of the outbox; part of the stored data (`switchboard.shard`).
pub const SHARDS: u32 = 8;

/// One consumer's place in one shard, held under a lease. The epoch fences a former holder.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    pub consumer: String,
    pub shard: i16,
    epoch: i64,
    /// The position epoch in which it was claimed. In another one the positions of the outbox are other ones, so it can
    /// neither be renewed nor saved: it has to be claimed anew, from where that history has it.
    history: Epoch,
    high: i64,
    holes: Holes,
}

/// An event as it was written.
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

/// What became visible in one shard, in order, and the cursor as it is once that is handled.
#[derive(Debug)]
pub struct Page {
    pub events: Vec<Stored>,
    pub after: Cursor,
}

/// The last position given out in each shard. Asked for *before* a read, it tells what the read may have missed.
pub type Heads = [i64; SHARDS as usize];

impl Cursor {
    /// Everything up to `head` was seen.
    pub fn is_through(&self, head: i64) -> bool {
        self.high >= head && self.holes.is_empty()
    }

    /// Every position up to here was seen, except the holes.
    pub fn high(&self) -> i64 {
        self.high
    }

    /// Moves over the first events of a read whose rest was not handled.
    pub fn pass(&mut self, events: &[Stored]) {
        let positions = events.iter().map(|event| event.position);
        self.holes.advance(&mut self.high, positions, None, 0, limits::OUTBOX_HOLES_MAX);
    }
}

/// Makes the cursors of a consumer that is new here.
pub async fn introduce(pool: &PgPool, consumer: &str, start: Start) -> sqlx::Result<()> {
    let heads = match start {
        Start::Beginning => [0; SHARDS as usize],
        Start::Now => heads(pool).await?,
    };
    sqlx::query(
        "insert into switchboard.cursors (consumer, shard, high)
         select $1, shard - 1, high from unnest($2::bigint[]) with ordinality as t (high, shard)
         on conflict do nothing",
    )
    .bind(consumer)
    .bind(heads.as_slice())
    .execute(pool)
    .await?;
    Ok(())
}

/// Takes up to `most` shards that nobody holds. Nobody holds what is leased to this node and not in `held`: the answer to
/// its claim was lost, or it was claimed in an earlier position epoch.
pub async fn claim(
    pool: &PgPool,
    consumer: &str,
    node: NodeId,
    lease: Duration,
    most: i64,
    held: &[Held],
) -> sqlx::Result<Vec<Cursor>> {
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
    .fetch_all(pool)
    .await?;
    let cursor = |(shard, epoch, high, holes, history)| {
        let sqlx::types::Json(holes) = holes;
        Cursor { consumer: consumer.to_owned(), shard, epoch, history, high, holes }
    };
    Ok(rows.into_iter().map(cursor).collect())
}

/// A shard that a node holds for a consumer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    pub shard: i16,
    history: Epoch,
}

impl Cursor {
    pub fn held(&self) -> Held {
        Held { shard: self.shard, history: self.history }
    }
}

/// Holds on to those of `held` that `consumer` still holds here, in the same position epoch. Returns their shards.
pub async fn renew(
    pool: &PgPool,
    consumer: &str,
    node: NodeId,
    lease: Duration,
    held: &[Held],
) -> sqlx::Result<Vec<i16>> {
    sqlx::query_scalar(
        "update switchboard.cursors as c set lease_until = now() + $3 * interval '1 millisecond'
         from unnest($4::smallint[], $5::int[]) as held (shard, history)
         where c.consumer = $1 and c.owner = $2 and c.lease_until >= now() and c.shard = held.shard
           and held.history = (select switchboard.current_epoch())
         returning c.shard",
    )
    .bind(consumer)
    .bind(node.uuid())
    .bind(lease.as_millis() as f64)
    .bind(held.iter().map(|held| held.shard).collect::<Vec<_>>())
    .bind(held.iter().map(|held| held.history).collect::<Vec<_>>())
    .fetch_all(pool)
    .await
}

/// Remembers how far a consumer is; what is not saved comes once more after a crash. Returns the shards whose cursors are
/// still held: the others were claimed by another node meanwhile, or are of another position epoch.
pub async fn save(pool: &PgPool, consumer: &str, cursors: &[&Cursor]) -> sqlx::Result<Vec<i16>> {
    sqlx::query_scalar(
        "update switchboard.cursors as c set high = s.high, holes = s.holes
         from unnest($2::smallint[], $3::bigint[], $4::bigint[], $5::jsonb[], $6::int[])
           as s (shard, epoch, high, holes, history)
         where c.consumer = $1 and c.shard = s.shard and c.epoch = s.epoch
           and s.history = (select switchboard.current_epoch())
         returning c.shard",
    )
    .bind(consumer)
    .bind(cursors.iter().map(|cursor| cursor.shard).collect::<Vec<_>>())
    .bind(cursors.iter().map(|cursor| cursor.epoch).collect::<Vec<_>>())
    .bind(cursors.iter().map(|cursor| cursor.high).collect::<Vec<_>>())
    .bind(cursors.iter().map(|cursor| sqlx::types::Json(&cursor.holes)).collect::<Vec<_>>())
    .bind(cursors.iter().map(|cursor| cursor.history).collect::<Vec<_>>())
    .fetch_all(pool)
    .await
}

/// Lets others claim it at once.
pub async fn release(pool: &PgPool, cursor: &Cursor) -> sqlx::Result<()> {
    sqlx::query(
        "update switchboard.cursors set lease_until = '-infinity', owner = null
         where consumer = $1 and shard = $2 and epoch = $3",
    )
    .bind(&cursor.consumer)
    .bind(cursor.shard)
    .bind(cursor.epoch)
    .execute(pool)
    .await?;
    Ok(())
}

pub async fn heads(pool: &PgPool) -> sqlx::Result<Heads> {
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
    .fetch_one(pool)
    .await?;
    Ok([a, b, c, d, e, f, g, h])
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

/// Partitions ahead, and partitions gone that every consumer has passed. Safe to run on every node. Returns the consumers
/// whose handler is retired and that have missed events of the partitions that went, with the number of all they have missed.
pub async fn maintain(pool: &PgPool) -> sqlx::Result<Vec<(String, i64)>> {
    let before = missed(pool).await?;
    sqlx::query("select switchboard.ensure_outbox(2), switchboard.drop_passed_outbox(2)")
        .execute(pool)
        .await?;
    let mut after = missed(pool).await?;
    after.retain(|now| !before.contains(now));
    Ok(after)
}

async fn missed(pool: &PgPool) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as(
        "select consumer, sum(missed)::bigint from switchboard.cursors
         group by consumer having sum(missed) > 0 order by consumer",
    )
    .fetch_all(pool)
    .await
}
