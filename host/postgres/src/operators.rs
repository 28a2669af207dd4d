//! Admin tokens, and the audit log of the actions that were done with them. A token is stored as its digest.
//! It needs no salt, because it is 32 random bytes that nobody can guess.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};

use crate::{Error, storable};
use switchboard_core::ids::Digest;

/// An admin token without the token itself. Times are RFC 3339, UTC, to the millisecond.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Operator {
    pub name: String,
    pub role: String,
    pub made_by: String,
    pub made_at: String,
}

/// One audited action. `status` is null while the action runs. It stays null when the node crashed during the
/// action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub id: i64,
    pub at: String,
    pub who: String,
    pub role: String,
    pub action: String,
    /// The object of the action, when `action` does not name it.
    pub detail: Option<String>,
    pub request_id: String,
    pub status: Option<i32>,
    pub outcome: Option<String>,
}

/// The part of an audit entry that is known before the action runs.
pub struct Begun<'a> {
    pub who: &'a str,
    pub role: &'a str,
    pub action: &'a str,
    pub request_id: &'a str,
}

// ---- tokens ----

/// The tables of the admin tokens and of the audit log.
#[derive(Clone)]
pub struct Operators(PgPool);

impl Operators {
    /// `pool` is the host's pool.
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// Adds a token. Returns false when the name is taken.
    pub async fn add(&self, name: &str, role: &str, token: Digest, by: &str) -> Result<bool, Error> {
        let added = sqlx::query(
            "insert into switchboard.operators (name, role, token_digest, made_by) values ($1, $2, $3, $4)
             on conflict (name) do nothing",
        )
        .bind(name)
        .bind(role)
        .bind(token.bytes().as_slice())
        .bind(by)
        .execute(&self.0)
        .await?;
        Ok(added.rows_affected() == 1)
    }

    /// Returns the name and the role of the operator who has this token.
    pub async fn find(&self, token: Digest) -> Result<Option<(String, String)>, Error> {
        sqlx::query("select name, role from switchboard.operators where token_digest = $1")
            .bind(token.bytes().as_slice())
            .try_map(|row: PgRow| Ok((row.try_get("name")?, row.try_get("role")?)))
            .fetch_optional(&self.0)
            .await
            .map_err(Error::Statement)
    }

    pub async fn list(&self) -> Result<Vec<Operator>, Error> {
        sqlx::query(
            "select name, role, made_by, switchboard.rfc3339(made_at) as made_at
             from switchboard.operators order by name",
        )
        .try_map(|row: PgRow| {
            Ok(Operator {
                name: row.try_get("name")?,
                role: row.try_get("role")?,
                made_by: row.try_get("made_by")?,
                made_at: row.try_get("made_at")?,
            })
        })
        .fetch_all(&self.0)
        .await
        .map_err(Error::Statement)
    }

    /// Removes a token. Returns false when there is no token of this name.
    pub async fn remove(&self, name: &str) -> Result<bool, Error> {
        let removed = sqlx::query("delete from switchboard.operators where name = $1").bind(name);
        Ok(removed.execute(&self.0).await?.rows_affected() == 1)
    }
}

// ---- the audit ----

impl Operators {
    /// Writes the audit entry before the action runs, so that no action is missing. Returns the entry's id.
    pub async fn begin(&self, begun: &Begun<'_>) -> Result<i64, Error> {
        sqlx::query_scalar(
            "insert into switchboard.audit (who, role, action, request_id) values ($1, $2, $3, $4) returning id",
        )
        .bind(begun.who)
        .bind(begun.role)
        .bind(begun.action)
        .bind(begun.request_id)
        .fetch_one(&self.0)
        .await
        .map_err(Error::Statement)
    }

    /// Completes an entry. `detail` may contain any text that the operator sent.
    pub async fn end(&self, id: i64, status: u16, outcome: &str, detail: Option<&str>) -> Result<(), Error> {
        let detail = detail.map(storable);
        sqlx::query("update switchboard.audit set status = $2, outcome = $3, detail = $4 where id = $1")
            .bind(id)
            .bind(i32::from(status))
            .bind(outcome)
            .bind(detail.as_deref())
            .execute(&self.0)
            .await?;
        Ok(())
    }

    /// Returns the newest entries first; with `before`, only entries with a lower id.
    pub async fn entries(&self, before: Option<i64>, limit: i64) -> Result<Vec<Entry>, Error> {
        sqlx::query(
            "select id, switchboard.rfc3339(at) as at, who, role, action, detail, request_id, status, outcome
             from switchboard.audit where id < coalesce($1, 9223372036854775807) order by id desc limit $2",
        )
        .bind(before)
        .bind(limit)
        .try_map(|row: PgRow| {
            Ok(Entry {
                id: row.try_get("id")?,
                at: row.try_get("at")?,
                who: row.try_get("who")?,
                role: row.try_get("role")?,
                action: row.try_get("action")?,
                detail: row.try_get("detail")?,
                request_id: row.try_get("request_id")?,
                status: row.try_get("status")?,
                outcome: row.try_get("outcome")?,
            })
        })
        .fetch_all(&self.0)
        .await
        .map_err(Error::Statement)
    }

    /// Deletes the entries older than `days`. The host calls it after a fixed number of entries, so that it
    /// never has much to do.
    pub async fn forget(&self, kept: Duration) -> Result<u64, Error> {
        let deleted =
            sqlx::query("delete from switchboard.audit where at < now() - make_interval(secs => $1)");
        Ok(deleted.bind(kept.as_secs_f64()).execute(&self.0).await?.rows_affected())
    }
}
