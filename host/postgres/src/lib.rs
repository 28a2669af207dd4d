//! Postgres, twice: as each handler's own login role (`Session`), and as the host itself for its own tables (`host`). What
//! the tables mean is not known here, except the outbox and the releases' neighbours in `migrations/host`.

use switchboard_contract as contract;
use switchboard_core::{config, error, ids, limits, manifest, shares};

mod collect;
mod connection;
pub mod epochs;
pub mod failure;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod migrate;
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

use crate::config::Config;
use crate::ids::Digest;

use owner::{HOST_PATIENCE, Suspicion};
pub use probe::CannotWrite;
pub use server::Unfit;
pub use session::Session;
use settings::Purpose;

#[derive(Debug)]
pub enum Error {
    Config(config::Error),
    /// Never with its URL: that holds a password.
    Url(String),
    Host(sqlx::Error),
    /// The server answers, and cannot be used as it is.
    Unfit(Unfit),
    Migrate(sqlx::migrate::MigrateError),
    /// Roles of handlers belong to other databases with another secret.
    Owned(migrate::Owned),
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
    /// Fails when the server does not answer or cannot be used as it is, so that a node says so at start.
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

    /// Whether a write with a handler's role works now, and if not, why not. `roles` are `grants.postgres` of the loaded
    /// releases; each is tried in turn, and at once when it was refused a login. Cheap enough to ask once a second, by
    /// several callers: one COMMIT a call at most, bounded by `POSTGRES_PROBE_MS_MAX`.
    pub async fn can_write(&self, roles: &[String]) -> Result<(), CannotWrite> {
        self.0.probe.can_write(roles).await
    }

    /// Tells that a statement of the host failed. After a server that does not write, the pool checks its connections.
    pub fn note(&self, error: &sqlx::Error) {
        if failure::is_read_only(error) {
            self.0.roles.suspicion().raise();
        }
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

/// A handler can fill the disk where nobody bounded its temporary files. A database that was never migrated has no roles.
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
            Self::Unfit(unfit) => unfit.fmt(f),
            Self::Owned(owned) => owned.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
