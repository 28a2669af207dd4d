//! The files of `handlers_dir` in Postgres: since when the fleet knows a file, and whether it should still be
//! deployed. That a file is stored says nothing about that, because its switch may have failed.

use std::fmt;

use sqlx::{Executor, Postgres, Row};

use super::{Repository, RepositoryError, Switch, failed_to};
use switchboard_core::ids::Digest;

/// The name in the history for deploys of files of `handlers_dir`. No operator's token may have it.
pub const FOUND_BY: &str = "serve";
/// The name in the history for canaries that a node withdraws. No operator's token may have it.
pub const GUARDED_BY: &str = "switchboard";

/// Why a file of `handlers_dir` is not deployed, although the fleet does not run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// The release ran before, or was a canary. Another release was chosen since.
    RanBefore,
    /// An operator switched the handler after the file was found.
    SwitchedByOperator,
    /// An operator took the handler out of the fleet.
    Retired,
    /// A canary or a shadow is active. A deploy would end it.
    HasCandidate,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RanBefore => "the fleet has run this release before",
            Self::SwitchedByOperator => "an operator has switched the handler after this file was found",
            Self::Retired => "an operator has retired the handler",
            Self::HasCandidate => "the handler has a canary or a shadow, which a deploy would end",
        })
    }
}

impl Repository {
    /// Stores that a node has found a file. The first node sets the generation after which an operator's
    /// switch of the handler takes precedence over the file.
    pub async fn found(&self, digest: Digest, name: &str) -> Result<(), RepositoryError> {
        sqlx::query(
            "insert into switchboard.found_files (digest, name, generation)
             select $1, $2, generation from switchboard.fleet
             on conflict (digest) do nothing",
        )
        .bind(digest.bytes().as_slice())
        .bind(name)
        .execute(&self.pool)
        .await
        .map_err(failed_to("store a file of handlers_dir"))?;
        Ok(())
    }

    /// Returns why a file is not deployed, or None when it should be deployed. `found` must have stored the
    /// file.
    pub async fn skip_reason(
        &self,
        digest: Digest,
        name: &str,
    ) -> Result<Option<SkipReason>, RepositoryError> {
        skip_reason(&self.pool, digest, name).await
    }
}

impl Switch {
    /// Like [`Repository::skip_reason`], while no other switch can happen.
    pub async fn skip_reason(
        &mut self,
        digest: Digest,
        name: &str,
    ) -> Result<Option<SkipReason>, RepositoryError> {
        skip_reason(&mut *self.tx, digest, name).await
    }
}

async fn skip_reason<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    digest: Digest,
    name: &str,
) -> Result<Option<SkipReason>, RepositoryError> {
    let state = sqlx::query(
        "select
           coalesce((select action = 'retire' from switchboard.history
                     where name = $2 and action in ('deploy', 'promote', 'rollback', 'retire')
                     order by generation desc limit 1), false) as retired,
           exists (select from switchboard.history
                   where name = $2 and digest = $1
                     and action in ('deploy', 'promote', 'rollback', 'canary')) as ran,
           exists (select from switchboard.history h join switchboard.found_files f on f.digest = $1
                   where h.name = $2 and h.generation > f.generation and h.who <> all ($3)
                     and h.action in ('deploy', 'promote', 'rollback')) as overruled,
           exists (select from switchboard.running
                   where name = $2 and (canary is not null or shadow is not null)) as on_trial",
    )
    .bind(digest.bytes().as_slice())
    .bind(name)
    .bind([FOUND_BY, GUARDED_BY])
    .fetch_one(executor)
    .await
    .and_then(|row| {
        Ok([
            (row.try_get::<bool, _>("retired")?, SkipReason::Retired),
            (row.try_get("ran")?, SkipReason::RanBefore),
            (row.try_get("overruled")?, SkipReason::SwitchedByOperator),
            (row.try_get("on_trial")?, SkipReason::HasCandidate),
        ])
    })
    .map_err(failed_to("read whether a file of handlers_dir should be deployed"))?;
    Ok(state.into_iter().find_map(|(holds, why)| holds.then_some(why)))
}
