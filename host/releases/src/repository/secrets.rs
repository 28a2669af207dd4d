//! The secrets of the fleet, sealed. A change is a switch: it raises the fleet's generation, and that of
//! every handler with a release that is granted the secret, so that nodes make the terms of these releases
//! again.

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{Executor, Postgres, Row};

use super::{Repository, RepositoryError, Switch, failed_to};
use crate::sealing::{Sealed, SealedError, Sealing};
use switchboard_postgres::poll;

/// A stored secret, without its value. Times are RFC 3339, UTC, to the millisecond.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecretRecord {
    pub name: String,
    /// The size of the value.
    pub bytes: i64,
    pub version: i64,
    pub by: String,
    pub at: String,
    /// The handlers whose running release, canary or shadow is granted it.
    pub used_by: Vec<String>,
}

/// A secret that releases are granted which run, as a canary or a shadow too, and that no operator has set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MissingSecret {
    pub name: String,
    /// The handlers of these releases. Their calls get the answer `missing`.
    pub used_by: Vec<String>,
}

/// A stored secret with its sealed value.
#[derive(Clone)]
pub struct StoredSecret {
    pub name: String,
    pub version: i64,
    pub sealed: Sealed,
}

impl StoredSecret {
    /// # Errors
    /// When this node cannot open it.
    pub fn open(&self, sealing: &Sealing) -> Result<Vec<u8>, SealedError> {
        sealing.open(&self.name, self.version, &self.sealed)
    }
}

/// A change of a secret that was committed.
#[derive(Debug, PartialEq)]
pub struct SecretChanged {
    pub generation: i64,
    /// The handlers whose nodes follow.
    pub used_by: Vec<String>,
}

/// The handlers with a release that is granted the secret `$1`.
const USERS: &str = "select w.name from switchboard.running w
    where exists (select from switchboard.releases r
                  where r.digest in (w.digest, w.canary, w.shadow)
                    and r.manifest -> 'grants' -> 'secrets' ? $1)";

impl Repository {
    /// Returns the secrets of these names that are set.
    pub async fn secrets(&self, names: &[String]) -> Result<Vec<StoredSecret>, RepositoryError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        sqlx::query("select name, version, key_id, sealed from switchboard.secrets where name = any($1)")
            .bind(names)
            .try_map(stored)
            .fetch_all(&self.pool)
            .await
            .map_err(failed_to("read secrets"))
    }

    /// Returns those of these names that no operator has set.
    pub async fn secrets_missing(&self, names: &[String]) -> Result<Vec<String>, RepositoryError> {
        missing(&self.pool, names).await
    }

    /// Returns the secrets that are granted to what the fleet runs and that no operator has set, by name.
    pub async fn secrets_wanted(&self) -> Result<Vec<MissingSecret>, RepositoryError> {
        sqlx::query(
            "select granted.name, array_agg(distinct w.name order by w.name) as used_by
             from switchboard.running w
             join switchboard.releases r on r.digest in (w.digest, w.canary, w.shadow)
             cross join lateral jsonb_array_elements_text(r.manifest -> 'grants' -> 'secrets') as granted (name)
             where not exists (select from switchboard.secrets s where s.name = granted.name)
             group by granted.name order by granted.name",
        )
        .try_map(|row: PgRow| {
            Ok(MissingSecret { name: row.try_get("name")?, used_by: row.try_get("used_by")? })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("find the secrets that are not set"))
    }

    /// Returns all secrets, by name.
    pub async fn secrets_listed(&self) -> Result<Vec<SecretRecord>, RepositoryError> {
        sqlx::query(
            "select s.name, octet_length(s.sealed)::bigint - 28 as bytes, s.version, s.set_by,
                    switchboard.rfc3339(s.set_at) as at,
                    array(select w.name from switchboard.running w
                          where exists (select from switchboard.releases r
                                        where r.digest in (w.digest, w.canary, w.shadow)
                                          and r.manifest -> 'grants' -> 'secrets' ? s.name)
                          order by w.name) as used_by
             from switchboard.secrets s order by s.name",
        )
        .try_map(|row: PgRow| {
            Ok(SecretRecord {
                name: row.try_get("name")?,
                bytes: row.try_get("bytes")?,
                version: row.try_get("version")?,
                by: row.try_get("set_by")?,
                at: row.try_get("at")?,
                used_by: row.try_get("used_by")?,
            })
        })
        .fetch_all(&self.pool)
        .await
        .map_err(failed_to("list the secrets"))
    }
}

impl Switch {
    /// Returns those of these names that no operator has set, while no other switch can happen.
    pub async fn secrets_missing(&mut self, names: &[String]) -> Result<Vec<String>, RepositoryError> {
        missing(&mut *self.tx, names).await
    }

    /// Returns the version that the next value of this secret has, and the id of the key of the fleet. No
    /// secret gets a version that it had before it was removed.
    pub async fn next_secret(&mut self, name: &str) -> Result<(i64, Option<String>), RepositoryError> {
        let row = sqlx::query(
            "select coalesce((select version from switchboard.secrets where name = $1), secrets_removed_version) + 1
                      as version,
                    secrets_key from switchboard.fleet",
        )
        .bind(name)
        .fetch_one(&mut *self.tx)
        .await
        .map_err(failed_to("read a secret"))?;
        let read = || -> sqlx::Result<_> { Ok((row.try_get("version")?, row.try_get("secrets_key")?)) };
        read().map_err(failed_to("read a secret"))
    }

