//! One-shot timers of handlers: set, cancel, claim, settle. Times are the database's, so the nodes' clocks do
//! not matter.
//!
//! A node claims due timers for the time of a lease: it moves `next_at` to the end of the lease. If the node
//! dies, the timers are due again then, and another node claims them. Each set and each claim has a version
//! of its own. So an outcome that comes too late changes nothing, and a handler can replace a timer while it
//! fires.

mod operators;
mod wake;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{FromRow, Row};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{Error, storable};
pub use operators::ListedTimer;
use switchboard_core::ids::NodeId;
use switchboard_core::limits;
use wake::Wake;

/// The part of the free places of a handler that one node fills before it counts the timers again. So this
/// many nodes together stay within the bound.
const NODES_AT_ONCE: i64 = 16;

/// The table of the timers. Clones share what this node knows about it.
#[derive(Clone)]
pub struct Timers {
    pool: PgPool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    wake: Wake,
    /// How many timers each handler may set on this node before they are counted again. A handler that has
    /// never set one here is not in it.
    allowances: Mutex<HashMap<String, i64>>,
}

/// A timer to set. Its values are within the bounds.
#[derive(Clone, Debug)]
pub struct NewTimer {
    pub key: String,
    pub payload: String,
    pub due: Due,
}

/// When a timer is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Due {
    /// Milliseconds since 1970 UTC.
    AtMs(u64),
    /// Milliseconds from now.
    AfterMs(u64),
}

/// The result of setting timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Stored,
    /// The handler has as many timers as it may have. Nothing was stored.
    Full,
}

/// The timers that a node may claim of one handler.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub handler: String,
    /// The maximum number of timers.
    pub room: usize,
    pub lease: Duration,
}

/// A claimed timer: this node fires it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    pub handler: String,
    pub key: String,
    pub payload: String,
    pub due_ms: u64,
    /// 1 at the first claim.
    pub attempt: u32,
    pub id: Uuid,
    /// The number of this claim.
    pub version: i64,
}

/// The result of a claim.
#[derive(Debug, Default)]
pub struct Claims {
    pub timers: Vec<Claimed>,
    /// The time until the next timer of these handlers is due.
    pub next_in: Option<Duration>,
}

/// The outcome of a claimed timer.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The handler acknowledged it.
    Done,
    /// It fires again after this time, as the next attempt.
    Postponed { after: Duration, error: String },
    /// It did not fire, so this was no attempt. It is due again after this time.
    Released { after: Duration },
    /// The handler gave it up, or has used all attempts.
    Parked { error: String },
}

