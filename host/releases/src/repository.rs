//! What is known of releases across the fleet, in Postgres: the files, what runs, every switch there was, and what each
//! node says. All SQL about releases is here. It decides nothing: whether a release may run is `rollout`'s to say.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::{PgListener, PgPool, PgRow};
use sqlx::{PgConnection, Postgres, Row, Transaction};

use crate::error::Blame;
use crate::ids::{Digest, NodeId};
use crate::limits;
use crate::manifest::{Manifest, ROLE_PREFIX};
use crate::postgres::failure::blame_of_sqlx;
use crate::postgres::owner;

mod files;
mod nodes;
mod shadows;
mod signatures;

pub use files::{FOUND_BY, GUARDED_BY, Settled};
pub use nodes::{Answer, Heartbeat, Node, NodeHandler, Report};
pub use shadows::Shadowed;

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
    /// Of the users, where it is a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_percent: Option<i16>,
    /// Of the calls, where it is a shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_percent: Option<i16>,
}

/// What the fleet is to run under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    pub name: String,
    pub digest: Digest,
    pub generation: i64,
    pub canary: Option<Share>,
    pub shadow: Option<Share>,
}

/// A release beside the running one, and of how many of a hundred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub digest: Digest,
    pub percent: u8,
}

/// One handler as the fleet has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It never ran.
    Unknown,
    Runs(Running),
    Retired(Retired),
}

/// A handler that an operator has taken out of the fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Retired {
    pub name: String,
    /// The release that was taken out.
    pub digest: Digest,
    /// Of the switch that did it.
    pub generation: i64,
}

impl Standing {
    /// Of the switch that it stands on; a change names it.
    pub fn generation(&self) -> i64 {
        match self {
            Self::Unknown => 0,
            Self::Runs(running) => running.generation,
            Self::Retired(retired) => retired.generation,
        }
    }

    pub fn running(&self) -> Option<&Running> {
        match self {
            Self::Runs(running) => Some(running),
            Self::Unknown | Self::Retired(_) => None,
        }
    }
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i16>,
    pub by: String,
    pub note: Option<String>,
    /// Why a canary was taken back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
    /// Whether the first call that went wrong is kept.
    #[serde(default)]
    pub traced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It runs from now on.
    Deploy,
    /// It answers some of the users.
    Canary,
    /// The canary runs from now on.
    Promote,
    /// The canary is gone.
    Withdraw,
    /// It is shown some of the calls.
    Shadow,
    /// The shadow is gone.
    Unshadow,
    /// What ran before runs again.
    Rollback,
    /// The handler is gone: it answers nothing until a deploy or a rollback brings it back.
    Retire,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Canary => "canary",
            Self::Promote => "promote",
            Self::Withdraw => "withdraw",
            Self::Shadow => "shadow",
            Self::Unshadow => "unshadow",
            Self::Rollback => "rollback",
            Self::Retire => "retire",
        }
    }
}

/// A switch to be.
pub struct Change<'a> {
    pub action: Action,
    /// What the handler's row says afterwards. Its generation is the one that the asker saw, 0 where the handler never ran.
    /// A retirement takes the row away; its digest is the release that goes.
    pub to: Running,
    /// What it is about, for the history.
    pub digest: Digest,
    pub previous: Option<Digest>,
    pub percent: Option<u8>,
    pub by: &'a str,
    pub note: Option<&'a str>,
    pub verdict: Option<&'a Verdict>,
}

