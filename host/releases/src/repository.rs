//! What Postgres stores about releases, for the whole fleet: the files, which releases run, the history of
//! all switches, and the reports of the nodes. All SQL about releases is here. This module decides nothing:
//! `rollout` decides whether a release may run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::{PgListener, PgPool, PgRow};
use sqlx::{PgConnection, Postgres, Row, Transaction};

use crate::selection::Selection;
use switchboard_core::ids::{Digest, NodeId};
use switchboard_core::limits;
use switchboard_core::manifest::{Manifest, ROLE_PREFIX};
use switchboard_core::{Blame, Blamed};
use switchboard_postgres as postgres;
use switchboard_postgres::{owner, poll};

mod files;
mod key_change;
mod nodes;
mod secrets;
mod settings;
mod shadows;
mod signatures;

pub use files::{FOUND_BY, GUARDED_BY, SkipReason};
pub use key_change::{Resealed, Unopened, check_secrets_open, reseal};
#[cfg(test)]
pub(crate) use key_change::{check_in, reseal_in};
pub use nodes::{Node, NodeAnswer, NodeHandler, Report};
pub use secrets::{MissingSecret, SecretChanged, SecretRecord, StoredSecret};
pub use settings::{LiveSetting, LiveSettings, SettingChange, SettingsEvent};
pub use shadows::ShadowReport;

#[derive(Clone)]
pub struct Repository {
    pool: PgPool,
}

/// A stored release file. Times are RFC 3339, UTC, to the millisecond.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseRecord {
    #[serde(rename = "handler")]
    pub name: String,
    #[serde(rename = "release")]
    pub digest: Digest,
    pub bytes: u64,
    pub by: String,
    pub note: Option<String>,
    pub at: String,
    /// True when the fleet runs this release.
    pub current: bool,
    /// The percentage of the users, when it is a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_percent: Option<i16>,
    /// Whom it selects beside that, when it is a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_selection: Option<Selection>,
    /// The percentage of the calls, when it is a shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_percent: Option<i16>,
}

/// The releases that the fleet should run for a handler.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    pub name: String,
    pub digest: Digest,
    pub generation: i64,
    pub canary: Option<TrafficShare>,
    /// Whom the canary answers beside its share. It selects nobody when there is no canary.
    pub selection: Selection,
    pub shadow: Option<TrafficShare>,
}

/// A canary or a shadow, with its percentage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrafficShare {
    pub digest: Digest,
    pub percent: u8,
}

/// The state of one handler in the fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum HandlerState {
    /// The handler never ran.
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
    /// The generation of the switch that retired it.
    pub generation: i64,
}

impl HandlerState {
    /// The generation of the handler's last switch, or of its last change of settings or secrets. A change
    /// names it, so that a switch since then is noticed.
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

/// A past switch.
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
    /// Whom a canary was to answer beside its percentage of the users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    pub by: String,
    pub note: Option<String>,
    /// The figures for which a canary was withdrawn automatically.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
    /// True when a recording of the first failed call is stored.
    #[serde(default, rename = "traced")]
    pub has_recording: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The release runs from now on.
    Deploy,
    /// The release answers some of the users.
    Canary,
    /// The canary becomes the running release.
    Promote,
    /// The canary ends.
    Withdraw,
    /// The release gets a copy of some of the calls.
    Shadow,
    /// The shadow ends.
    Unshadow,
    /// An earlier release runs again.
    Rollback,
    /// The handler is removed: it answers no call until a deploy or a rollback brings it back.
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

/// A switch to make.
pub struct Change<'a> {
    pub action: Action,
    /// The handler's row after the switch. Its generation is the one that the caller saw, 0 when the handler
    /// never ran. A retirement deletes the row; then the digest is that of the release that ends.
    pub to: Running,
    /// The release of the history entry.
    pub digest: Digest,
    pub previous: Option<Digest>,
    pub percent: Option<u8>,
    pub by: &'a str,
    pub note: Option<&'a str>,
    pub verdict: Option<&'a Verdict>,
}

/// Why a canary is withdrawn automatically.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub report: Value,
    /// A recording of the first call that failed.
    pub recording: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SwitchResult {
    /// The fleet runs the release from this generation on.
    To { generation: i64 },
    /// Another caller switched this handler first.
    Lost { to: Option<Box<Running>> },
}

/// An operation on Postgres that failed.
#[derive(Debug, thiserror::Error)]
#[error("Postgres failed to {attempt}")]
pub struct RepositoryError {
    attempt: &'static str,
    source: Arc<postgres::Error>,
}

impl RepositoryError {
    pub(super) fn timed_out(attempt: &'static str) -> Self {
        Self { attempt, source: Arc::new(postgres::Error::Late) }
    }
}

impl Blamed for RepositoryError {
    fn blame(&self) -> Blame {
        self.source.blame()
    }
}