impl Timers {
    /// `pool` is the host's pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, shared: Arc::default() }
    }

    /// Sets timers of a handler, all or none. One with the same key is replaced. The keys differ from each
    /// other.
    pub async fn set(&self, handler: &str, timers: &[NewTimer]) -> Result<Set, Error> {
        if !self.has_place(handler, timers).await? {
            return Ok(Set::Full);
        }
        let at = |timer: &NewTimer| match timer.due {
            Due::AtMs(ms) => Some(ms as f64),
            Due::AfterMs(_) => None,
        };
        let after = |timer: &NewTimer| match timer.due {
            Due::AtMs(_) => None,
            Due::AfterMs(ms) => Some(ms as f64),
        };
        let due_in_ms: Option<f64> = sqlx::query_scalar(
            "with stored as (
               insert into switchboard.timers as t (handler, key, payload, due_at, next_at)
               select $1, key, payload, due, due from (
                 select key, payload,
                        coalesce(to_timestamp(at_ms / 1000.0),
                                 now() + after_ms * interval '1 millisecond') as due
                 from unnest($2::text[], $3::text[], $4::float8[], $5::float8[])
                   as n (key, payload, at_ms, after_ms)
               ) as new
               -- In the order of the keys, so that two calls with the same keys do not block each other.
               order by key collate \"C\"
               on conflict (handler, key) do update
               set id = excluded.id, payload = excluded.payload, due_at = excluded.due_at,
                   next_at = excluded.next_at, version = excluded.version, attempts = 0, owner = null,
                   error = null, parked_at = null, set_at = excluded.set_at
               returning next_at
             )
             select min(extract(epoch from next_at - clock_timestamp()) * 1000)::float8 from stored",
        )
        .bind(handler)
        .bind(timers.iter().map(|timer| timer.key.as_str()).collect::<Vec<_>>())
        .bind(timers.iter().map(|timer| timer.payload.as_str()).collect::<Vec<_>>())
        .bind(timers.iter().map(at).collect::<Vec<_>>())
        .bind(timers.iter().map(after).collect::<Vec<_>>())
        .fetch_one(&self.pool)
        .await?;
        if let Some(wait) = due_in_ms.map(wait_of) {
            self.shared.wake.due_by(Instant::now() + wait);
        }
        Ok(Set::Stored)
    }

    /// Whether the handler may have these timers. The timers of a handler are counted only when this node has
    /// used up its part of the free places, because that reads them all.
    async fn has_place(&self, handler: &str, timers: &[NewTimer]) -> Result<bool, Error> {
        let count = timers.len() as i64;
        if let Some(allowance) = self.shared.allowances.lock().get_mut(handler)
            && *allowance >= count
        {
            *allowance -= count;
            return Ok(true);
        }
        let (stored, replaced): (i64, i64) = sqlx::query_as(
            "select (select count(*) from switchboard.timers where handler = $1),
                    (select count(*) from switchboard.timers where handler = $1 and key = any ($2))",
        )
        .bind(handler)
        .bind(timers.iter().map(|timer| timer.key.as_str()).collect::<Vec<_>>())
        .fetch_one(&self.pool)
        .await?;
        let free = limits::TIMERS_PER_HANDLER_MAX - stored - (count - replaced);
        self.shared.allowances.lock().insert(handler.to_owned(), free.max(0) / NODES_AT_ONCE);
        Ok(free >= 0 || replaced == count)
    }

    /// Removes a timer of a handler. Returns true if it was waiting, so that it will not fire.
    pub async fn cancel(&self, handler: &str, key: &str) -> Result<bool, Error> {
        let was_waiting = sqlx::query_scalar(
            "with gone as (
               delete from switchboard.timers where handler = $1 and key = $2
               returning owner is null and parked_at is null as was_waiting
             )
             select coalesce((select was_waiting from gone), false)",
        );
        Ok(was_waiting.bind(handler).bind(key).fetch_one(&self.pool).await?)
    }

    /// Claims due timers, the earliest first, and returns when the next one is due. Timers that another node
    /// claims at this moment are left to it.
    pub async fn claim(&self, node: NodeId, wanted: &[Wanted]) -> Result<Claims, Error> {
        let rows = sqlx::query(
            "with wanted as (
               select * from unnest($1::text[], $2::bigint[], $3::float8[]) as w (handler, room, lease)
             ),
             due as materialized (
               select d.handler, d.key, wanted.lease
               from wanted cross join lateral (
                 select t.handler, t.key from switchboard.timers t
                 where t.handler = wanted.handler and t.parked_at is null and t.next_at <= now()
                 order by t.next_at limit wanted.room
                 for update skip locked
               ) as d
             ),
             claimed as (
               update switchboard.timers t
               set owner = $4, attempts = t.attempts + 1, version = nextval('switchboard.timer_versions'),
                   next_at = now() + due.lease * interval '1 millisecond'
               from due where t.handler = due.handler and t.key = due.key
               returning t.handler, t.key, t.id, t.payload, t.due_at, t.attempts, t.version
             ),
             next as (
               select min(extract(epoch from n.next_at - clock_timestamp()) * 1000)::float8 as next_in
               from wanted cross join lateral (
                 select t.next_at from switchboard.timers t
                 where t.handler = wanted.handler and t.parked_at is null and t.next_at > now()
                 order by t.next_at limit 1
               ) as n
             )
             select next.next_in, c.handler, c.key, c.id, c.payload, c.attempts, c.version,
                    round(extract(epoch from c.due_at) * 1000)::bigint as due_ms
             from next left join claimed c on true
             order by c.due_at",
        )
        .bind(wanted.iter().map(|wanted| wanted.handler.as_str()).collect::<Vec<_>>())
        .bind(wanted.iter().map(|wanted| wanted.room as i64).collect::<Vec<_>>())
        .bind(wanted.iter().map(|wanted| ms(wanted.lease)).collect::<Vec<_>>())
        .bind(node.uuid())
        .fetch_all(&self.pool)
        .await?;
        let mut claims = Claims::default();
        for row in &rows {
            claims.next_in = row.try_get::<Option<f64>, _>("next_in")?.map(wait_of);
            // Without a due timer, there is one row with the next time alone.
            if row.try_get::<Option<String>, _>("handler")?.is_some() {
                claims.timers.push(Claimed::from_row(row)?);
            }
        }
        Ok(claims)
    }

    /// Stores the outcomes of claimed timers. An outcome has no effect when its timer was set, cancelled or
    /// claimed again since.
    pub async fn settle(&self, outcomes: &[(Claimed, Outcome)]) -> Result<(), Error> {
        let error = |outcome: &Outcome| outcome.error().map(|error| storable(error).into_owned());
        let errors: Vec<_> = outcomes.iter().map(|(_, outcome)| error(outcome)).collect();
        sqlx::query(
            "with outcomes as (
               select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::float8[],
                                    $6::text[]) as o (handler, key, version, outcome, delay, error)
             ),
             settled as materialized (
               select t.handler, t.key, o.outcome, o.delay, o.error
               from switchboard.timers t join outcomes o using (handler, key, version)
               order by t.handler, t.key
               for update of t
             ),
             done as (
               delete from switchboard.timers t using settled s
               where t.handler = s.handler and t.key = s.key and s.outcome = 'done'
             )
             update switchboard.timers t
             set owner = null,
                 next_at = now() + s.delay * interval '1 millisecond',
                 attempts = t.attempts - (s.outcome = 'released')::int,
                 error = coalesce(s.error, t.error),
                 parked_at = case when s.outcome = 'parked' then now() end
             from settled s
             where t.handler = s.handler and t.key = s.key and s.outcome <> 'done'",
        )
        .bind(outcomes.iter().map(|(timer, _)| timer.handler.as_str()).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(timer, _)| timer.key.as_str()).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(timer, _)| timer.version).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(_, outcome)| outcome.as_str()).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(_, outcome)| outcome.delay().map_or(0.0, ms)).collect::<Vec<_>>())
        .bind(errors)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Waits for a timer that was set on this node, and returns when it is due. Cancel safe. There is one
    /// waiter, the trigger.
    pub async fn was_set(&self) -> Instant {
        self.shared.wake.due().await
    }
}

