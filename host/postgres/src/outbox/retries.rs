//! Retries: events that a consumer asked to get again, and the later events of the same key, which wait
//! behind them. They are copies of the outbox's rows, so that its partitions can be dropped.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::{Outbox, Stored};
use crate::Error;

/// A waiting event, and how often it was delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    pub event: Stored,
    pub attempts: i32,
}

impl FromRow<'_, PgRow> for Waiting {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self { event: Stored::from_row(row)?, attempts: row.try_get("attempts")? })
    }
}

impl Outbox {
    /// Returns the keys that wait, each with its number of events.
    pub async fn waiting_keys(
        &self,
        consumer: &str,
        shards: &[i16],
    ) -> Result<Vec<(i16, String, i64)>, Error> {
        sqlx::query_as(
            "select shard, key, count(*) from switchboard.retries
             where consumer = $1 and shard = any($2) group by shard, key",
        )
        .bind(consumer)
        .bind(shards)
        .fetch_all(&self.0)
        .await
        .map_err(Error::Statement)
    }

    /// Returns the first event of each key that is due; within a shard, the oldest position first.
    pub async fn due(&self, consumer: &str, shards: &[i16], most: usize) -> Result<Vec<Waiting>, Error> {
        sqlx::query_as(
            "select shard, position, id, event_type, key, payload::text as payload,
                    (extract(epoch from created_at) * 1000)::bigint as created_ms, attempts
             from (select distinct on (key) * from switchboard.retries
                   where consumer = $1 and shard = any($2) order by key, position) as first_of_key
             where due_at <= now()
             order by shard, position limit $3",
        )
        .bind(consumer)
        .bind(shards)
        .bind(most as i64)
        .fetch_all(&self.0)
        .await
        .map_err(Error::Statement)
    }

    /// Stores events to be delivered again, each after its delay, or moves those that are stored already. The
    /// number of attempts so far is stored too. It is 0 for an event that only waits behind its key. Such an
    /// event changes nothing when it is stored already (a crash made it come twice).
    pub async fn postpone(&self, consumer: &str, events: &[(&Stored, i32, Duration)]) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let shards: Vec<i16> = events.iter().map(|(event, ..)| event.shard).collect();
        let ids: Vec<Uuid> = events.iter().map(|(event, ..)| event.id).collect();
        let positions: Vec<i64> = events.iter().map(|(event, ..)| event.position).collect();
        let types: Vec<&str> = events.iter().map(|(event, ..)| event.event_type.as_str()).collect();
        let keys: Vec<&str> = events.iter().map(|(event, ..)| event.key.as_str()).collect();
        let payloads: Vec<&str> = events.iter().map(|(event, ..)| event.payload.as_str()).collect();
        let created: Vec<i64> = events.iter().map(|(event, ..)| event.created_ms).collect();
        let attempts: Vec<i32> = events.iter().map(|(_, attempts, _)| *attempts).collect();
        let delays: Vec<f64> = events.iter().map(|(.., delay)| delay.as_secs_f64()).collect();
        sqlx::query(
            "insert into switchboard.retries
                 (consumer, shard, position, id, event_type, key, payload, created_at, attempts, due_at)
             select $1, shard, position, id, event_type, key, payload::json, to_timestamp(created_ms / 1000.0), attempts,
                    now() + delay * interval '1 second'
             from unnest($2::smallint[], $3::bigint[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::int[],
                         $10::float8[])
                 as e (shard, position, id, event_type, key, payload, created_ms, attempts, delay)
             on conflict (consumer, shard, position) do update
             set attempts = greatest(retries.attempts, excluded.attempts),
                 due_at = case when excluded.attempts = 0 then retries.due_at else excluded.due_at end",
        )
        .bind(consumer)
        .bind(shards)
        .bind(positions)
        .bind(ids)
        .bind(types)
        .bind(keys)
        .bind(payloads)
        .bind(created)
        .bind(attempts)
        .bind(delays)
        .execute(&self.0)
        .await?;
        Ok(())
    }

    /// Deletes the retries that were handled.
    pub async fn settle(&self, consumer: &str, events: &[&Stored]) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "delete from switchboard.retries
             where consumer = $1 and (shard, position) in (select * from unnest($2::smallint[], $3::bigint[]))",
        )
        .bind(consumer)
        .bind(events.iter().map(|event| event.shard).collect::<Vec<_>>())
        .bind(events.iter().map(|event| event.position).collect::<Vec<_>>())
        .execute(&self.0)
        .await?;
        Ok(())
    }
}
