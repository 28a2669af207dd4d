//! A migrated database for each test, with a role to log in as. Only tests use it.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::migrate::{self, Migrated};
use super::{Error, Migrations, Postgres, Session};
use switchboard_core::config::Config;
use switchboard_core::ids::Digest;

/// The test's role is `switchboard_test`. Each test grants it what it may touch.
pub(super) const ROLE: &str = "test";

/// Tests wait for states. A test whose state never comes ends after this time.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) struct World {
    pub postgres: Postgres,
    pub config: Config,
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
pub(super) async fn with_world(connections_max: usize, test: impl AsyncFnOnce(Arc<World>)) {
    let server = std::env::var("SWITCHBOARD_TEST_DATABASE_URL")
        .expect("SWITCHBOARD_TEST_DATABASE_URL names a Postgres whose superuser these tests may be");
    let mut admin = PgConnection::connect(&server).await.expect("the test's Postgres answers");
    let name = format!("switchboard_test_{}", Uuid::now_v7().simple());
    let template = template(&mut admin, &server).await;
    run(&mut admin, "select pg_advisory_lock(7171)").await;
    run(&mut admin, &format!("create database {name} template {template}")).await;
    run(&mut admin, &format!("revoke temporary on database {name} from public")).await;
    run(&mut admin, "select pg_advisory_unlock(7171)").await;

    let config = config_of(&server, &name, connections_max);
    let postgres = Postgres::connect(&config).await.expect("the database of the test");
    let world = Arc::new(World { postgres: postgres.clone(), config });
    let outcome = AssertUnwindSafe(timeout(TEST_TIMEOUT, test(world))).catch_unwind().await;
    tokio::time::timeout(Duration::from_secs(10), postgres.close()).await.expect("nothing is left running");
    run(&mut admin, &format!("drop database {name} with (force)")).await;
    match outcome {
        Ok(in_time) => in_time.expect("the test ends in time"),
        Err(failed) => panic::resume_unwind(failed),
    }
}

/// Those of the host and of the chat product.
fn migrations() -> Migrations {
    let app = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/app");
    Migrations::with_app(app.as_ref()).expect("the migrations of the chat product")
}

pub(super) async fn migrated(config: &Config) -> Result<Migrated, Error> {
    migrate::run(config, &migrations()).await
}

fn config_of(server: &str, database: &str, connections_max: usize) -> Config {
    Config {
        database_url: Some(format!(
            "{}/{database}",
            server.rsplit_once('/').expect("a URL with a database").0
        )),
        // The same secret as in the black-box tests: roles belong to the server, which both may share.
        secret: Some("secret-of-the-black-box-tests-0123456789abcdef".to_owned()),
        postgres_connections_max: connections_max,
        ..Config::default()
    }
}

/// The template database, migrated once for each content of the migrations. Every test copies it.
async fn template(admin: &mut PgConnection, server: &str) -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    let name = NAME.get_or_init(|| format!("switchboard_template_{}", migrations().fingerprint())).clone();
    run(admin, "select pg_advisory_lock(7171)").await;
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut *admin)
        .await
        .unwrap();
    if !exists {
        let making = format!("{name}_making");
        run(admin, &format!("drop database if exists {making} with (force)")).await;
        run(admin, &format!("create database {making}")).await;
        let config = config_of(server, &making, 1);
        migrated(&config).await.expect("the migrations run");
        // A second run only sets the password of the new role.
        let mut owner = PgConnection::connect(config.database_url.as_deref().unwrap()).await.unwrap();
        run(&mut owner, &format!("select switchboard.ensure_role('{ROLE}')")).await;
        owner.close().await.unwrap();
        migrated(&config).await.expect("the migrations run twice");
        run(admin, &format!("alter database {making} rename to {name}")).await;
    }
    run(admin, "select pg_advisory_unlock(7171)").await;
    name
}

async fn run(connection: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}