impl FromRow<'_, PgRow> for Claimed {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            handler: row.try_get("handler")?,
            key: row.try_get("key")?,
            payload: row.try_get("payload")?,
            due_ms: row.try_get::<i64, _>("due_ms")?.max(0) as u64,
            attempt: row.try_get::<i32, _>("attempts")?.max(1) as u32,
            id: row.try_get("id")?,
            version: row.try_get("version")?,
        })
    }
}

impl Outcome {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Postponed { .. } => "postponed",
            Self::Released { .. } => "released",
            Self::Parked { .. } => "parked",
        }
    }

    /// The time after which the timer is due again.
    pub fn delay(&self) -> Option<Duration> {
        match self {
            Self::Postponed { after, .. } | Self::Released { after } => Some(*after),
            Self::Done | Self::Parked { .. } => None,
        }
    }

    fn error(&self) -> Option<&str> {
        match self {
            Self::Postponed { error, .. } | Self::Parked { error } => Some(error),
            Self::Done | Self::Released { .. } => None,
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A time until a timer is due, from the database. A time in the past is no wait.
pub(crate) fn wait_of(ms: f64) -> Duration {
    // No timer is further ahead, unless the clock of the database was set back.
    Duration::from_secs_f64(ms.clamp(0.0, limits::TIMER_AHEAD_MAX.as_millis() as f64) / 1000.0)
}

#[cfg(test)]
mod tests;
