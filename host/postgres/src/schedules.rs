//! Decides which node runs a fleet-wide schedule: the node that updates the schedule's row. Times are the
//! database's, so the nodes' clocks do not matter.

use std::time::Duration;

use sqlx::PgPool;

use crate::Error;
use switchboard_core::limits;

/// A fleet schedule that is due by the clock of this node.
#[derive(Clone, Debug)]
pub struct Due {
    pub handler: String,
    pub name: String,
    pub next: Next,
    /// The time after which a dead node's run is given to another node.
    pub run_time_max: Duration,
}

/// When a schedule that is due now is due again.
#[derive(Clone, Debug)]
pub enum Next {
    /// After this period.
    Every(Duration),
    /// At the next time of a cron expression. Both times are in milliseconds since 1970 UTC.
    At {
        /// The expression and its time zone. When it changes, the stored time is void.
        cron: String,
        /// The time for which the schedule is due now. One node runs it for this time, whatever the clocks of
        /// the others show.
        due_ms: u64,
        next_ms: u64,
    },
}

impl Next {
    fn every_ms(&self) -> Option<f64> {
        match self {
            Self::Every(every) => Some(every.as_millis() as f64),
            Self::At { .. } => None,
        }
    }

    fn cron(&self) -> Option<&str> {
        match self {
            Self::Every(_) => None,
            Self::At { cron, .. } => Some(cron),
        }
    }

    fn times(&self) -> Option<(f64, f64)> {
        match self {
            Self::Every(_) => None,
            Self::At { due_ms, next_ms, .. } => Some((*due_ms as f64, *next_ms as f64)),
        }
    }
}

/// The right to run a schedule once. The node gives it back as an [`EndedRun`]; when the node dies, it
/// expires.
#[derive(Clone, Debug, PartialEq)]
pub struct DueRun {
    pub handler: String,
    pub name: String,
    /// When the schedule was due, in milliseconds since 1970 UTC.
    pub due_ms: u64,
    claim: i64,
}

/// A run that has ended on this node, and whose claim is not yet given back.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedRun {
    handler: String,
    name: String,
    claim: i64,
}

impl From<DueRun> for EndedRun {
    fn from(run: DueRun) -> Self {
        Self { handler: run.handler, name: run.name, claim: run.claim }
    }
}

impl EndedRun {
    fn is_of(&self, handler: &str, name: &str) -> bool {
        self.handler == handler && self.name == name
    }
}

/// The result of a statement about schedules.
#[derive(Debug, Default)]
pub struct Claimed {
    pub runs: Vec<DueRun>,
    /// The ended runs whose claims were not given back: another transaction has their rows locked, or their
    /// claims have expired.
    pub not_given_back: Vec<EndedRun>,
}

/// The table of the schedules.
#[derive(Clone)]
pub struct Schedules(PgPool);

