//! Access to Postgres in two ways: as each handler's own login role ([`Session`]), and as the owner of the
//! database for the host's own tables, with one type for each subject ([`outbox::Outbox`] and others). This
//! crate does not know what the tables of the application mean. It knows only the tables of
//! `migrations/host`.

mod call_order;
mod collect;
mod connection;
pub mod epochs;
mod error;
mod failure;
pub mod fleet;
pub mod migrate;
mod migrations;
pub mod operators;
pub mod outbox;
pub mod owner;
pub mod poll;
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
mod text;
pub mod timers;
mod value;
mod work;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::Connection as _;
use sqlx::postgres::PgPool;
use tokio::time::Instant;

use switchboard_core::config::Config;
use switchboard_core::ids::{Digest, NodeId};
use switchboard_core::limits;

pub use call_order::{CallOrder, Rank};
pub use error::{Error, in_time};
pub use migrations::{Migrations, UnusableMigrations};
use owner::Suspicion;
pub use probe::CannotWrite;
pub use server::UnusableServer;
pub use session::Session;
use settings::Purpose;
pub use text::storable;

#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    host: PgPool,
    #[cfg(test)]
    login: tokio_postgres::Config,
    node_feed: outbox::NodeFeed,
    roles: roles::Roles,
    collector: collect::Collector,
    timers: timers::Timers,
    probe: probe::Probe,
    work: work::Work,
}

impl Postgres {
    /// Opens the pools and checks the server. Fails when the server does not answer or does not meet the
    /// requirements, so that a node reports it at start.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let url = config.database_url()?;
        let secrets = roles::RoleSecrets::new(config.secret()?, config.secret_previous.as_deref());
        let login = tokio_postgres::Config::from_str(url).map_err(|error| Error::Url(error.to_string()))?;
        let options = owner::options(url, "switchboard")?;
        let checked = server::connect(&options, Purpose::Host).await?;
        checked.close().await.map_err(Error::Host)?;
        let suspicion = Suspicion::default();
        let host = owner::pool(options, suspicion.clone()).await?;
        warn_of_unbounded(&host).await;
        let work = work::Work::default();
        let connections_max = config.postgres_connections_max;
        let committed = outbox::Committed::default();
        let node_feed = outbox::NodeFeed::new(login.clone(), committed.clone());
        let roles =
            roles::Roles::new(login.clone(), secrets, connections_max, committed, work.clone(), suspicion);
        let collector = collect::Collector::new(roles.clone());
        let probe = probe::Probe::new(roles.clone());
        let timers = timers::Timers::new(host.clone());
        let inner = Inner {
            host,
            #[cfg(test)]
            login,
            node_feed,
            roles,
            collector,
            timers,
            probe,
            work,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The pool for the host's own tables. It logs in as the owner of the database.
    fn host(&self) -> &PgPool {
        &self.0.host
    }

    /// Returns the access to tables of the host whose SQL is in another crate. `new` gets the pool for the
    /// host's own tables.
    pub fn access<T>(&self, new: impl FnOnce(PgPool) -> T) -> T {
        new(self.0.host.clone())
    }

    pub fn outbox(&self) -> outbox::Outbox {
        outbox::Outbox::new(self.0.host.clone())
    }

    pub fn schedules(&self) -> schedules::Schedules {
        schedules::Schedules::new(self.0.host.clone())
    }

    /// The timers of handlers. All clones of one node share the mailbox of timers that were set on it.
    pub fn timers(&self) -> timers::Timers {
        self.0.timers.clone()
    }

    pub fn revocations(&self) -> revocations::Revocations {
        revocations::Revocations::new(self.0.host.clone())
    }

    pub fn epochs(&self) -> epochs::Epochs {
        epochs::Epochs::new(self.0.host.clone())
    }

    pub fn fleet(&self) -> fleet::FleetIdentity {
        fleet::FleetIdentity::new(self.0.host.clone())
    }

    pub fn operators(&self) -> operators::Operators {
        operators::Operators::new(self.0.host.clone())
    }

    /// The poll of a node. `admin` is the address of its admin listener.
    pub fn poll(&self, node: NodeId, admin: SocketAddr) -> poll::Poll {
        poll::Poll::of(self.0.host.clone(), self.0.roles.suspicion().clone(), node, admin)
    }

    /// The reader of the outbox that all consumers of this node share.
    pub fn node_feed(&self) -> outbox::NodeFeed {
        self.0.node_feed.clone()
    }

    /// A reader of the outbox for one consumer.
    #[cfg(test)]
    fn feed(&self) -> outbox::Feed {
        outbox::Feed::new(self.0.login.clone())
    }

    /// Returns what one call may do with Postgres. `role` is `grants.postgres`, without its prefix.
    pub fn session(&self, role: Option<&str>, generation: Digest, deadline: Instant) -> Session {
        Session::new(self.0.roles.clone(), self.0.collector.clone(), role, generation, deadline)
    }

    /// True when the server answers the host within the time-out.
    pub async fn healthy(&self) -> bool {
        let probe = sqlx::query("select 1").execute(self.host());
        matches!(tokio::time::timeout(limits::POSTGRES_HOST_WAIT, probe).await, Ok(Ok(_)))
    }

    /// Checks whether a handler's role can write now, and if not, why. `roles` are `grants.postgres` of the
    /// loaded releases. The roles are tried in turn; a role that was refused a login is tried at once.
    /// Several callers may each ask once a second: a call makes one COMMIT at most, bounded by
    /// `POSTGRES_PROBE_WAIT`.
    pub async fn can_write(&self, roles: &[String]) -> Result<(), CannotWrite> {
        self.0.probe.can_write(roles).await
    }

    /// Reports a failed statement of the host. When the server did not write, the pool checks its connections
    /// before their next use.
    pub fn note(&self, error: &Error) {
        if error.is_read_only() {
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
