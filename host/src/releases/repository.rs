//! What is known of releases across the fleet, in Postgres: the files, what runs, every switch there was, and what each
//! node says. All SQL about releases is here. It decides nothing: whether a release may run is `rollout`'s to say.

use std::fmt;

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::{Postgres, Row, Transaction};

use crate::error::Blame;
use crate::ids::Digest;
use crate::limits;
use crate::manifest::Manifest;

mod nodes;

pub use nodes::{Answer, Heartbeat, Node, NodeHandler, Report};

/// Told at the commit of every switch. A hint that saves the wait for the next look.
const CHANNEL: &str = "switchboard_releases";

#[derive(Clone)]
pub struct Repository {
    pool: PgPool,
}

/// A release file as it is kept. Times are RFC 3339, UTC, to the millisecond.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Release {
    #[serde(rename = "handler")]
    pub name: String,
    #[serde(rename = "release")]
    pub digest: Digest,
    pub bytes: u64,
    pub by: String,
    pub note: Option<String>,
    pub at: String,
    /// Whether it is what the fleet runs.
    pub current: bool,
}

/// What the fleet is to run under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    pub name: String,
    pub digest: Digest,
    pub generation: i64,
}

/// One switch, past.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    pub generation: i64,
    pub at: String,
    pub action: String,
    #[serde(rename = "handler")]
    pub name: String,
    #[serde(rename = "release")]
    pub digest: Digest,
    pub previous: Option<Digest>,
    pub by: String,
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Deploy,
    Rollback,
}

/// A switch to be.
pub struct Change<'a> {
    pub action: Action,
    pub name: &'a str,
    pub digest: Digest,
    /// The generation that the asker saw; 0 where the name was free.
    pub seen: i64,
    pub by: &'a str,
    pub note: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Switched {
    /// The fleet is to run it from this generation on.
    To { generation: i64 },
    /// Someone else switched this handler first.
    Lost { to: Option<Running> },
}

/// Postgres did not do it.
#[derive(Debug)]
pub struct Error {
    attempt: &'static str,
    source: sqlx::Error,
}

impl Error {
    pub(super) fn timed_out(attempt: &'static str) -> Self {
        Self { attempt, source: sqlx::Error::PoolTimedOut }
    }

