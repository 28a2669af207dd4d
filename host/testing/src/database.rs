//! A database for one test, on the Postgres that `SWITCHBOARD_TEST_DATABASE_URL` names, made from the
//! migrations of the host.

use std::panic;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use switchboard_postgres::Migrations;

/// Runs a test against a new database, and drops it also if the test fails.
pub async fn with_database<T, F>(test: T)
where
    T: FnOnce(PgPool) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let server = std::env::var("SWITCHBOARD_TEST_DATABASE_URL")
        .expect("SWITCHBOARD_TEST_DATABASE_URL names a Postgres whose superuser these tests may be");
    let name = format!("switchboard_test_{}", Uuid::now_v7().simple());
    let mut admin = PgConnection::connect(&server).await.expect("the test's Postgres answers");
    sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await.unwrap();

    let options: PgConnectOptions = server.parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect_with(options.database(&name)).await.unwrap();
    for migration in Migrations::of_the_host().sql() {
        sqlx::raw_sql(AssertSqlSafe(migration.to_owned())).execute(&pool).await.unwrap();
    }
    let outcome = tokio::spawn(test(pool)).await;

    sqlx::raw_sql(AssertSqlSafe(format!("drop database {name} with (force)")))
        .execute(&mut admin)
        .await
        .unwrap();
    if let Err(failed) = outcome {
        panic::resume_unwind(failed.into_panic());
    }
}
