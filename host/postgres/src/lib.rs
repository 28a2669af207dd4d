//! Access to Postgres in two ways: as each handler's own login role (`Session`), and as the host itself for
//! its own tables (`host`). This module does not know what the tables of the application mean. It knows only
//! the tables of `migrations/host`.

#![warn(unreachable_pub)]

mod collect;
mod connection;
pub mod epochs;
pub mod failure;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod migrate;
mod migrations;
pub mod operators;
pub mod outbox;
pub mod owner;
mod probe;
pub mod revocations;
mod roles;
pub mod schedules;
mod server;
mod session;
mod settings;
mod socket;
mod statement;
#[cfg(test)]
mod tests;
mod value;
mod work;

use std::str::FromStr;
use std::sync::Arc;

use sqlx::Connection as _;
use sqlx::postgres::PgPool;
use tokio::time::Instant;

use switchboard_core::config::{self, Config};
use switchboard_core::ids::Digest;

pub use migrations::{Migrations, Unusable};
use owner::{HOST_TIMEOUT, Suspicion};
pub use probe::CannotWrite;
pub use server::UnusableServer;
pub use session::Session;
use settings::Purpose;

#[derive(Debug)]
pub enum Error {
    Config(config::Error),
    /// The URL itself is left out, because it holds a password.
    Url(String),
    Host(sqlx::Error),
    /// The server answers, but does not meet the requirements of the host.
    UnusableServer(UnusableServer),
    Migrate(sqlx::migrate::MigrateError),
    /// Another database of the server uses the handlers' roles with another secret.
    RoleConflict(migrate::RoleConflict),
}

#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    host: PgPool,
    login: tokio_postgres::Config,
    roles: roles::Roles,
    collector: collect::Collector,
    probe: probe::Probe,
    work: work::Work,
}

impl Postgres {
    /// Opens the pools and checks the server. Fails when the server does not answer or does not meet the
    /// requirements, so that a node reports it at start.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let url = config.database_url().map_err(Error::Config)?;
        let secret = config.secret().map_err(Error::Config)?;
        let login = tokio_postgres::Config::from_str(url).map_err(|error| Error::Url(error.to_string()))?;
        let options = owner::options(url, "switchboard")?;
        let checked = server::connect(&options, Purpose::Host).await?;
        checked.close().await.map_err(Error::Host)?;
        let suspicion = Suspicion::default();
        let host = owner::pool(options, suspicion.clone()).await?;
        warn_of_unbounded(&host).await;
        let work = work::Work::default();
        let connections_max = config.postgres_connections_max;
        let roles = roles::Roles::new(login.clone(), secret, connections_max, work.clone(), suspicion);
        let collector = collect::Collector::new(roles.clone());
        let probe = probe::Probe::new(roles.clone());
        Ok(Self(Arc::new(Inner { host, login, roles, collector, probe, work })))
    }

    /// The pool for the host's own tables. It logs in as the owner of the database.
    pub fn host(&self) -> &PgPool {
        &self.0.host
    }

    /// The reader that one consumer of the outbox uses.
    pub fn feed(&self) -> outbox::Feed {
        outbox::Feed::new(self.0.login.clone())
    }

    /// Returns what one call may do with Postgres. `role` is `grants.postgres`, without its prefix.
    pub fn session(&self, role: Option<&str>, generation: Digest, deadline: Instant) -> Session {
        Session::new(self.0.roles.clone(), self.0.collector.clone(), role, generation, deadline)
    }

    /// True when the server answers the host within the time-out.
    pub async fn healthy(&self) -> bool {
        let probe = sqlx::query("select 1").execute(self.host());
        matches!(tokio::time::timeout(HOST_TIMEOUT, probe).await, Ok(Ok(_)))
    }

    /// Checks whether a handler's role can write now, and if not, why. `roles` are `grants.postgres` of the
    /// loaded releases. The roles are tried in turn; a role that was refused a login is tried at once.
    /// Several callers may each ask once a second: a call makes one COMMIT at most, bounded by
    /// `POSTGRES_PROBE_MS_MAX`.
    pub async fn can_write(&self, roles: &[String]) -> Result<(), CannotWrite> {
        self.0.probe.can_write(roles).await
    }

    /// Reports a failed statement of the host. When the server did not write, the pool checks its connections
    /// before their next use.
    pub fn note(&self, error: &sqlx::Error) {
        if failure::is_read_only(error) {
            self.0.roles.suspicion().raise();
        }
    }

    /// The number of connections that the handlers have, and of calls that wait for one.
    pub fn usage(&self) -> (usize, usize) {
        self.0.roles.usage()
    }

    /// Waits for the background tasks and closes the host's connections. Call it after the last call has
    /// ended.
    pub async fn close(&self) {
        self.0.work.ended().await;
        self.0.host.close().await;
    }
}

/// Logs a warning when nothing bounds the temporary files of handlers: a handler could fill the disk. A
/// database that was never migrated has no roles.
async fn warn_of_unbounded(pool: &PgPool) {
    let roles = migrate::unbounded_roles(pool).await.unwrap_or_default();
    if let Some(warning) = migrate::unbounded_warning(&roles) {
        tracing::warn!("{warning}");
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Url(reason) => write!(f, "`database_url` is not a Postgres URL: {reason}"),
            Self::Migrate(error) => write!(f, "the database cannot be migrated: {error}"),
            Self::Host(error) => write!(f, "Postgres does not serve the host: {error}"),
            Self::UnusableServer(reason) => reason.fmt(f),
            Self::RoleConflict(conflict) => conflict.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
