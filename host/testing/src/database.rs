//! A database for one test, on the Postgres that `SWITCHBOARD_TEST_DATABASE_URL` names. It is a copy of a
//! template, which is migrated once for each content of the migrations.

use std::panic::{self, AssertUnwindSafe};

use futures_util::FutureExt as _;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use switchboard_core::config::Config;
use switchboard_postgres::{Migrations, migrate};

/// The same secret as in the black-box tests: roles belong to the server, which both may share.
pub const SECRET: &str = "secret-of-the-black-box-tests-0123456789abcdef";

/// The handler's role in the databases of [`with_app_database`], without its prefix. A test grants it what it
/// may touch.
pub const ROLE: &str = "test";

/// One process at a time makes templates and copies them.
const TEMPLATE_LOCK: u32 = 7171;

/// Runs a test against a new database with the migrations of the host, and drops it also if the test fails.
pub async fn with_database<F: Future<Output = ()>>(test: impl FnOnce(PgPool) -> F) {
    with_copy(&Migrations::of_the_host(), &[], async |url| {
        let pool = PgPoolOptions::new().max_connections(8).connect(&url).await.unwrap();
        test(pool).await;
    })
    .await;
}

/// The same with the migrations of the host and of the chat product, and with the role [`ROLE`]. The test
/// gets the URL.
pub async fn with_app_database(test: impl AsyncFnOnce(String)) {
    let app = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/app");
    let migrations = Migrations::with_app(app.as_ref()).expect("the migrations of the chat product");
    with_copy(&migrations, &[ROLE], test).await;
}

async fn with_copy(migrations: &Migrations, roles: &[&str], test: impl AsyncFnOnce(String)) {
    let server = std::env::var("SWITCHBOARD_TEST_DATABASE_URL")
        .expect("SWITCHBOARD_TEST_DATABASE_URL names a Postgres whose superuser these tests may be");
    let mut admin = PgConnection::connect(&server).await.expect("the test's Postgres answers");
    let name = format!("switchboard_test_{}", Uuid::now_v7().simple());
    run(&mut admin, &format!("select pg_advisory_lock({TEMPLATE_LOCK})")).await;
    let template = template(&mut admin, &server, migrations, roles).await;
    run(&mut admin, &format!("create database {name} template {template}")).await;
    // Privileges on the database itself are not copied with it.
    run(&mut admin, &format!("revoke temporary on database {name} from public")).await;
    run(&mut admin, &format!("select pg_advisory_unlock({TEMPLATE_LOCK})")).await;

    let outcome = AssertUnwindSafe(test(url_of(&server, &name))).catch_unwind().await;
    run(&mut admin, &format!("drop database {name} with (force)")).await;
    if let Err(failed) = outcome {
        panic::resume_unwind(failed);
    }
}

/// Returns the name of the template, which it makes when this server has none for these migrations.
async fn template(admin: &mut PgConnection, server: &str, migrations: &Migrations, roles: &[&str]) -> String {
    let name = format!("switchboard_template_{}", migrations.fingerprint());
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut *admin)
        .await
        .unwrap();
    if exists {
        return name;
    }
    let making = format!("{name}_making");
    run(admin, &format!("drop database if exists {making} with (force)")).await;
    run(admin, &format!("create database {making}")).await;
    let config = Config {
        database_url: Some(url_of(server, &making)),
        secret: Some(SECRET.to_owned()),
        ..Config::default()
    };
    migrate::run(&config, migrations).await.expect("the migrations run");
    let mut owner = PgConnection::connect(&url_of(server, &making)).await.unwrap();
    for role in roles {
        run(&mut owner, &format!("select switchboard.ensure_role('{role}')")).await;
    }
    owner.close().await.unwrap();
    // A second run only sets the passwords of the new roles.
    migrate::run(&config, migrations).await.expect("the migrations run twice");
    run(admin, &format!("alter database {making} rename to {name}")).await;
    name
}

fn url_of(server: &str, database: &str) -> String {
    format!("{}/{database}", server.rsplit_once('/').expect("a URL with a database").0)
}

async fn run(connection: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}
