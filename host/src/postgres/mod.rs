//! Postgres, twice: as each handler's own login role (`Session`), and as the host itself for its own tables (`host`). What
//! the tables mean is not known here, except the outbox and the releases' neighbours in `migrations/host`.

mod collect;
mod connection;
mod failure;
#[cfg(test)]
mod fixture;
pub mod migrate;
pub mod operators;
pub mod outbox;
pub mod revocations;
mod roles;
pub mod schedules;
mod session;
mod socket;
mod statement;
#[cfg(test)]
mod tests;
mod value;
mod work;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::time::Instant;

use crate::config::{self, Config};
use crate::ids::Digest;

pub use roles::ROLE_PREFIX;
pub use session::Session;

/// Connections of the host itself, beside the budget of the handlers.
const HOST_CONNECTIONS_MAX: u32 = 8;
/// A connection that did nothing for longer is asked whether it lives before it is used.
const HOST_REST_MAX: Duration = Duration::from_millis(500);
/// Longer than this the host's own statement has failed.
const HOST_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub enum Error {
    Config(config::Error),
    /// Never with its URL: that holds a password.
    Url(String),
    Host(sqlx::Error),
    Migrate(sqlx::migrate::MigrateError),
}

#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    host: PgPool,
    login: tokio_postgres::Config,
    roles: roles::Roles,
    collector: collect::Collector,
    work: work::Work,
}

impl Postgres {
    /// Fails when the server does not answer, so that a node says so at start.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let url = config.database_url().map_err(Error::Config)?;
        let secret = config.secret().map_err(Error::Config)?;
        let host = PgConnectOptions::from_str(url).map_err(|error| Error::Url(error.to_string()))?;
        let login = tokio_postgres::Config::from_str(url).map_err(|error| Error::Url(error.to_string()))?;
        let host = PgPoolOptions::new()
            .max_connections(HOST_CONNECTIONS_MAX)
            .acquire_timeout(HOST_PATIENCE)
            // A round trip before each statement would be most of its price. One that rested may have lost its server.
            .test_before_acquire(false)
            .before_acquire(|connection, rest| {
                Box::pin(async move {
                    if rest.idle_for > HOST_REST_MAX {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(host.application_name("switchboard"))
            .await
            .map_err(Error::Host)?;
        let work = work::Work::default();
        let roles = roles::Roles::new(login.clone(), secret, config.postgres_connections_max, work.clone());
        let collector = collect::Collector::new(roles.clone());
        Ok(Self(Arc::new(Inner { host, login, roles, collector, work })))
    }

    /// The host's own tables, as the owner of the database.
    pub fn host(&self) -> &PgPool {
        &self.0.host
    }

    /// What one consumer of the outbox reads by.
    pub fn feed(&self) -> outbox::Feed {
        outbox::Feed::new(self.0.login.clone())
    }

    /// One call's use of Postgres. `role` is `grants.postgres`, without its prefix.
    pub fn session(&self, role: Option<&str>, generation: Digest, deadline: Instant) -> Session {
        Session::new(self.0.roles.clone(), self.0.collector.clone(), role, generation, deadline)
    }

    /// The server answers the host.
    pub async fn healthy(&self) -> bool {
        let probe = sqlx::query("select 1").execute(self.host());
        matches!(tokio::time::timeout(HOST_PATIENCE, probe).await, Ok(Ok(_)))
    }

    /// Connections of the handlers that exist, and calls that wait for one.
    pub fn usage(&self) -> (usize, usize) {
        self.0.roles.usage()
    }

    /// After the last call: flights and cancellations have ended, the host's connections are closed.
    pub async fn close(&self) {
        self.0.work.ended().await;
        self.0.host.close().await;
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Url(reason) => write!(f, "`database_url` is not a Postgres URL: {reason}"),
            Self::Migrate(error) => write!(f, "the database cannot be migrated: {error}"),
            Self::Host(error) => write!(f, "Postgres does not serve the host: {error}"),
        }
    }
}

impl std::error::Error for Error {}
