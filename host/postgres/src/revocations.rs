//! Revoked tokens in Postgres. `switchboard_server::revocations` decides what they mean.

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{Connection, Row};

use crate::Error;
use crate::poll::CHANNEL;
use switchboard_core::limits;

/// Which tokens are revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The one token with this `jti`.
    Token(String),
    /// Every token of the user that was issued before this time, in milliseconds since 1970 UTC.
    User { user_id: String, before_ms: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub revoked: Revoked,
    /// The time after which all these tokens have expired, in milliseconds since 1970 UTC.
    pub forget_ms: u64,
}

/// The table of the revoked tokens.
#[derive(Clone)]
pub struct Revocations(PgPool);

impl Revocations {
    /// `pool` is the host's pool.
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// Stores a revocation. A repeated revocation lasts until the later of both times, and the later
    /// `before_ms` of a user counts.
    pub async fn add(&self, revocation: &Revocation, by: &str) -> Result<(), Error> {
        let (jti, user_id, before_ms) = match &revocation.revoked {
            Revoked::Token(jti) => (Some(jti), None, None),
            Revoked::User { user_id, before_ms } => (None, Some(user_id), Some(before_ms)),
        };
        let mut connection = self.0.acquire().await?;
        let mut transaction = connection.begin().await?;
        sqlx::query("select set_config('lock_timeout', $1, true)")
            .bind(limits::POSTGRES_HOST_LOCK_WAIT.as_millis().to_string())
            .execute(&mut *transaction)
            .await?;
        // Readers are not blocked. Writers wait for each other, so that positions become visible in their
        // order.
        sqlx::query("lock table switchboard.revocations in share row exclusive mode")
            .execute(&mut *transaction)
            .await?;
        // Each `jti` or user has one row. An existing row is replaced by one that covers both.
        sqlx::query(
            "with old as (
               delete from switchboard.revocations where jti = $1 or user_id = $2
               returning issued_before, forget_at
             )
             insert into switchboard.revocations (jti, user_id, issued_before, forget_at, made_by)
             select $1, $2,
                    greatest(to_timestamp($3::float8 / 1000), (select max(issued_before) from old)),
                    greatest(to_timestamp($4::float8 / 1000), (select max(forget_at) from old)), $5",
        )
        .bind(jti)
        .bind(user_id)
        .bind(before_ms.map(|ms| *ms as f64))
        .bind(revocation.forget_ms as f64)
        .bind(by)
        .execute(&mut *transaction)
        .await?;
        // At the commit, every node polls.
        sqlx::query("select pg_notify($1, 'revocations')").bind(CHANNEL).execute(&mut *transaction).await?;
        transaction.commit().await.map_err(Error::Statement)
    }

    /// Returns at most `limit` revocations after a position, in order, each with its own position.
    pub async fn after(&self, position: i64, limit: i64) -> Result<Vec<(i64, Revocation)>, Error> {
        sqlx::query(
            "select position, jti, user_id, (extract(epoch from issued_before) * 1000)::bigint as before_ms,
                    (extract(epoch from forget_at) * 1000)::bigint as forget_ms
             from switchboard.revocations where position > $1 order by position limit $2",
        )
        .bind(position)
        .bind(limit)
        .try_map(|row: PgRow| {
            let ms = |name: &str| row.try_get::<i64, _>(name).map(|ms| u64::try_from(ms).unwrap_or(0));
            let revoked = match row.try_get::<Option<String>, _>("jti")? {
                Some(jti) => Revoked::Token(jti),
                None => Revoked::User { user_id: row.try_get("user_id")?, before_ms: ms("before_ms")? },
            };
            Ok((row.try_get("position")?, Revocation { revoked, forget_ms: ms("forget_ms")? }))
        })
        .fetch_all(&self.0)
        .await
        .map_err(Error::Statement)
    }

    /// Deletes the revocations whose tokens have all expired. Returns their number.
    pub async fn clean(&self) -> Result<u64, Error> {
        let deleted = sqlx::query("delete from switchboard.revocations where forget_at <= now()");
        Ok(deleted.execute(&self.0).await?.rows_affected())
    }
}