/// Why a canary is taken back by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub report: Value,
    /// The first call that went wrong.
    pub trace: Option<String>,
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
        blame_of_sqlx(&self.source)
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
                    coalesce(w.digest = r.digest, false) as current,
                    case when w.canary = r.digest then w.canary_percent end as canary_percent,
                    case when w.shadow = r.digest then w.shadow_percent end as shadow_percent
             from switchboard.releases r left join switchboard.running w using (name)
             where ($1::text is null or r.name = $1) and (r.digest in (w.digest, w.canary, w.shadow) or not $2)
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
                canary_percent: row.try_get("canary_percent")?,
                shadow_percent: row.try_get("shadow_percent")?,
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
        sqlx::query("select * from switchboard.running order by name")
            .try_map(running)
            .fetch_all(&self.pool)
            .await
            .map_err(trying("say what runs"))
    }

    pub async fn standing(&self, name: &str) -> Result<Standing, Error> {
        let mut connection = self.pool.acquire().await.map_err(trying("say what runs"))?;
        standing(&mut connection, name).await
    }

    /// The handlers that do not run because an operator has retired them.
    pub async fn retired(&self) -> Result<Vec<Retired>, Error> {
        sqlx::query(
            "select distinct on (h.name) h.name, h.digest, h.generation
             from switchboard.history h
             where h.action = 'retire' and not exists (select from switchboard.running w where w.name = h.name)
             order by h.name, h.generation desc",
        )
        .try_map(retired)
        .fetch_all(&self.pool)
        .await
        .map_err(trying("say what is retired"))
    }

    /// What ran before what runs now. Of a retired handler: what was taken out.
    pub async fn previous(&self, name: &str) -> Result<Option<Digest>, Error> {
        let previous: Option<Vec<u8>> = sqlx::query_scalar(
            "select previous from switchboard.history
             where name = $1 and action in ('deploy', 'promote', 'rollback', 'retire')
             order by generation desc limit 1",
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
            "select generation, switchboard.rfc3339(at) as at, action, name, digest, previous, percent, who, note, report,
                    trace is not null as traced
             from switchboard.history where $1::text is null or name = $1 order by generation desc limit $2",
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
                percent: row.try_get("percent")?,
                by: row.try_get("who")?,
                note: row.try_get("note")?,
                report: row.try_get("report")?,
                traced: row.try_get("traced")?,
            })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(trying("tell the history"))
    }

    /// The first call of a canary that went wrong, of the switch that took it back.
    pub async fn trace(&self, generation: i64) -> Result<Option<String>, Error> {
        let trace: Option<Option<String>> =
            sqlx::query_scalar("select trace from switchboard.history where generation = $1")
                .bind(generation)
                .fetch_optional(&self.pool)
                .await
                .map_err(trying("read a trace"))?;
        Ok(trace.flatten())
    }

    /// Those of these migrations that this database has not had.
    pub async fn migrations_missing(&self, versions: &[i64]) -> Result<Vec<i64>, Error> {
        if versions.is_empty() {
            return Ok(Vec::new());
        }
        sqlx::query_scalar(
            "select version from unnest($1::bigint[]) version
             where not exists (select from public._sqlx_migrations m where m.version = version.version and m.success)",
        )
        .bind(versions)
        .fetch_all(&self.pool)
        .await
        .map_err(trying("look which migrations there were"))
    }

    /// Whether a handler that is granted this role can log in. Roles belong to the whole cluster.
    pub async fn has_role(&self, role: &str) -> Result<bool, Error> {
        sqlx::query_scalar("select exists (select from pg_roles where rolname = $1 and rolcanlogin)")
            .bind(format!("{ROLE_PREFIX}{role}"))
            .fetch_one(&self.pool)
            .await
            .map_err(trying("look for a handler's role"))
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
    pub async fn hints(&self, node: NodeId) -> Result<Hints, Error> {
        // Its own connection: one that listens is no use to anybody else, and must not count against the pool. Under the
        // node's name: as long as Postgres has it, the node's process is there.
        let own = owner::listener(&self.pool, &nodes::listener(node));
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
            "select running.*, r.manifest
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
        let next = &change.to;
        let before = standing(&mut self.tx, &next.name).await?;
        if before.generation() != next.generation {
            return Ok(Switched::Lost { to: before.running().cloned() });
        }
        let generation: i64 = sqlx::query_scalar(
            "with counted as (update switchboard.fleet set generation = generation + 1 returning generation),
             gone as (delete from switchboard.running where name = $1 and $7 = 'retire'),
             put as (
               insert into switchboard.running (name, digest, generation, canary, canary_percent, shadow, shadow_percent)
               select $1, $2, generation, $3, $4, $5, $6 from counted where $7 <> 'retire'
               on conflict (name) do update
               set digest = excluded.digest, generation = excluded.generation, since = now(),
                   canary = excluded.canary, canary_percent = excluded.canary_percent,
                   shadow = excluded.shadow, shadow_percent = excluded.shadow_percent
             ),
             told as (
               insert into switchboard.history (generation, action, name, digest, previous, percent, who, note, report, trace)
               select generation, $7, $1, $8, $9, $10, $11, $12, $13, $14 from counted
             )
             select generation, pg_notify($15, generation::text) from counted",
        )
        .bind(&next.name)
        .bind(next.digest.bytes().as_slice())
        .bind(next.canary.as_ref().map(|canary| canary.digest.bytes().as_slice()))
        .bind(next.canary.map(|canary| i16::from(canary.percent)))
        .bind(next.shadow.as_ref().map(|shadow| shadow.digest.bytes().as_slice()))
        .bind(next.shadow.map(|shadow| i16::from(shadow.percent)))
        .bind(change.action.as_str())
        .bind(change.digest.bytes().as_slice())
        .bind(change.previous.as_ref().map(|previous| previous.bytes().as_slice()))
        .bind(change.percent.map(i16::from))
        .bind(change.by)
        .bind(change.note)
        .bind(change.verdict.map(|verdict| &verdict.report))
        .bind(change.verdict.and_then(|verdict| verdict.trace.as_deref()))
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

async fn standing(connection: &mut PgConnection, name: &str) -> Result<Standing, Error> {
    let runs = sqlx::query("select * from switchboard.running where name = $1")
        .bind(name)
        .try_map(running)
        .fetch_optional(&mut *connection)
        .await
        .map_err(trying("say what runs"))?;
    if let Some(running) = runs {
        return Ok(Standing::Runs(running));
    }
    let gone = sqlx::query(
        "select name, digest, generation from switchboard.history
         where name = $1 and action = 'retire' order by generation desc limit 1",
    )
    .bind(name)
    .try_map(retired)
    .fetch_optional(connection)
    .await
    .map_err(trying("say what runs"))?;
    Ok(gone.map_or(Standing::Unknown, Standing::Retired))
}

fn retired(row: PgRow) -> Result<Retired, sqlx::Error> {
    Ok(Retired {
        name: row.try_get("name")?,
        digest: digest(row.try_get("digest")?)?,
        generation: row.try_get("generation")?,
    })
}

fn running(row: PgRow) -> Result<Running, sqlx::Error> {
    Ok(Running {
        name: row.try_get("name")?,
        digest: digest(row.try_get("digest")?)?,
        generation: row.try_get("generation")?,
        canary: share(&row, "canary", "canary_percent")?,
        shadow: share(&row, "shadow", "shadow_percent")?,
    })
}

fn share(row: &PgRow, of: &str, percent: &str) -> Result<Option<Share>, sqlx::Error> {
    let Some(bytes) = row.try_get::<Option<Vec<u8>>, _>(of)? else { return Ok(None) };
    let percent = u8::try_from(row.try_get::<i16, _>(percent)?)
        .map_err(|_| sqlx::Error::Decode("a share is 1 to 100".into()))?;
    Ok(Some(Share { digest: digest(bytes)?, percent }))
}

fn digest(bytes: Vec<u8>) -> Result<Digest, sqlx::Error> {
    let bytes: [u8; 32] =
        bytes.try_into().map_err(|_| sqlx::Error::Decode("a digest has 32 bytes".into()))?;
    Ok(Digest::from(bytes))
}

#[cfg(test)]
mod tests;
