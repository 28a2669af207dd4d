//! Sessions as the owner of the database: the host's pool, and single connections for migrations and
//! listeners. Each session has the settings of [`settings`], and a pool keeps no session that cannot write.

use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Row};
use tokio::time::Instant;

use super::Error;
use super::settings::{self, Purpose};
use switchboard_core::limits;

/// Remembers that the server behind the connections may have become read-only. The code that notices it sets
/// the flag, and the host's pool reads it. A check costs a round trip, so a busy connection is checked only
/// while the flag is set.
#[derive(Clone, Default)]
pub(super) struct Suspicion(Arc<Mutex<Option<Instant>>>);

impl Suspicion {
    pub(crate) fn raise(&self) {
        *self.0.lock() = Some(Instant::now() + limits::POSTGRES_SUSPECTED_FOR);
    }

    fn is_raised(&self) -> bool {
        self.0.lock().is_some_and(|until| Instant::now() < until)
    }
}

/// The login of the owner. `application` is what `pg_stat_activity` shows.
pub(super) fn options(url: &str, application: &str) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url).map_err(|error| Error::Url(error.to_string()))?;
    // The driver would send this setting at start-up, which PgBouncer refuses. `settings` sets it after the
    // login.
    Ok(options.application_name(application).extra_float_digits(None))
}

/// Opens the host's pool. Fails when the server does not answer.
pub(super) async fn pool(options: PgConnectOptions, suspicion: Suspicion) -> Result<PgPool, Error> {
    let pool = pool_options(limits::POSTGRES_HOST_CONNECTIONS_MAX)
        // A check before each statement would cost most of a statement's time. A connection that was idle may
        // have lost its server.
        .test_before_acquire(false)
        .before_acquire(move |connection, rest| {
            let doubtful = rest.idle_for > limits::POSTGRES_HOST_IDLE_MAX || suspicion.is_raised();
            Box::pin(async move { Ok(!doubtful || can_write(connection).await?) })
        });
    pool.connect_with(options).await.map_err(Error::Host)
}

/// A pool of one connection for a listener, which keeps it. The connection is opened at its first use.
pub fn listener(of: &PgPool, application: &str) -> PgPool {
    let options = (*of.connect_options()).clone().application_name(application);
    pool_options(1).connect_lazy_with(options)
}

fn pool_options(connections_max: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(limits::POSTGRES_HOST_WAIT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                prepare(connection, Purpose::Host).await?;
                if can_write(connection).await? { Ok(()) } else { Err(read_only()) }
            })
        })
}

/// A single session with the settings of a migration, for tools that write as the owner.
pub async fn connect(url: &str, application: &str) -> Result<PgConnection, Error> {
    let mut connection =
        PgConnection::connect_with(&options(url, application)?).await.map_err(Error::Host)?;
    prepare(&mut connection, Purpose::Migration).await.map_err(Error::Host)?;
    Ok(connection)
}

/// Sends the settings of a session.
pub(super) async fn prepare(connection: &mut PgConnection, purpose: Purpose) -> sqlx::Result<()> {
    sqlx::raw_sql(settings::statements(purpose)).execute(&mut *connection).await?;
    if shown(connection, "select current_setting('synchronous_commit')").await? == "off" {
        sqlx::raw_sql(settings::DURABLE).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Returns false on a standby, and where an operator or a provider made the database or the server read-only.
pub(super) async fn can_write(connection: &mut PgConnection) -> sqlx::Result<bool> {
    Ok(shown(connection, "show transaction_read_only").await? == "off")
}

async fn shown(connection: &mut PgConnection, show: &'static str) -> sqlx::Result<String> {
    sqlx::raw_sql(show).fetch_one(connection).await?.try_get(0)
}

/// The error that the pool logs for a connection that it does not keep.
fn read_only() -> sqlx::Error {
    let why =
        "the server is a standby or was made read-only; the pool closes this connection and tries again";
    sqlx::Error::Io(std::io::Error::other(why))
}
