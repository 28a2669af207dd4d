//! `/readyz` names the problem, and a node that had a problem at its start recovers by itself.

use std::collections::BTreeSet;

use serde_json::Value;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::paths;
use switchboard_tests::patience::{until, within};
use switchboard_tests::proxy::Proxy;
use switchboard_tests::release::Release;
use switchboard_tests::services::{self, Redis};
use tokio::time::Duration;

/// The handlers of the files in `handlers_dir`.
fn built() -> BTreeSet<String> {
    let files = std::fs::read_dir(paths::handlers()).expect("`switchboard build` comes first");
    let files = files.map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    files.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

async fn running(host: &Host) -> BTreeSet<String> {
    let releases = host.admin.releases().await;
    let list = releases["releases"].as_array().expect("a list").clone();
    let current = list.into_iter().filter(|release| release["current"] == true);
    current.map(|release| release["handler"].as_str().expect("a name").to_owned()).collect()
}

async fn checks(host: &Host) -> Value {
    host.admin.rest().get("/readyz").await.json()["checks"].clone()
}

#[tokio::test]
async fn a_node_that_loses_postgres_during_its_first_start_runs_every_handler_in_the_end() {
    let database = services::database().await;
    let proxy = Proxy::to(database.postgres.address()).await;
    let options = Options::default().database_at(proxy.address());
    let mut host = Host::over(database, Redis::start().await, options).await;
    host.spawn();
    within(Duration::from_secs(120), "the first handlers to run", async || {
        let rows = host.database.rows("select count(*) from switchboard.running").await;
        (rows[0].get::<_, i64>(0) >= 3).then_some(())
    })
    .await;
    proxy.cut();
    within(Duration::from_secs(120), "some handler not to be deployed", async || {
        host.log().contains("the node did not deploy the file; it tries again later").then_some(())
    })
    .await;
    proxy.heal();
    within(Duration::from_secs(120), "the host to be ready", async || host.admin.ready().await.then_some(()))
        .await;
    assert_eq!(running(&host).await, built());
    host.terminate();
    assert!(host.ended().await.success());
    // The next start has nothing left to do.
    host.start().await;
    assert_eq!(running(&host).await, built());
    host.terminate();
    assert!(host.ended().await.success());
    host.database.drop_it().await;
}

/// The database is in the state after a node lost Postgres between storing a release and switching to it.
#[tokio::test]
async fn a_stored_handler_that_never_ran_runs_after_the_next_start() {
    Host::test(Options::default(), async |host| {
        host.terminate();
        assert!(host.ended().await.success());
        host.database
            .run(
                "delete from switchboard.history where name = 'participants';
                 delete from switchboard.running where name = 'participants'",
            )
            .await;
        host.start().await;
        assert_eq!(running(host).await, built());
    })
    .await;
}

#[tokio::test]
async fn a_node_with_a_file_that_does_not_run_is_not_ready() {
    let here = tempfile::tempdir().unwrap();
    let bad = here.path().join("moody.wasm");
    let good = Release::guest("moody");
    std::fs::write(&bad, &good.bytes[..good.bytes.len() / 2]).unwrap();
    let options = Options::default().set("HANDLERS_DIR", here.path().display());
    let mut host = Host::over(services::database().await, Redis::start().await, options).await;
    host.spawn();
    let reason = within(Duration::from_secs(60), "the file to be named", async || {
        let answer = host.admin.rest().try_send(hyper::Method::GET, "/readyz", &[], "").await.ok()?;
        assert_eq!(answer.status, 503, "{answer}");
        answer.json()["checks"]["handlers_dir"].as_str().filter(|reason| *reason != "ok").map(str::to_owned)
    })
    .await;
    assert!(reason.contains("moody.wasm is not deployed: not a WebAssembly component"), "{reason}");
    // The node deploys a valid file in its place without a restart.
    std::fs::write(&bad, &good.bytes).unwrap();
    within(Duration::from_secs(60), "the host to be ready", async || host.admin.ready().await.then_some(()))
        .await;
    assert_eq!(host.current("moody").await, good.digest());
    host.terminate();
    assert!(host.ended().await.success());
    host.database.drop_it().await;
}

#[tokio::test]
async fn every_check_has_a_name() {
    Host::test(Options::default(), async |host| {
        let checks = checks(host).await;
        for name in ["postgres", "writes", "redis", "bus", "releases", "handlers_dir", "consumers", "serving"]
        {
            assert_eq!(checks[name], "ok", "{checks}");
        }
        // Concurrent requests share the probes.
        let asked = (0..50).map(|_| async { host.admin.ready().await });
        assert!(futures_util::future::join_all(asked).await.into_iter().all(|ready| ready));
    })
    .await;
}

#[tokio::test]
async fn a_node_that_owns_a_stuck_consumer_is_not_ready() {
    Host::test(Options::default(), async |host| {
        let other = host.another_node().await;
        let (mut ana, mut bo) = host.two_members("lobby").await;
        ana.send("before").await.expect_sent();
        bo.expect_message("before").await;
        // The reader of every consumer checks for retries before it reads on.
        let lock = host.database.connect().await;
        lock.run("begin; lock table switchboard.retries in access exclusive mode").await;
        let sent = tokio::time::Instant::now();
        // Once the readers hang, one more message stays in the outbox.
        until("the readers of all three consumers to wait for the lock", async || {
            let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                           and wait_event_type = 'Lock' and query like 'select shard, key, count%'";
            let rows = host.database.rows(waiting).await;
            (rows[0].get::<_, i64>(0) >= 3).then_some(())
        })
        .await;
        ana.send("stuck").await.expect_sent();
        let reason = within(Duration::from_secs(60), "the consumer to be named", async || {
            let reason = checks(host).await["consumers"].as_str().unwrap_or_default().to_owned();
            reason.contains("`outbox-relay`").then_some(reason)
        })
        .await;
        assert!(reason.contains("has not moved in shard"), "{reason}");
        assert!(sent.elapsed() >= Duration::from_secs(10), "not at once: {:?}", sent.elapsed());
        assert!(!host.admin.ready().await);
        // The first node has every shard, so a consumer that hangs there does not affect the other node.
        assert_eq!(checks(&other).await["consumers"], "ok");
        lock.run("rollback").await;
        bo.expect_message("stuck").await;
        until("the host to be ready again", async || host.admin.ready().await.then_some(())).await;
    })
    .await;
}
