//! A connected [`Postgres`] with a database of its own, for one test.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, timeout};

use crate::migrate::{self, Migrated};
use crate::{Error, Migrations, Postgres, Session};
use switchboard_core::config::Config;
use switchboard_core::ids::Digest;

pub(crate) use switchboard_testing::ROLE;

/// Tests wait for states. A test whose state never comes ends after this time.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) config: Config,
}

impl World {
    /// Runs statements as the owner of the database, one after the other.
    pub(crate) async fn owner(&self, sql: &str) {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(self.postgres.host()).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let count = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(self.postgres.host()).await;
        count.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// A session whose call has a deadline of ten seconds.
    pub(crate) fn session(&self) -> Session {
        self.session_of(Duration::from_secs(10))
    }

    pub(crate) fn session_of(&self, deadline_in: Duration) -> Session {
        self.postgres.session(Some(ROLE), Digest::of(b"release"), Instant::now() + deadline_in)
    }
}

/// Runs a test in a new database with this many connections, and drops the database whatever happens.
pub(crate) async fn with_world(connections_max: usize, test: impl AsyncFnOnce(Arc<World>)) {
    switchboard_testing::with_app_database(async |url| {
        let config = Config {
            database_url: Some(url),
            secret: Some(switchboard_testing::SECRET.to_owned()),
            postgres_connections_max: connections_max,
            ..Config::default()
        };
        let postgres = Postgres::connect(&config).await.expect("the database of the test");
        let world = Arc::new(World { postgres: postgres.clone(), config });
        let outcome = AssertUnwindSafe(timeout(TEST_TIMEOUT, test(world))).catch_unwind().await;
        timeout(Duration::from_secs(10), postgres.close()).await.expect("nothing is left running");
        match outcome {
            Ok(in_time) => in_time.expect("the test ends in time"),
            Err(failed) => panic::resume_unwind(failed),
        }
    })
    .await;
}

/// Runs the migrations of the host and of the chat product.
pub(crate) async fn migrated(config: &Config) -> Result<Migrated, Error> {
    let app = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/app");
    let migrations = Migrations::with_app(app.as_ref()).expect("the migrations of the chat product");
    migrate::run(config, &migrations).await
}