/// Maps an error: `map_err(failed_to("store a release"))`.
fn failed_to(attempt: &'static str) -> impl FnOnce(sqlx::Error) -> RepositoryError {
    move |source| RepositoryError { attempt, source: Arc::new(source.into()) }
}

/// The error of an attempt that failed in the poll of this node.
pub(super) fn of_postgres(attempt: &'static str, error: &Arc<postgres::Error>) -> RepositoryError {
    RepositoryError { attempt, source: error.clone() }
}

// ---- files ----

impl Repository {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Stores a release file. Storing the same file again changes nothing: the first uploader stays its
    /// author.
    pub async fn store(
        &self,
        digest: Digest,
        manifest: &Manifest,
        file: &[u8],
        by: &str,
        note: Option<&str>,
    ) -> Result<(), RepositoryError> {
        let declared = serde_json::to_value(manifest).map_err(|error| RepositoryError {
            attempt: "store a manifest that is not JSON",
            source: Arc::new(sqlx::Error::Encode(error.into()).into()),
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
        .map_err(failed_to("store a release"))?;
        Ok(())
    }

    pub async fn file(&self, digest: Digest) -> Result<Option<Vec<u8>>, RepositoryError> {
        sqlx::query_scalar("select file from switchboard.releases where digest = $1")
            .bind(digest.bytes().as_slice())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed_to("read a release"))
    }

    /// Returns releases, the newest first: of one handler or of all; all that are stored, or only those that
    /// run.
    pub async fn releases(
        &self,
        name: Option<&str>,
        only_current: bool,
    ) -> Result<Vec<ReleaseRecord>, RepositoryError> {
        sqlx::query(
            "select r.digest, r.name, octet_length(r.file) as bytes, r.created_by, r.note, switchboard.rfc3339(r.created_at) as at,
                    coalesce(w.digest = r.digest, false) as current,
                    case when w.canary = r.digest then w.canary_percent end as canary_percent,
                    case when w.canary = r.digest then w.canary_selection end as canary_selection,
                    case when w.shadow = r.digest then w.shadow_percent end as shadow_percent
             from switchboard.releases r left join switchboard.running w using (name)
             where ($1::text is null or r.name = $1) and (r.digest in (w.digest, w.canary, w.shadow) or not $2)
             order by r.created_at desc limit $3",
        )
        .bind(name)
        .bind(only_current)
        .bind(limits::RELEASES_LISTED_MAX)
        .try_map(|row: PgRow| {
            Ok(ReleaseRecord {
                digest: digest(row.try_get("digest")?)?,
                name: row.try_get("name")?,
                bytes: u64::try_from(row.try_get::<i32, _>("bytes")?).unwrap_or(0),
                by: row.try_get("created_by")?,
                note: row.try_get("note")?,
                at: row.try_get("at")?,
                current: row.try_get("current")?,
                canary_percent: row.try_get("canary_percent")?,
                canary_selection: selection(&row, "canary_selection")?,
                shadow_percent: row.try_get("shadow_percent")?,
            })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("list the releases"))
    }

    /// Returns the releases whose digest begins with these hex digits: at most two, which is enough to see
    /// that the digits are ambiguous.
    pub async fn beginning_with(
        &self,
        name: Option<&str>,
        hex: &str,
    ) -> Result<Vec<Digest>, RepositoryError> {
        sqlx::query(
            "select digest from switchboard.releases
             where starts_with(encode(digest, 'hex'), $2) and ($1::text is null or name = $1) limit 2",
        )
        .bind(name)
        .bind(hex)
        .try_map(|row: PgRow| digest(row.try_get("digest")?))
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("find a release"))
    }

    // ---- what runs ----

    /// Returns the fleet's generation. It is cheap, because each node asks four times a second.
    pub async fn generation(&self) -> Result<i64, RepositoryError> {
        sqlx::query_scalar("select generation from switchboard.fleet")
            .fetch_one(&self.pool)
            .await
            .map_err(failed_to("read the fleet's generation"))
    }

    pub async fn running(&self) -> Result<Vec<Running>, RepositoryError> {
        sqlx::query("select * from switchboard.running order by name")
            .try_map(running)
            .fetch_all(&self.pool)
            .await
            .map_err(failed_to("read the running releases"))
    }

    pub async fn handler_state(&self, name: &str) -> Result<HandlerState, RepositoryError> {
        let mut connection = self.pool.acquire().await.map_err(failed_to("read the running releases"))?;
        handler_state(&mut connection, name).await
    }

    /// Returns the handlers that an operator has retired.
    pub async fn retired(&self) -> Result<Vec<Retired>, RepositoryError> {
        sqlx::query(
            "select distinct on (h.name) h.name, h.digest, h.generation
             from switchboard.history h
             where h.action = 'retire' and not exists (select from switchboard.running w where w.name = h.name)
             order by h.name, h.generation desc",
        )
        .try_map(retired)
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("read the retired handlers"))
    }

