//! Parked events: a consumer gave them up, and an operator decides what to do with them. The parked timers of
//! handlers are in the same list. Their event type is `timer`, and their shard -1.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::{Outbox, Stored};
use crate::poll::{CHANNEL, RETRY};
use crate::{Error, storable};
use switchboard_core::limits;

/// A parked event as an operator sees it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Parked {
    pub id: Uuid,
    pub consumer: String,
    pub shard: i16,
    pub position: i64,
    pub event_type: String,
    pub key: String,
    pub attempts: i32,
    pub error: String,
    pub created_at: String,
    pub parked_at: String,
}

impl FromRow<'_, PgRow> for Parked {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            consumer: row.try_get("consumer")?,
            shard: row.try_get("shard")?,
            position: row.try_get("position")?,
            event_type: row.try_get("event_type")?,
            key: row.try_get("key")?,
            attempts: row.try_get("attempts")?,
            error: row.try_get("error")?,
            created_at: row.try_get("created_at")?,
            parked_at: row.try_get("parked_at")?,
        })
    }
}

impl Outbox {
    /// Parks an event. Idempotent, because an event may be delivered once more after a crash. `error` may be
    /// any text of a handler. If Postgres could refuse it, the consumer would deliver the event forever.
    pub async fn park(
        &self,
        consumer: &str,
        event: &Stored,
        attempts: i32,
        error: &str,
    ) -> Result<(), Error> {
        let error = storable(error);
        sqlx::query(
            "with parked as (
                 insert into switchboard.parked
                     (consumer, shard, position, id, event_type, key, payload, created_at, attempts, error)
                 values ($1, $2, $3, $4, $5, $6, $7::json, to_timestamp($8::bigint / 1000.0), $9, $10)
                 on conflict (consumer, shard, position) do update
                 set attempts = excluded.attempts, error = excluded.error, parked_at = now())
             delete from switchboard.retries where consumer = $1 and shard = $2 and position = $3",
        )
        .bind(consumer)
        .bind(event.shard)
        .bind(event.position)
        .bind(event.id)
        .bind(&event.event_type)
        .bind(&event.key)
        .bind(&event.payload)
        .bind(event.created_ms)
        .bind(attempts)
        .bind(&*error)
        .execute(&self.0)
        .await?;
        Ok(())
    }

    /// Returns the parked events, the newest first.
    pub async fn parked(&self) -> Result<Vec<Parked>, Error> {
        sqlx::query_as(
            "select id, consumer, shard, position, event_type, key, attempts, error,
                    to_char(created at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as created_at,
                    to_char(parked at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as parked_at
             from (
                 select id, consumer, shard, position, event_type, key, attempts, error,
                        created_at as created, parked_at as parked
                 from switchboard.parked
                 union all
                 select id, handler, -1::smallint, 0, 'timer', key, attempts, coalesce(error, ''),
                        set_at, parked_at
                 from switchboard.timers where parked_at is not null
             ) as events
             order by parked desc limit $1",
        )
        .bind(limits::PARKED_LISTED_MAX)
        .fetch_all(&self.0)
        .await
        .map_err(Error::Statement)
    }

    /// Delivers a parked event or timer again, as if for the first time, to every consumer that gave it up.
    /// At the commit, the consumers of every node look for it. Returns the number of these consumers.
    pub async fn replay(&self, id: Uuid) -> Result<u64, Error> {
        let replayed = sqlx::query(
            "with gone as (delete from switchboard.parked where id = $1 returning *),
             replayed as (
                 insert into switchboard.retries
                     (consumer, shard, position, id, event_type, key, payload, created_at, attempts, due_at)
                 select consumer, shard, position, id, event_type, key, payload, created_at, 0, now() from gone
                 on conflict (consumer, shard, position) do nothing
                 returning consumer
             ),
             timers as (
                 update switchboard.timers
                 set parked_at = null, attempts = 0, next_at = now(),
                     version = nextval('switchboard.timer_versions')
                 where id = $1 and parked_at is not null
                 returning handler
             ),
             consumers as (select consumer from replayed union all select handler from timers)
             select consumer, pg_notify($2, $3) from consumers",
        )
        .bind(id)
        .bind(CHANNEL)
        .bind(RETRY)
        .fetch_all(&self.0)
        .await?;
        Ok(replayed.len() as u64)
    }

    /// Deletes a parked event or timer. Returns the number of consumers that had given it up.
    pub async fn drop_parked(&self, id: Uuid) -> Result<u64, Error> {
        let dropped: i64 = sqlx::query_scalar(
            "with events as (delete from switchboard.parked where id = $1 returning 1),
             timers as (delete from switchboard.timers where id = $1 and parked_at is not null returning 1)
             select (select count(*) from events) + (select count(*) from timers)",
        )
        .bind(id)
        .fetch_one(&self.0)
        .await?;
        Ok(dropped.max(0) as u64)
    }
}