    pub fn blame(&self) -> Blame {
        match self.source {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Blame::Host,
            _ => Blame::Backend,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres could not {}", self.attempt)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// `map_err(trying("keep a release"))`
fn trying(attempt: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error { attempt, source }
}

// ---- files -----------------------------------------------------------------------------------------------------------

impl Repository {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Keeping the same file again changes nothing: the first uploader stays its author.
    pub async fn keep(
        &self,
        digest: Digest,
        manifest: &Manifest,
        file: &[u8],
        by: &str,
        note: Option<&str>,
    ) -> Result<(), Error> {
        let declared = serde_json::to_value(manifest).map_err(|error| Error {
            attempt: "keep a manifest that is not JSON",
            source: sqlx::Error::Encode(error.into()),
        })?;
        sqlx::query(
            "insert into switchboard.releases (digest, name, manifest, file, created_by, note)
             values ($1, $2, $3, $4, $5, $6) on conflict (digest) do nothing",
        )
        .bind(digest.bytes().as_slice())
        .bind(&manifest.name)
        .bind(declared)
        .bind(file)
        .bind(by)
        .bind(note)
        .execute(&self.pool)
        .await
        .map_err(trying("keep a release"))?;
        Ok(())
    }

    pub async fn file(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        sqlx::query_scalar("select file from switchboard.releases where digest = $1")
            .bind(digest.bytes().as_slice())
            .fetch_optional(&self.pool)
            .await
            .map_err(trying("read a release"))
    }

    /// The newest first; of one handler, or of all; everything kept, or only what runs.
    pub async fn releases(&self, name: Option<&str>, only_current: bool) -> Result<Vec<Release>, Error> {
        sqlx::query(
            "select r.digest, r.name, octet_length(r.file) as bytes, r.created_by, r.note, switchboard.rfc3339(r.created_at) as at,
                    running.digest is not null as current
             from switchboard.releases r left join switchboard.running using (name, digest)
             where ($1::text is null or r.name = $1) and (running.digest is not null or not $2)
             order by r.created_at desc limit $3",
        )
        .bind(name)
        .bind(only_current)
        .bind(limits::RELEASES_LISTED_MAX)
        .try_map(|row: PgRow| {
            Ok(Release {
                digest: digest(row.try_get("digest")?)?,
                name: row.try_get("name")?,
                bytes: u64::try_from(row.try_get::<i32, _>("bytes")?).unwrap_or(0),
                by: row.try_get("created_by")?,
                note: row.try_get("note")?,
                at: row.try_get("at")?,
                current: row.try_get("current")?,
            })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(trying("list the releases"))
    }

    /// The releases whose digest begins with these hex digits: at most two, enough to tell that it is ambiguous.
    pub async fn beginning_with(&self, name: Option<&str>, hex: &str) -> Result<Vec<Digest>, Error> {
        sqlx::query(
            "select digest from switchboard.releases
             where starts_with(encode(digest, 'hex'), $2) and ($1::text is null or name = $1) limit 2",
        )
        .bind(name)
        .bind(hex)
        .try_map(|row: PgRow| digest(row.try_get("digest")?))
        .fetch_all(&self.pool)
        .await
        .map_err(trying("look for a release"))
    }

    // ---- what runs ---------------------------------------------------------------------------------------------------

    /// Cheap: what a node asks four times a second.
    pub async fn generation(&self) -> Result<i64, Error> {
        sqlx::query_scalar("select generation from switchboard.fleet")
            .fetch_one(&self.pool)
            .await
            .map_err(trying("say the fleet's generation"))
    }

    pub async fn running(&self) -> Result<Vec<Running>, Error> {
        sqlx::query("select name, digest, generation from switchboard.running order by name")
            .try_map(running)
            .fetch_all(&self.pool)
            .await
            .map_err(trying("say what runs"))
    }

    /// What ran before what runs now.
    pub async fn previous(&self, name: &str) -> Result<Option<Digest>, Error> {
        let previous: Option<Vec<u8>> = sqlx::query_scalar(
            "select previous from switchboard.history where name = $1 order by generation desc limit 1",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await
        .map_err(trying("say what ran before"))?
        .flatten();
        previous.map(digest).transpose().map_err(trying("say what ran before"))
    }

    /// The newest first.
    pub async fn history(&self, name: Option<&str>) -> Result<Vec<Event>, Error> {
        sqlx::query(
            "select generation, switchboard.rfc3339(at) as at, action, name, digest, previous, who, note from switchboard.history
             where $1::text is null or name = $1 order by generation desc limit $2",
        )
        .bind(name)
        .bind(limits::RELEASES_LISTED_MAX)
        .try_map(|row: PgRow| {
            Ok(Event {
                generation: row.try_get("generation")?,
                at: row.try_get("at")?,
                action: row.try_get("action")?,
                name: row.try_get("name")?,
                digest: digest(row.try_get("digest")?)?,
                previous: row.try_get::<Option<Vec<u8>>, _>("previous")?.map(digest).transpose()?,
                by: row.try_get("who")?,
                note: row.try_get("note")?,
            })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(trying("tell the history"))
    }

    /// From here to the end of the `Switch` no other switch happens in the fleet.
    pub async fn switch(&self) -> Result<Switch, Error> {
        let mut tx = self.pool.begin().await.map_err(trying("begin a switch"))?;
        // A bound: whoever holds the row for longer is hanging.
        sqlx::query("set local lock_timeout = '5s'")
            .execute(&mut *tx)
            .await
            .map_err(trying("begin a switch"))?;
        sqlx::query("select from switchboard.fleet for update")
            .execute(&mut *tx)
            .await
            .map_err(trying("lock the fleet for a switch"))?;
        Ok(Switch { tx })
    }

    /// Yields at every switch, and after every loss of the connection (then something may have been missed).
    pub async fn hints(&self) -> Result<Hints, Error> {
        // Its own connection: one that listens is no use to anybody else, and must not count against the pool.
        let own =
            PgPoolOptions::new().max_connections(1).connect_lazy_with((*self.pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&own).await.map_err(trying("listen for switches"))?;
        listener.listen(CHANNEL).await.map_err(trying("listen for switches"))?;
        Ok(Hints(listener))
    }
}

/// A switch in the making: it holds the fleet's row. Dropped, nothing happened.
pub struct Switch {
    tx: Transaction<'static, Postgres>,
}

impl Switch {
    /// What each handler declares as it runs now, with its generation.
    pub async fn running(&mut self) -> Result<Vec<(Running, Manifest)>, Error> {
        sqlx::query(
            "select name, digest, running.generation, r.manifest
             from switchboard.running join switchboard.releases r using (name, digest) order by name",
        )
        .try_map(|row: PgRow| {
            let manifest = serde_json::from_value(row.try_get("manifest")?)
                .map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok((running(row)?, manifest))
        })
        .fetch_all(&mut *self.tx)
        .await
        .map_err(trying("say what runs"))
    }

    pub async fn to(mut self, change: &Change<'_>) -> Result<Switched, Error> {
        let attempt = "switch a release";
        let before = sqlx::query("select name, digest, generation from switchboard.running where name = $1")
            .bind(change.name)
            .try_map(running)
            .fetch_optional(&mut *self.tx)
            .await
            .map_err(trying(attempt))?;
        if before.as_ref().map_or(0, |before| before.generation) != change.seen {
            return Ok(Switched::Lost { to: before });
        }
        let generation: i64 = sqlx::query_scalar(
            "with counted as (update switchboard.fleet set generation = generation + 1 returning generation),
             put as (
               insert into switchboard.running (name, digest, generation) select $1, $2, generation from counted
               on conflict (name) do update
               set digest = excluded.digest, generation = excluded.generation, since = now()
             ),
             told as (
               insert into switchboard.history (generation, action, name, digest, previous, who, note)
               select generation, $3, $1, $2, $4, $5, $6 from counted
             )
             select generation, pg_notify($7, generation::text) from counted",
        )
        .bind(change.name)
        .bind(change.digest.bytes().as_slice())
        .bind(match change.action {
            Action::Deploy => "deploy",
            Action::Rollback => "rollback",
        })
        .bind(before.as_ref().map(|before| before.digest.bytes().as_slice()))
        .bind(change.by)
        .bind(change.note)
        .bind(CHANNEL)
        .fetch_one(&mut *self.tx)
        .await
        .map_err(trying(attempt))?;
        self.tx.commit().await.map_err(trying(attempt))?;
        Ok(Switched::To { generation })
    }
}

/// A stream of hints that the generation may have risen.
pub struct Hints(PgListener);

impl Hints {
    /// Ok at a hint and after a lost connection; an error when it can not be had back.
    pub async fn next(&mut self) -> Result<(), Error> {
        self.0.try_recv().await.map(drop).map_err(trying("listen for switches"))
    }
}

fn running(row: PgRow) -> Result<Running, sqlx::Error> {
    Ok(Running {
        name: row.try_get("name")?,
        digest: digest(row.try_get("digest")?)?,
        generation: row.try_get("generation")?,
    })
}

fn digest(bytes: Vec<u8>) -> Result<Digest, sqlx::Error> {
    let bytes: [u8; 32] =
        bytes.try_into().map_err(|_| sqlx::Error::Decode("a digest has 32 bytes".into()))?;
    Ok(Digest::from(bytes))
}

#[cfg(test)]
mod tests;