    /// Returns the release that ran before the present one. For a retired handler it is the one that was
    /// retired.
    pub async fn previous(&self, name: &str) -> Result<Option<Digest>, RepositoryError> {
        let previous: Option<Vec<u8>> = sqlx::query_scalar(
            "select previous from switchboard.history
             where name = $1 and action in ('deploy', 'promote', 'rollback', 'retire')
             order by generation desc limit 1",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed_to("read the previous release"))?
        .flatten();
        previous.map(digest).transpose().map_err(failed_to("read the previous release"))
    }

    /// Returns the history, the newest entry first.
    pub async fn history(&self, name: Option<&str>) -> Result<Vec<Event>, RepositoryError> {
        sqlx::query(
            "select generation, switchboard.rfc3339(at) as at, action, name, digest, previous, percent,
                    selection, who, note, report, trace is not null as has_recording
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
                selection: selection(&row, "selection")?,
                by: row.try_get("who")?,
                note: row.try_get("note")?,
                report: row.try_get("report")?,
                has_recording: row.try_get("has_recording")?,
            })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("read the history of releases"))
    }

    /// Returns the recording of the first failed call of a canary. `generation` is that of the switch that
    /// withdrew the canary.
    pub async fn recording(&self, generation: i64) -> Result<Option<String>, RepositoryError> {
        let recording: Option<Option<String>> =
            sqlx::query_scalar("select trace from switchboard.history where generation = $1")
                .bind(generation)
                .fetch_optional(&self.pool)
                .await
                .map_err(failed_to("read a recording"))?;
        Ok(recording.flatten())
    }

    /// Returns those of these migrations that this database lacks.
    pub async fn migrations_missing(&self, versions: &[i64]) -> Result<Vec<i64>, RepositoryError> {
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
        .map_err(failed_to("read the migrations"))
    }

    /// True when a handler with this role can log in. Roles belong to the whole server.
    pub async fn has_role(&self, role: &str) -> Result<bool, RepositoryError> {
        sqlx::query_scalar("select exists (select from pg_roles where rolname = $1 and rolcanlogin)")
            .bind(format!("{ROLE_PREFIX}{role}"))
            .fetch_one(&self.pool)
            .await
            .map_err(failed_to("find a handler's role"))
    }

    /// Begins a switch. Until the `Switch` ends, no other switch can happen in the fleet.
    pub async fn switch(&self) -> Result<Switch, RepositoryError> {
        let mut tx = self.pool.begin().await.map_err(failed_to("begin a switch"))?;
        // A bound: a transaction that holds the row for longer hangs.
        sqlx::query("select set_config('lock_timeout', $1, true)")
            .bind(limits::POSTGRES_HOST_LOCK_WAIT.as_millis().to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed_to("begin a switch"))?;
        sqlx::query("select from switchboard.fleet for update")
            .execute(&mut *tx)
            .await
            .map_err(failed_to("lock the fleet for a switch"))?;
        Ok(Switch { tx })
    }

    /// Opens the stream of hints. It yields at every switch, and after the connection was lost, because a
    /// hint may have been missed.
    pub async fn hints(&self, node: NodeId) -> Result<Hints, RepositoryError> {
        // It has a connection of its own: a listening connection cannot be used otherwise, and must not count
        // in the pool. The connection has the node's name: while Postgres has the connection, the node's
        // process is alive.
        let own = owner::listener(&self.pool, &nodes::listener(node));
        let mut listener = PgListener::connect_with(&own).await.map_err(failed_to("listen for switches"))?;
        listener.listen(poll::CHANNEL).await.map_err(failed_to("listen for switches"))?;
        Ok(Hints(listener))
    }
}

/// A switch that is being made. It locks the fleet's row. Dropping it changes nothing.
pub struct Switch {
    tx: Transaction<'static, Postgres>,
}

impl Switch {
    /// Returns the manifest of each running handler, with its state.
    pub async fn running(&mut self) -> Result<Vec<(Running, Manifest)>, RepositoryError> {
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
        .map_err(failed_to("read the running releases"))
    }

