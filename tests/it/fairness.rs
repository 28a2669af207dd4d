//! One handler that takes whatever it can get, on a host with people who write. They must not notice.

use std::time::{Duration, Instant};

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

/// As in the report of this fault: of forty messages none was stored.
const SENDS: usize = 40;
/// More than there are Postgres connections, and than half of the slots that a node once had.
const CALLS: usize = 600;

/// It waits in Postgres for as long as a call may take.
fn sleeper() -> Release {
    Release::guest("sleeps-in-sql").with_manifest(|manifest| {
        let limits = manifest["limits"].as_table_mut().unwrap();
        limits.insert("concurrency".into(), 1024.into());
        limits.insert("deadline_ms".into(), 8_000.into());
        // Not the role of the handler whose callers are to notice nothing.
        manifest["grants"]["postgres"] = "audit".into();
    })
}

/// Half of the sends took no longer.
async fn send_all(host: &Host, room: &str) -> Duration {
    let mut took = Vec::new();
    for n in 0..SENDS {
        let begun = Instant::now();
        let path = format!("/api/v1/conversations/{room}/messages");
        host.rest("ana").post(&path, json!({ "content": format!("message {n}") })).await.expect(201);
        took.push(begun.elapsed());
    }
    took.sort();
    took[SENDS / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_whose_statements_hang_keeps_nobody_from_writing() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        host.admin.release(&sleeper()).await;
        let (mut before, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            before.push(send_all(host, &room).await);
            let calls: Vec<_> = (0..CALLS)
                .map(|_| {
                    let eve = host.rest("eve");
                    tokio::spawn(
                        async move { eve.post("/api/v1/guests/sleeps-in-sql", json!({})).await.status },
                    )
                })
                .collect();
            until("statements to wait for a connection", async || {
                let waiting = host.admin.metric("switchboard_postgres_waiting").await?;
                (waiting > 100.0).then_some(())
            })
            .await;
            // Every one is stored, and none waits for a connection until its deadline.
            beside.push(send_all(host, &room).await);
            assert!(calls.iter().any(|call| !call.is_finished()), "the flood ended before the sends");
            calls.iter().for_each(tokio::task::JoinHandle::abort);
            until("the flood to be over", async || {
                // The gauge is set when connections come and go.
                let path = format!("/api/v1/conversations/{room}/messages");
                host.rest("bo").post(&path, json!({ "content": "still there?" })).await.expect(201);
                let waiting = host.admin.metric("switchboard_postgres_waiting").await?;
                (waiting == 0.0).then_some(())
            })
            .await;
        }
        let (before, beside) = (before.iter().min().unwrap(), beside.iter().min().unwrap());
        println!("a send took {before:?}, beside {CALLS} hanging calls {beside:?}");
        assert!(*beside < *before * 3 + Duration::from_millis(20), "{beside:?} instead of {before:?}");
    })
    .await;
}
