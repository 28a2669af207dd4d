//! The files of `handlers_dir` as the fleet knows them: since when, and whether one of them is still to be deployed.
//! A kept file says nothing about that: its switch may have failed.

use std::fmt;

use sqlx::{Executor, Postgres, Row};

use super::{Error, Repository, Switch, trying};
use crate::ids::Digest;

/// The name in the history under which nodes deploy the files of `handlers_dir`. No operator's token may have it.
pub const FOUND_BY: &str = "serve";
/// The name in the history under which a node takes a canary back. No operator's token may have it.
pub const GUARDED_BY: &str = "switchboard";

/// Why a file of `handlers_dir` is not deployed, although the fleet does not run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It ran before, or was a canary. Another release was chosen since.
    Ran,
    /// An operator switched the handler after the file was found.
    Overruled,
    /// An operator took the handler out of the fleet.
    Retired,
    /// A canary or a shadow stands beside what runs. A deploy would end it.
    OnTrial,
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ran => "the fleet has run this release before",
            Self::Overruled => "an operator has switched the handler after this file was found",
            Self::Retired => "an operator has retired the handler",
            Self::OnTrial => "a canary or a shadow stands beside what runs",
        })
    }
}

impl Repository {
    /// Remembers that a node has found a file. The first node's word counts: it sets the generation from which on an
    /// operator's switch of the handler wins over the file.
    pub async fn found(&self, digest: Digest, name: &str) -> Result<(), Error> {
        sqlx::query(
            "insert into switchboard.found_files (digest, name, generation)
             select $1, $2, generation from switchboard.fleet
             on conflict (digest) do nothing",
        )
        .bind(digest.bytes().as_slice())
        .bind(name)
        .execute(&self.pool)
        .await
        .map_err(trying("note a file of handlers_dir"))?;
        Ok(())
    }

    /// None: the file is to be deployed. It must have been noted by `found`.
    pub async fn settled(&self, digest: Digest, name: &str) -> Result<Option<Settled>, Error> {
        settled(&self.pool, digest, name).await
    }
}

impl Switch {
    /// The same while no other switch can happen.
    pub async fn settled(&mut self, digest: Digest, name: &str) -> Result<Option<Settled>, Error> {
        settled(&mut *self.tx, digest, name).await
    }
}

async fn settled<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    digest: Digest,
    name: &str,
) -> Result<Option<Settled>, Error> {
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
            (row.try_get::<bool, _>("retired")?, Settled::Retired),
            (row.try_get("ran")?, Settled::Ran),
            (row.try_get("overruled")?, Settled::Overruled),
            (row.try_get("on_trial")?, Settled::OnTrial),
        ])
    })
    .map_err(trying("look whether a file of handlers_dir is to be deployed"))?;
    Ok(state.into_iter().find_map(|(holds, why)| holds.then_some(why)))
}