    /// Returns the number of secrets other than this one.
    pub async fn other_secrets(&mut self, name: &str) -> Result<i64, RepositoryError> {
        sqlx::query_scalar("select count(*) from switchboard.secrets where name <> $1")
            .bind(name)
            .fetch_one(&mut *self.tx)
            .await
            .map_err(failed_to("count the secrets"))
    }

    /// Returns the size of those of these secrets that are set.
    pub async fn secrets_bytes(&mut self, names: &[String]) -> Result<i64, RepositoryError> {
        sqlx::query_scalar(
            "select coalesce(sum(octet_length(sealed) - 28), 0)::bigint from switchboard.secrets
             where name = any($1)",
        )
        .bind(names)
        .fetch_one(&mut *self.tx)
        .await
        .map_err(failed_to("add up the secrets"))
    }

    /// Of the releases that run and are granted this secret, finds the one whose other secrets are the
    /// largest. Returns its handler and the size of the others.
    pub async fn largest_user_of_secret(
        &mut self,
        name: &str,
    ) -> Result<Option<(String, i64)>, RepositoryError> {
        sqlx::query_as(
            "select w.name, coalesce(sum(octet_length(s.sealed) - 28), 0)::bigint as others
             from switchboard.running w
             join switchboard.releases r on r.digest in (w.digest, w.canary, w.shadow)
             left join switchboard.secrets s on s.name <> $1 and r.manifest -> 'grants' -> 'secrets' ? s.name
             where r.manifest -> 'grants' -> 'secrets' ? $1
             group by w.name, r.digest order by others desc limit 1",
        )
        .bind(name)
        .fetch_optional(&mut *self.tx)
        .await
        .map_err(failed_to("add up the secrets"))
    }

    /// Returns the handlers with a release that is granted the secret, by name.
    pub async fn users_of_secret(&mut self, name: &str) -> Result<Vec<String>, RepositoryError> {
        sqlx::query_scalar(USERS)
            .bind(name)
            .fetch_all(&mut *self.tx)
            .await
            .map_err(failed_to("find the handlers of a secret"))
    }

    /// Stores the value and commits.
    pub async fn set_secret(self, secret: &StoredSecret, by: &str) -> Result<SecretChanged, RepositoryError> {
        self.change_secret(&secret.name, Some(secret), by).await
    }

    /// Removes the secret and commits. None: it was not set, and nothing changed.
    pub async fn remove_secret(mut self, name: &str) -> Result<Option<SecretChanged>, RepositoryError> {
        let remembered = sqlx::query(
            "with removed as (delete from switchboard.secrets where name = $1 returning version)
             update switchboard.fleet
             set secrets_removed_version = greatest(secrets_removed_version, removed.version) from removed",
        )
        .bind(name)
        .execute(&mut *self.tx)
        .await
        .map_err(failed_to("remove a secret"))?;
        if remembered.rows_affected() == 0 {
            return Ok(None);
        }
        self.change_secret(name, None, "").await.map(Some)
    }

    async fn change_secret(
        mut self,
        name: &str,
        next: Option<&StoredSecret>,
        by: &str,
    ) -> Result<SecretChanged, RepositoryError> {
        let attempt = "change a secret";
        let used_by = self.users_of_secret(name).await?;
        let generation: i64 = sqlx::query_scalar(
            "with counted as (update switchboard.fleet set generation = generation + 1 returning generation),
             put as (
               insert into switchboard.secrets (name, version, key_id, sealed, generation, set_by)
               select $1, $3, $4, $5, generation, $6 from counted where $5 is not null
               on conflict (name) do update
               set version = excluded.version, key_id = excluded.key_id, sealed = excluded.sealed,
                   generation = excluded.generation, set_by = excluded.set_by, set_at = now()
             ),
             moved as (
               update switchboard.running w set generation = counted.generation from counted where w.name = any($2)
             )
             select generation, pg_notify($7, generation::text) from counted",
        )
        .bind(name)
        .bind(&used_by)
        .bind(next.map(|secret| secret.version))
        .bind(next.map(|secret| secret.sealed.key_id.as_str()))
        .bind(next.map(|secret| secret.sealed.bytes.as_slice()))
        .bind(by)
        .bind(poll::CHANNEL)
        .fetch_one(&mut *self.tx)
        .await
        .map_err(failed_to(attempt))?;
        self.tx.commit().await.map_err(failed_to(attempt))?;
        Ok(SecretChanged { generation, used_by })
    }
}

async fn missing<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    names: &[String],
) -> Result<Vec<String>, RepositoryError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(
        "select name from unnest($1::text[]) with ordinality as asked (name, place)
         where not exists (select from switchboard.secrets s where s.name = asked.name) order by place",
    )
    .bind(names)
    .fetch_all(executor)
    .await
    .map_err(failed_to("read the names of secrets"))
}

pub(super) fn stored(row: PgRow) -> Result<StoredSecret, sqlx::Error> {
    Ok(StoredSecret {
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        sealed: Sealed { key_id: row.try_get("key_id")?, bytes: row.try_get("sealed")? },
    })
}
