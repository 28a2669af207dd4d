//! The live settings of handlers in Postgres, and the history of their changes. A change is a switch: it
//! raises the fleet's generation, and every node follows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Executor, Postgres, Row};

use super::{Repository, RepositoryError, Switch, digest, failed_to};
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::manifest::Manifest;
use switchboard_postgres::poll;
use switchboard_runtime::Inputs;

/// The live settings of a handler, by key.
pub type LiveSettings = BTreeMap<String, LiveSetting>;

/// The value that an operator has set. There is no `Debug`, because the value may be a secret.
#[derive(Clone, PartialEq)]
pub struct LiveSetting {
    pub value: String,
    /// The generation of the change that set it.
    pub generation: i64,
    pub by: String,
    pub at: String,
}

/// The change of one setting. `None`: the key is not set.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingChange {
    pub key: String,
    pub from: Option<String>,
    pub to: Option<String>,
}

/// A past change of the settings of a handler.
#[derive(Clone, PartialEq)]
pub struct SettingsEvent {
    pub generation: i64,
    pub at: String,
    pub by: String,
    pub note: Option<String>,
    pub changes: Vec<SettingChange>,
}

impl Repository {
    /// Reads the inputs of a handler's releases that the fleet stores in clear text: all but the secrets.
    pub async fn inputs(&self, manifest: &Manifest) -> Result<Inputs, RepositoryError> {
        let live = self.settings(&manifest.name).await?;
        let live = live.into_iter().map(|(key, setting)| (key, setting.value)).collect();
        Ok(Inputs { live, ..Inputs::default() })
    }

    /// Reads the live settings of a handler. Empty for a handler that has none, or that nobody knows.
    pub async fn settings(&self, handler: &str) -> Result<LiveSettings, RepositoryError> {
        settings(&self.pool, handler).await
    }

    /// Returns the releases that use the settings of a handler: the running one first, then its canary and
    /// its shadow; or the one that was retired. Empty for a handler that never ran.
    pub async fn settings_users(&self, handler: &str) -> Result<Vec<(Digest, Manifest)>, RepositoryError> {
        users(&self.pool, handler).await
    }

    /// Returns the generation of the last change of a handler's settings; 0 if there was none.
    pub async fn last_settings_change(&self, handler: &str) -> Result<i64, RepositoryError> {
        last_change(&self.pool, handler).await
    }

    /// Returns the live nodes that override settings of a handler, by address, with the keys.
    pub async fn overrides(&self, handler: &str) -> Result<Vec<(String, Vec<String>)>, RepositoryError> {
        sqlx::query_as(
            "select node.address, report.overrides
             from switchboard.nodes as node join switchboard.node_handlers as report on report.node = node.id
             where report.name = $1 and report.overrides <> '{}'
               and node.heartbeat_at > now() - make_interval(secs => $2)
             order by node.address",
        )
        .bind(handler)
        .bind(limits::NODE_SILENT_AFTER.as_secs_f64())
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("read the overrides of the nodes"))
    }

    /// Returns the changes of a handler's settings, the newest first.
    pub async fn settings_history(&self, handler: &str) -> Result<Vec<SettingsEvent>, RepositoryError> {
        sqlx::query(
            "select generation, switchboard.rfc3339(at) as at, who, note, changes
             from switchboard.settings_history where handler = $1 order by generation desc limit $2",
        )
        .bind(handler)
        .bind(limits::SETTINGS_HISTORY_KEPT)
        .try_map(|row: PgRow| {
            let Json(changes) = row.try_get("changes")?;
            Ok(SettingsEvent {
                generation: row.try_get("generation")?,
                at: row.try_get("at")?,
                by: row.try_get("who")?,
                note: row.try_get("note")?,
                changes,
            })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("read the history of settings"))
    }
}

impl Switch {
    /// Reads the live settings of a handler, while no other switch can happen.
    pub async fn settings(&mut self, handler: &str) -> Result<LiveSettings, RepositoryError> {
        settings(&mut *self.tx, handler).await
    }

    /// Like [`Repository::settings_users`], while no other switch can happen.
    pub async fn settings_users(
        &mut self,
        handler: &str,
    ) -> Result<Vec<(Digest, Manifest)>, RepositoryError> {
        users(&mut *self.tx, handler).await
    }

    /// Like [`Repository::last_settings_change`], while no other switch can happen.
    pub async fn last_settings_change(&mut self, handler: &str) -> Result<i64, RepositoryError> {
        last_change(&mut *self.tx, handler).await
    }

    /// Returns the values after the change of this generation. Without a generation: those before the last
    /// change. None: the handler has no such change.
    pub async fn settings_of(
        &mut self,
        handler: &str,
        generation: Option<i64>,
    ) -> Result<Option<BTreeMap<String, String>>, RepositoryError> {
        let attempt = "read the history of settings";
        let rows: Vec<Json<BTreeMap<String, String>>> = sqlx::query_scalar(
            "select after from switchboard.settings_history
             where handler = $1 and ($2::bigint is null or generation = $2) order by generation desc limit 2",
        )
        .bind(handler)
        .bind(generation)
        .fetch_all(&mut *self.tx)
        .await
        .map_err(failed_to(attempt))?;
        let mut rows = rows.into_iter().map(|Json(values)| values);
        let newest = rows.next();
        Ok(match generation {
            Some(_) => newest,
            // Before the first change, nothing was set. More changes than two are kept, so a change without a
            // row before it is the first one.
            None => newest.map(|_| rows.next().unwrap_or_default()),
        })
    }

