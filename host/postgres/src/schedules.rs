//! Decides which node runs a fleet-wide schedule: the node that updates the schedule's row. Times are the
//! database's, so the nodes' clocks do not matter.

use std::time::Duration;

use sqlx::PgPool;

use crate::Error;

/// The right to run a schedule once. The node ends it with [`finish`]; when the node dies, it expires.
#[derive(Debug, PartialEq)]
pub struct DueRun {
    /// When the schedule was due, in milliseconds since 1970 UTC.
    pub due_ms: u64,
}

/// The table of the schedules.
#[derive(Clone)]
pub struct Schedules(PgPool);

impl Schedules {
    /// `pool` is the host's pool.
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// Claims the next run. Returns `None` when the schedule is not due, or runs on another node. A schedule
    /// that is seen for the first time is due at once. `run_time_max` is the time after which a dead node's
    /// run is given to another node.
    pub async fn claim(
        &self,
        handler: &str,
        name: &str,
        every: Duration,
        run_time_max: Duration,
    ) -> Result<Option<DueRun>, Error> {
        let due_ms: Option<i64> = sqlx::query_scalar(
            "insert into switchboard.schedules as s (handler, name, due_at, running_until)
             values ($1, $2, now() + $3 * interval '1 millisecond', now() + $4 * interval '1 millisecond')
             on conflict (handler, name) do update
             set due_at = greatest(s.due_at, now() - $3 * interval '1 millisecond') + $3 * interval '1 millisecond',
                 running_until = excluded.running_until
             where s.due_at <= now() and (s.running_until is null or s.running_until < now())
             returning (extract(epoch from due_at - $3 * interval '1 millisecond') * 1000)::bigint",
        )
        .bind(handler)
        .bind(name)
        .bind(every.as_millis() as f64)
        .bind(run_time_max.as_millis() as f64)
        .fetch_optional(&self.0)
        .await?;
        Ok(due_ms.map(|due_ms| DueRun { due_ms: due_ms.max(0) as u64 }))
    }

    pub async fn finish(&self, handler: &str, name: &str) -> Result<(), Error> {
        sqlx::query("update switchboard.schedules set running_until = null where handler = $1 and name = $2")
            .bind(handler)
            .bind(name)
            .execute(&self.0)
            .await?;
        Ok(())
    }
}