impl Schedules {
    /// `pool` is the host's pool.
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// Gives back the claims of ended runs, and claims the next runs, in one statement. A schedule that is
    /// not due, or runs on another node, is not claimed. A schedule that is seen for the first time is due at
    /// once. So is one that is due after more than a period, or runs for longer than any call may: a release
    /// has shortened its period, or the clock of the database was set back.
    ///
    /// A schedule with a cron expression is claimed for one of its times, unless it was claimed for this time
    /// or a later one.
    pub async fn claim(&self, due: &[Due], ended: Vec<EndedRun>) -> Result<Claimed, Error> {
        let rows: Vec<(String, String, Option<i64>, Option<i64>)> = sqlx::query_as(
            // The claim of a run is the time until which it runs.
            "with ended as (
               select * from unnest($1::text[], $2::text[], $3::bigint[]) as t (handler, name, claim)
             ),
             due as (
               select handler, name, every * interval '1 millisecond' as every, run * interval '1 millisecond' as run,
                      cron, to_timestamp(at_ms / 1000.0) as at_time,
                      to_timestamp(next_ms / 1000.0) as next_time
               from unnest($4::text[], $5::text[], $6::float8[], $7::float8[], $9::text[], $10::float8[],
                           $11::float8[]) as t (handler, name, every, run, cron, at_ms, next_ms)
             ),
             claimed_cron as (
               insert into switchboard.schedules as s (handler, name, due_at, running_until, cron)
               select handler, name, next_time, now() + run, cron from due where cron is not null
               order by handler, name
               on conflict (handler, name) do update
               set due_at = excluded.due_at, running_until = excluded.running_until, cron = excluded.cron
               where (s.cron is distinct from excluded.cron
                      or s.due_at <= (select at_time from due
                                      where due.handler = s.handler and due.name = s.name))
                 and (s.running_until is null or s.running_until < now()
                      or s.running_until > clock_timestamp() + $8 * interval '1 millisecond'
                      or exists (select from ended where ended.handler = s.handler and ended.name = s.name
                                 and ended.claim = (extract(epoch from s.running_until) * 1000000)::bigint))
               returning handler, name, running_until
             ),
             claimed as (
               insert into switchboard.schedules as s (handler, name, due_at, running_until)
               select handler, name, now() + every, now() + run from due where cron is null
               order by handler, name
               on conflict (handler, name) do update
               -- `excluded.due_at - now()` is the period.
               set due_at = greatest(least(s.due_at, now()), now() - (excluded.due_at - now()))
                            + (excluded.due_at - now()),
                   running_until = excluded.running_until, cron = null
               -- Another node may have written the row while this statement waited for it, so the future is
               -- compared with the clock and not with `now()`, the start of this statement.
               where (s.cron is not null or s.due_at <= now()
                      or s.due_at > clock_timestamp() + (excluded.due_at - now()))
                 and (s.running_until is null or s.running_until < now()
                      or s.running_until > clock_timestamp() + $8 * interval '1 millisecond'
                      or exists (select from ended where ended.handler = s.handler and ended.name = s.name
                                 and ended.claim = (extract(epoch from s.running_until) * 1000000)::bigint))
               returning handler, name, due_at, running_until
             ),
             -- Rows that another node has locked are left: two nodes that wait for each other would be a
             -- deadlock.
             free as materialized (
               select s.handler, s.name from switchboard.schedules s join ended using (handler, name)
               where ended.claim = (extract(epoch from s.running_until) * 1000000)::bigint
                 and not exists (select from due where due.handler = s.handler and due.name = s.name)
               for update of s skip locked
             ),
             given_back as (
               update switchboard.schedules s set running_until = null
               from free where s.handler = free.handler and s.name = free.name
               returning s.handler, s.name
             )
             select handler, name, (extract(epoch from due_at - due.every) * 1000)::bigint,
                    (extract(epoch from running_until) * 1000000)::bigint
             from claimed join due using (handler, name)
             union all
             select handler, name, (extract(epoch from due.at_time) * 1000)::bigint,
                    (extract(epoch from running_until) * 1000000)::bigint
             from claimed_cron join due using (handler, name)
             union all
             select handler, name, null, null from given_back",
        )
        .bind(ended.iter().map(|run| run.handler.as_str()).collect::<Vec<_>>())
        .bind(ended.iter().map(|run| run.name.as_str()).collect::<Vec<_>>())
        .bind(ended.iter().map(|run| run.claim).collect::<Vec<_>>())
        .bind(due.iter().map(|due| due.handler.as_str()).collect::<Vec<_>>())
        .bind(due.iter().map(|due| due.name.as_str()).collect::<Vec<_>>())
        .bind(due.iter().map(|due| due.next.every_ms()).collect::<Vec<_>>())
        .bind(due.iter().map(|due| due.run_time_max.as_millis() as f64).collect::<Vec<_>>())
        .bind((limits::HANDLER_DEADLINE_MAX + limits::SCHEDULE_LEASE_MARGIN).as_millis() as f64)
        .bind(due.iter().map(|due| due.next.cron()).collect::<Vec<_>>())
        .bind(due.iter().map(|due| due.next.times().map(|(due_ms, _)| due_ms)).collect::<Vec<_>>())
        .bind(due.iter().map(|due| due.next.times().map(|(_, next_ms)| next_ms)).collect::<Vec<_>>())
        .fetch_all(&self.0)
        .await?;
        let mut claimed = Claimed { runs: Vec::new(), not_given_back: ended };
        for (handler, name, due_ms, claim) in rows {
            claimed.not_given_back.retain(|run| !run.is_of(&handler, &name));
            if let (Some(due_ms), Some(claim)) = (due_ms, claim) {
                claimed.runs.push(DueRun { handler, name, due_ms: due_ms.max(0) as u64, claim });
            }
        }
        Ok(claimed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::world::{World, with_world};

    const DEADLINE: Duration = Duration::from_secs(2);

    fn due(every: Duration) -> Due {
        due_next(Next::Every(every))
    }

    fn due_next(next: Next) -> Due {
        Due { handler: "housekeeping".to_owned(), name: "clean".to_owned(), next, run_time_max: DEADLINE }
    }

    async fn claim_at(world: &World, cron: &str, due_ms: u64, ended: Vec<EndedRun>) -> Option<DueRun> {
        let next = Next::At { cron: cron.to_owned(), due_ms, next_ms: due_ms + 60_000 };
        world.postgres.schedules().claim(&[due_next(next)], ended).await.unwrap().runs.pop()
    }

    async fn claim(world: &World, every: Duration, ended: Vec<EndedRun>) -> Option<DueRun> {
        world.postgres.schedules().claim(&[due(every)], ended).await.unwrap().runs.pop()
    }

    /// Sets a column of the schedule to a time from now.
    async fn set(world: &World, column: &str, seconds: f64) {
        let time = format!("now() + {seconds} * interval '1 second'");
        world.owner(&format!("update switchboard.schedules set {column} = {time}")).await;
    }

    const EARLY: &str =
        "select count(*) from switchboard.schedules where due_at <= now() + interval '10 seconds'";

    #[tokio::test]
    async fn a_run_is_claimed_once_and_again_after_its_period() {
        with_world(2, async |world| {
            let every = Duration::from_secs(10);
            let run = claim(&world, every, Vec::new()).await.expect("it is due at once");
            assert_eq!(claim(&world, every, Vec::new()).await, None);
            set(&world, "due_at", -9.0).await;
            assert_eq!(claim(&world, every, Vec::new()).await, None, "it runs");
            let again =
                claim(&world, every, vec![run.clone().into()]).await.expect("its claim is given back");
            assert!(again.due_ms < run.due_ms, "it was due nine seconds before");
            set(&world, "due_at", 9.0).await;
            assert_eq!(claim(&world, every, vec![again.into()]).await, None, "it is not due");
        })
        .await;
    }

    #[tokio::test]
    async fn a_schedule_never_waits_for_longer_than_its_period() {
        with_world(2, async |world| {
            let (hour, every) = (Duration::from_secs(3600), Duration::from_secs(10));
            let run = claim(&world, hour, Vec::new()).await.expect("it is due at once");
            // A release has shortened the period.
            let again = claim(&world, every, vec![run.into()]).await.expect("the hour is void");
            assert_eq!(world.count(EARLY).await, 1);
            // The clock of the database was set back by an hour.
            set(&world, "due_at", 3610.0).await;
            claim(&world, every, vec![again.into()]).await.expect("a time beyond the period is void");
            assert_eq!(world.count(EARLY).await, 1);
        })
        .await;
    }

    /// The times are those of the nodes. The clocks of two nodes may differ, and so may their next times.
    #[tokio::test]
    async fn a_time_of_a_cron_expression_is_claimed_once() {
        with_world(2, async |world| {
            let nine = 1_800_000_000_000;
            let run = claim_at(&world, "minutely", nine, Vec::new()).await.expect("the first time");
            assert_eq!(run.due_ms, nine);
            let ended = vec![run.into()];
            assert_eq!(claim_at(&world, "minutely", nine, ended).await, None, "it has run");
            // The claim is given back by itself.
            set(&world, "running_until", -1.0).await;
            assert_eq!(claim_at(&world, "minutely", nine, Vec::new()).await, None, "it has run");
            let minute = 60_000;
            let next = claim_at(&world, "minutely", nine + minute, Vec::new()).await.expect("the next time");
            assert_eq!(claim_at(&world, "minutely", nine + 2 * minute, Vec::new()).await, None, "it runs");
            // Times that passed while no node ran are skipped.
            let later = nine + 10 * minute;
            let run = claim_at(&world, "minutely", later, vec![next.into()]).await.expect("a later time");
            // A release has changed the expression, so the stored time is void.
            let run = claim_at(&world, "other", nine, vec![run.into()]).await.expect("another expression");
            // And then to a period.
            let every = Duration::from_secs(10);
            let run = claim(&world, every, vec![run.into()]).await.expect("a period is due at once");
            assert_eq!(world.count(EARLY).await, 1);
            claim_at(&world, "minutely", nine, vec![run.into()]).await.expect("back again");
        })
        .await;
    }

    #[tokio::test]
    async fn a_claim_that_no_call_can_have_made_is_void() {
        with_world(2, async |world| {
            let every = Duration::from_secs(10);
            claim(&world, every, Vec::new()).await.expect("it is due at once");
            set(&world, "due_at", -1.0).await;
            // A release with a longer deadline runs on another node.
            set(&world, "running_until", limits::HANDLER_DEADLINE_MAX.as_secs_f64()).await;
            assert_eq!(claim(&world, every, Vec::new()).await, None);
            // The node died, and the clock of the database was set back.
            set(&world, "running_until", limits::HANDLER_DEADLINE_MAX.as_secs_f64() + 60.0).await;
            claim(&world, every, Vec::new()).await.expect("no run takes so long");
        })
        .await;
    }
}