    /// Returns the number of handlers that have live settings, without this one.
    pub async fn other_handlers_with_settings(&mut self, handler: &str) -> Result<i64, RepositoryError> {
        sqlx::query_scalar("select count(distinct handler) from switchboard.settings where handler <> $1")
            .bind(handler)
            .fetch_one(&mut *self.tx)
            .await
            .map_err(failed_to("count the handlers with settings"))
    }

    /// Makes these changes and commits the switch. Returns its generation. The row of the running handler
    /// gets the generation too, so that every node applies the settings.
    pub async fn change_settings(
        mut self,
        handler: &str,
        changes: &[SettingChange],
        by: &str,
        note: Option<&str>,
    ) -> Result<i64, RepositoryError> {
        let attempt = "change settings";
        let generation: i64 = sqlx::query_scalar(
            "with counted as (update switchboard.fleet set generation = generation + 1 returning generation),
             runs as (update switchboard.running set generation = counted.generation from counted where name = $1)
             select generation, pg_notify($2, generation::text) from counted",
        )
        .bind(handler)
        .bind(poll::CHANNEL)
        .fetch_one(&mut *self.tx)
        .await
        .map_err(failed_to(attempt))?;
        let gone = changes.iter().filter(|change| change.to.is_none());
        let gone: Vec<&str> = gone.map(|change| change.key.as_str()).collect();
        sqlx::query("delete from switchboard.settings where handler = $1 and key = any ($2)")
            .bind(handler)
            .bind(gone)
            .execute(&mut *self.tx)
            .await
            .map_err(failed_to(attempt))?;
        let set = changes.iter().filter_map(|change| Some((change.key.as_str(), change.to.as_deref()?)));
        let (keys, values): (Vec<&str>, Vec<&str>) = set.unzip();
        sqlx::query(
            "insert into switchboard.settings (handler, key, value, generation, set_by)
             select $1, key, value, $4, $5 from unnest($2::text[], $3::text[]) as changed (key, value)
             on conflict (handler, key) do update
             set value = excluded.value, generation = excluded.generation, set_by = excluded.set_by, set_at = now()",
        )
        .bind(handler)
        .bind(keys)
        .bind(values)
        .bind(generation)
        .bind(by)
        .execute(&mut *self.tx)
        .await
        .map_err(failed_to(attempt))?;
        sqlx::query(
            "with kept as (
               insert into switchboard.settings_history (generation, handler, who, note, changes, after)
               select $1, $2, $3, $4, $5, coalesce(jsonb_object_agg(key, value), '{}')
               from switchboard.settings where handler = $2
             )
             delete from switchboard.settings_history where handler = $2 and generation <= (
               select generation from switchboard.settings_history where handler = $2
               order by generation desc offset $6 limit 1)",
        )
        .bind(generation)
        .bind(handler)
        .bind(by)
        .bind(note)
        .bind(Json(changes))
        // The new row is not visible to the statement that inserts it.
        .bind(limits::SETTINGS_HISTORY_KEPT - 1)
        .execute(&mut *self.tx)
        .await
        .map_err(failed_to(attempt))?;
        self.tx.commit().await.map_err(failed_to(attempt))?;
        Ok(generation)
    }
}

async fn users<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    handler: &str,
) -> Result<Vec<(Digest, Manifest)>, RepositoryError> {
    sqlx::query(
        "select r.digest, r.manifest
         from (select digest, 1 as place from switchboard.running where name = $1
               union all
               select canary, 2 from switchboard.running where name = $1
               union all
               select shadow, 3 from switchboard.running where name = $1
               union all
               (select digest, 4 from switchboard.history
                where name = $1 and action = 'retire'
                  and not exists (select from switchboard.running where name = $1)
                order by generation desc limit 1)) as used
         join switchboard.releases as r using (digest) order by used.place",
    )
    .bind(handler)
    .try_map(|row: PgRow| {
        let manifest = serde_json::from_value(row.try_get("manifest")?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok((digest(row.try_get("digest")?)?, manifest))
    })
    .fetch_all(executor)
    .await
    .map_err(failed_to("read the releases that use settings"))
}

async fn last_change<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    handler: &str,
) -> Result<i64, RepositoryError> {
    sqlx::query_scalar(
        "select coalesce(max(generation), 0) from switchboard.settings_history where handler = $1",
    )
    .bind(handler)
    .fetch_one(executor)
    .await
    .map_err(failed_to("read the history of settings"))
}

async fn settings<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    handler: &str,
) -> Result<LiveSettings, RepositoryError> {
    let rows = sqlx::query(
        "select key, value, generation, set_by, switchboard.rfc3339(set_at) as at
         from switchboard.settings where handler = $1",
    )
    .bind(handler)
    .try_map(|row: PgRow| {
        let setting = LiveSetting {
            value: row.try_get("value")?,
            generation: row.try_get("generation")?,
            by: row.try_get("set_by")?,
            at: row.try_get("at")?,
        };
        Ok((row.try_get::<String, _>("key")?, setting))
    })
    .fetch_all(executor)
    .await
    .map_err(failed_to("read the live settings"))?;
    Ok(rows.into_iter().collect())
}
