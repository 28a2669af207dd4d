//! A connection pooler between the host and Postgres: PgBouncer in session mode works; in the other modes the
//! host refuses to start, with the reason. If PgBouncer is not installed, these tests are skipped.

use std::process::Stdio;
use std::time::Duration;

use switchboard_tests::host::{Host, Options, SECRET};
use switchboard_tests::paths;
use switchboard_tests::pooler::PgBouncer;
use switchboard_tests::services::{Database, Postgres, Redis};
use tokio::process::Command;

/// Uses a server without passwords, because the pooler has none.
async fn database() -> Database {
    Postgres::start(&["fsync = off"]).await.database().await
}

async fn pooler(database: &Database, pool_mode: &str) -> Option<PgBouncer> {
    let started = PgBouncer::start(database, pool_mode).await;
    if started.is_none() {
        println!("PgBouncer is not installed (scripts/setup --for-tests): this test is left out");
    }
    started
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_session_mode_serves_everything() {
    let database = database().await;
    let Some(bouncer) = pooler(&database, "session").await else { return };
    let options = Options::default().database_at(bouncer.address());
    Host::test_over(database, Redis::start().await, options, async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        ana.send("hi").await.expect_sent();
        bo.expect_message("hi").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_changes_sessions_is_refused_at_start() {
    let database = database().await;
    for pool_mode in ["transaction", "statement"] {
        let Some(bouncer) = pooler(&database, pool_mode).await else { return };
        for command in ["serve", "migrate"] {
            let refused = Command::new(paths::switchboard())
                .arg(command)
                .args(["--app".as_ref(), paths::app_migrations().as_os_str()])
                .env("SWITCHBOARD_DATABASE_URL", database.url_at(Some(bouncer.address())))
                .env("SWITCHBOARD_REDIS_URL", "redis://127.0.0.1:1")
                .env("SWITCHBOARD_SECRET", SECRET)
                .env("SWITCHBOARD_LISTEN", "127.0.0.1:0")
                .env("SWITCHBOARD_ADMIN_LISTEN", "127.0.0.1:0")
                .current_dir(std::env::temp_dir())
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output();
            let refused = tokio::time::timeout(Duration::from_secs(30), refused).await.expect("it ends");
            let refused = refused.expect("the command runs");
            let complaint = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(1), "{pool_mode}: {complaint}");
            assert!(complaint.contains("pool_mode = session"), "{pool_mode}: {complaint}");
        }
    }
    database.drop_it().await;
}