    pub async fn to(mut self, change: &Change<'_>) -> Result<SwitchResult, RepositoryError> {
        let attempt = "switch a release";
        let next = &change.to;
        let now = handler_state(&mut self.tx, &next.name).await?;
        // The generation of the row also rises when settings or secrets change. That says nothing against
        // this change. Each switch of a release has an entry in the history.
        let has_switched: bool = sqlx::query_scalar(
            "select exists (select from switchboard.history where name = $1 and generation > $2)",
        )
        .bind(&next.name)
        .bind(next.generation)
        .fetch_one(&mut *self.tx)
        .await
        .map_err(failed_to(attempt))?;
        // It is lower only after a failover to a replica that lagged.
        if has_switched || now.generation() < next.generation {
            return Ok(SwitchResult::Lost { to: now.running().cloned().map(Box::new) });
        }
        let selection = (!next.selection.is_empty())
            .then(|| serde_json::to_value(&next.selection))
            .transpose()
            .map_err(|error| sqlx::Error::Encode(error.into()))
            .map_err(failed_to(attempt))?;
        let generation: i64 = sqlx::query_scalar(
            "with counted as (update switchboard.fleet set generation = generation + 1 returning generation),
             gone as (delete from switchboard.running where name = $1 and $7 = 'retire'),
             put as (
               insert into switchboard.running
                   (name, digest, generation, canary, canary_percent,
                    shadow, shadow_percent, canary_selection)
               select $1, $2, generation, $3, $4, $5, $6, $16::jsonb from counted where $7 <> 'retire'
               on conflict (name) do update
               set digest = excluded.digest, generation = excluded.generation, since = now(),
                   canary = excluded.canary, canary_percent = excluded.canary_percent,
                   shadow = excluded.shadow, shadow_percent = excluded.shadow_percent,
                   canary_selection = excluded.canary_selection
             ),
             entered as (
               insert into switchboard.history
                   (generation, action, name, digest, previous, percent, who, note, report, trace, selection)
               select generation, $7, $1, $8, $9, $10, $11, $12, $13, $14,
                   case when $7 = 'canary' then $16::jsonb end
               from counted
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
        .bind(change.verdict.and_then(|verdict| verdict.recording.as_deref()))
        .bind(poll::CHANNEL)
        .bind(selection)
        .fetch_one(&mut *self.tx)
        .await
        .map_err(failed_to(attempt))?;
        self.tx.commit().await.map_err(failed_to(attempt))?;
        Ok(SwitchResult::To { generation })
    }
}

/// A stream of hints that something in the fleet may have changed.
pub struct Hints(PgListener);

/// A notice that something may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// An operator asked for the retry of an event.
    Retry,
    /// A release or a revocation changed.
    Fleet,
    /// The connection was lost, so hints of both kinds may have been missed.
    Anything,
}

impl Hints {
    /// Waits for the next hint. Ok also after a lost connection; an error when the connection cannot be
    /// opened again.
    pub async fn next(&mut self) -> Result<Hint, RepositoryError> {
        let notification = self.0.try_recv().await.map_err(failed_to("listen for switches"))?;
        Ok(match notification {
            Some(notification) if notification.payload() == poll::RETRY => Hint::Retry,
            Some(_) => Hint::Fleet,
            None => Hint::Anything,
        })
    }
}

async fn handler_state(connection: &mut PgConnection, name: &str) -> Result<HandlerState, RepositoryError> {
    let runs = sqlx::query("select * from switchboard.running where name = $1")
        .bind(name)
        .try_map(running)
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed_to("read the running releases"))?;
    if let Some(running) = runs {
        return Ok(HandlerState::Runs(running));
    }
    let gone = sqlx::query(
        "select name, digest, generation from switchboard.history
         where name = $1 and action = 'retire' order by generation desc limit 1",
    )
    .bind(name)
    .try_map(retired)
    .fetch_optional(connection)
    .await
    .map_err(failed_to("read the running releases"))?;
    Ok(gone.map_or(HandlerState::Unknown, HandlerState::Retired))
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
        selection: selection(&row, "canary_selection")?.unwrap_or_default(),
        shadow: share(&row, "shadow", "shadow_percent")?,
    })
}

fn share(row: &PgRow, of: &str, percent: &str) -> Result<Option<TrafficShare>, sqlx::Error> {
    let Some(bytes) = row.try_get::<Option<Vec<u8>>, _>(of)? else { return Ok(None) };
    let percent = u8::try_from(row.try_get::<i16, _>(percent)?)
        .map_err(|_| sqlx::Error::Decode("a percentage is 1 to 100".into()))?;
    Ok(Some(TrafficShare { digest: digest(bytes)?, percent }))
}

/// A selection that this version cannot read makes the row unreadable: it must not answer other users.
fn selection(row: &PgRow, column: &str) -> Result<Option<Selection>, sqlx::Error> {
    let stored: Option<Value> = row.try_get(column)?;
    stored.map(serde_json::from_value).transpose().map_err(|error| sqlx::Error::Decode(error.into()))
}

fn digest(bytes: Vec<u8>) -> Result<Digest, sqlx::Error> {
    let bytes: [u8; 32] =
        bytes.try_into().map_err(|_| sqlx::Error::Decode("a digest has 32 bytes".into()))?;
    Ok(Digest::from(bytes))
}

#[cfg(test)]
mod tests;
