//! The change of the key under which the fleet's secrets are sealed: `switchboard migrate` seals them again
//! when operators have changed `secret`. The values stay the same, so no node has to read them again.

use std::sync::Arc;

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::secrets::{StoredSecret, stored};
use super::{RepositoryError, failed_to, of_postgres};
use crate::Error;
use crate::sealing::{SealedError, Sealing};
use switchboard_core::Error as ConfigError;
use switchboard_core::config::Config;
use switchboard_core::limits;
use switchboard_postgres::owner;

/// Says how this process treats secrets that it cannot open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// Nothing is sealed again, and the error names them.
    Refuse,
    /// They stay as they are, and no node with only the new `secret` can read them.
    Leave,
}

/// The result of sealing all secrets again.
#[derive(Debug, Default, PartialEq)]
pub struct Resealed {
    /// The number of secrets that had another key before.
    pub count: usize,
    /// The secrets that stay as they are, with the reasons.
    pub unopened: Vec<SealedError>,
}

/// Checks that this process can open all secrets that have another key than that of `secret`. It changes
/// nothing. A database without the table of secrets has none.
///
/// # Errors
/// `SecretsUnopened`, or a setting is missing, or Postgres fails.
pub async fn check_secrets_open(config: &Config) -> Result<(), Error> {
    let (mut connection, sealing) = connect(config).await?;
    let checked = check_in(&mut connection, &sealing).await;
    let _ = connection.close().await;
    checked
}

/// Seals all secrets under the key of `secret`, in one transaction, and makes it the key of the fleet.
///
/// # Errors
/// A secret does not open and `unopened` refuses that, or a setting is missing, or Postgres fails. Then
/// nothing has changed.
pub async fn reseal(config: &Config, unopened: Unopened) -> Result<Resealed, Error> {
    let (mut connection, sealing) = connect(config).await?;
    let resealed = reseal_in(&mut connection, &sealing, unopened).await;
    let _ = connection.close().await;
    resealed
}

async fn connect(config: &Config) -> Result<(PgConnection, Sealing), Error> {
    let of_setting = |missing: ConfigError| Error::Host(missing.to_string());
    let sealing = Sealing::of(config).map_err(of_setting)?;
    let url = config.database_url().map_err(of_setting)?;
    let connected = owner::connect(url, "switchboard migrate").await;
    let connection =
        connected.map_err(|error| of_postgres("connect for sealing the secrets again", &Arc::new(error)))?;
    Ok((connection, sealing))
}

pub(crate) async fn check_in(connection: &mut PgConnection, sealing: &Sealing) -> Result<(), Error> {
    let exists: bool = sqlx::query_scalar("select to_regclass('switchboard.secrets') is not null")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed_to("find the table of secrets"))?;
    if !exists {
        return Ok(());
    }
    let others = with_another_key(connection, sealing).await?;
    let unopened: Vec<_> = others.iter().filter_map(|secret| secret.open(sealing).err()).collect();
    if unopened.is_empty() { Ok(()) } else { Err(Error::SecretsUnopened(unopened)) }
}

pub(crate) async fn reseal_in(
    connection: &mut PgConnection,
    sealing: &Sealing,
    unopened: Unopened,
) -> Result<Resealed, Error> {
    let attempt = "seal the secrets again";
    let mut tx = connection.begin().await.map_err(failed_to(attempt))?;
    // A bound: a switch that holds the row for longer hangs.
    sqlx::query("select set_config('lock_timeout', $1, true)")
        .bind(limits::POSTGRES_HOST_LOCK_WAIT.as_millis().to_string())
        .execute(&mut *tx)
        .await
        .map_err(failed_to(attempt))?;
    // Nothing is set meanwhile.
    sqlx::query("select from switchboard.fleet for update")
        .execute(&mut *tx)
        .await
        .map_err(failed_to("lock the fleet for sealing the secrets again"))?;
    let mut resealed = Resealed::default();
    for secret in with_another_key(&mut tx, sealing).await? {
        let value = match secret.open(sealing) {
            Ok(value) => value,
            Err(error) => {
                resealed.unopened.push(error);
                continue;
            }
        };
        let sealed = sealing.seal(&secret.name, secret.version, &value, None);
        sqlx::query("update switchboard.secrets set key_id = $2, sealed = $3 where name = $1")
            .bind(&secret.name)
            .bind(&sealed.key_id)
            .bind(&sealed.bytes)
            .execute(&mut *tx)
            .await
            .map_err(failed_to(attempt))?;
        resealed.count += 1;
    }
    if unopened == Unopened::Refuse && !resealed.unopened.is_empty() {
        tx.rollback().await.map_err(failed_to(attempt))?;
        return Err(Error::SecretsUnopened(resealed.unopened));
    }
    sqlx::query("update switchboard.fleet set secrets_key = $1")
        .bind(sealing.key_id())
        .execute(&mut *tx)
        .await
        .map_err(failed_to(attempt))?;
    tx.commit().await.map_err(failed_to(attempt))?;
    Ok(resealed)
}

/// The secrets that are not sealed under the key of `secret`, by name.
async fn with_another_key(
    connection: &mut PgConnection,
    sealing: &Sealing,
) -> Result<Vec<StoredSecret>, RepositoryError> {
    sqlx::query(
        "select name, version, key_id, sealed from switchboard.secrets where key_id <> $1 order by name",
    )
    .bind(sealing.key_id())
    .try_map(stored)
    .fetch_all(connection)
    .await
    .map_err(failed_to("read secrets"))
}
