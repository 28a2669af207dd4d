//! One handler that takes all resources that it can get, on a host with people who write. They must not
//! notice it.

use std::time::{Duration, Instant};

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

/// The number in the report of this fault, where none of forty messages was stored.
const SENDS: usize = 40;
/// The maximum of one release at a time.
const SLEEPING: usize = 1024;
const LOOPING: usize = 90;
/// Calls beyond these. The release has no slot for them, so their refusal shows that every slot is taken.
const REFUSED: usize = 10;

/// A guest that waits in Postgres for the maximum time of a call.
fn sleeper() -> Release {
    Release::guest("sleeps-in-sql").with_manifest(|manifest| {
        let limits = manifest["limits"].as_table_mut().unwrap();
        limits.insert("concurrency".into(), 1024.into());
        limits.insert("deadline_ms".into(), 8_000.into());
        // Another role than that of the handler whose callers must not notice anything.
        manifest["grants"]["postgres"] = "audit".into();
    })
}

/// A guest that computes for the maximum time of a call.
fn looper() -> Release {
    Release::guest("loops-forever").with_manifest(|manifest| {
        let limits = manifest["limits"].as_table_mut().unwrap();
        limits.insert("concurrency".into(), (LOOPING as i64).into());
        limits.insert("deadline_ms".into(), 20_000.into());
        limits.insert("cpu_ms".into(), 10_000.into());
    })
}

/// The time to store a message: the median and the 99th percentile.
#[derive(Clone, Copy, Debug)]
struct Took {
    p50: Duration,
    p99: Duration,
}

async fn send_all(host: &Host, room: &str, sends: usize) -> Took {
    let mut took = Vec::new();
    for n in 0..sends {
        let begun = Instant::now();
        let path = format!("/api/v1/conversations/{room}/messages");
        host.rest("ana").post(&path, json!({ "content": format!("message {n}") })).await.expect(201);
        took.push(begun.elapsed());
    }
    took.sort();
    Took { p50: took[sends / 2], p99: took[sends * 99 / 100 - 1] }
}

/// The figures are meaningful only if nothing else runs (`docs/decisions/fair-shares.md`). The bounds notice
/// a send that waits for the calls of the other handler, which cost it a millisecond each.
fn expect_as_fast(before: &[Took], beside: &[Took], what: &str) {
    let p50 = (|took: &Took| took.p50) as fn(&Took) -> Duration;
    for (name, value, slack_ms) in [("p50", p50, 10), ("p99", |took| took.p99, 50)] {
        let best = |of: &[Took]| of.iter().map(value).min().expect("there was a round");
        let (before, beside) = (best(before), best(beside));
        println!("{name} of a send: {before:?}, beside {what} {beside:?}");
        let most = before * 2 + Duration::from_millis(slack_ms);
        assert!(beside < most, "{name}: {beside:?} instead of {before:?} beside {what}");
    }
}

/// Concurrent calls of a guest, until they are aborted.
fn flood(host: &Host, guest: &'static str, calls: usize) -> Vec<tokio::task::JoinHandle<u16>> {
    let call = || {
        let eve = host.rest("eve");
        tokio::spawn(async move { eve.post(&format!("/api/v1/guests/{guest}"), json!({})).await.status })
    };
    (0..calls).map(|_| call()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_with_hanging_statements_does_not_stop_other_writers() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        host.admin.release(&sleeper()).await;
        let (mut before, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            before.push(send_all(host, &room, SENDS).await.p50);
            let calls = flood(host, "sleeps-in-sql", SLEEPING);
            until("statements to wait for a connection", async || {
                let waiting = host.admin.metric("switchboard_postgres_waiting").await?;
                (waiting > 100.0).then_some(())
            })
            .await;
            // Every message is stored, and none waits for a connection until its deadline.
            beside.push(send_all(host, &room, SENDS).await.p50);
            assert!(calls.iter().any(|call| !call.is_finished()), "the flood ended before the sends");
            calls.iter().for_each(tokio::task::JoinHandle::abort);
            until("the flood to be over", async || {
                // The gauge changes when connections open and close.
                let path = format!("/api/v1/conversations/{room}/messages");
                host.rest("bo").post(&path, json!({ "content": "still there?" })).await.expect(201);
                let waiting = host.admin.metric("switchboard_postgres_waiting").await?;
                (waiting == 0.0).then_some(())
            })
            .await;
        }
        let (before, beside) = (before.iter().min().unwrap(), beside.iter().min().unwrap());
        println!("a send took {before:?}, beside {SLEEPING} hanging calls {beside:?}");
        assert!(*beside < *before * 3 + Duration::from_millis(20), "{beside:?} instead of {before:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_computes_forever_does_not_slow_other_writers() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        host.admin.release(&looper()).await;
        let before = [send_all(host, &room, 200).await, send_all(host, &room, 200).await];
        let calls = flood(host, "loops-forever", LOOPING + REFUSED);
        until("the calls to take every slot of their release", async || {
            let refused = calls.iter().filter(|call| call.is_finished()).count();
            (refused >= REFUSED).then_some(())
        })
        .await;
        let beside = [send_all(host, &room, 200).await, send_all(host, &room, 200).await];
        let looping = calls.iter().filter(|call| !call.is_finished()).count();
        assert_eq!(looping, LOOPING, "calls ended before the sends");
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        expect_as_fast(&before, &beside, &format!("{LOOPING} looping calls"));
    })
    .await;
}

/// All schedules are due at every tick of the node's clock.
fn with_two_hundred_schedules() -> Release {
    Release::built("typing").with_manifest(|manifest| {
        let schedules = (0..200).map(|number| {
            let mut schedule = toml::Table::new();
            schedule.insert("name".into(), format!("expire-{number}").into());
            schedule.insert("every_ms".into(), 100.into());
            schedule.insert("scope".into(), "node".into());
            schedule.into()
        });
        manifest["on"]["schedule"] = toml::Value::Array(schedules.collect());
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_with_two_hundred_schedules_does_not_slow_other_writers() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let (mut before, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            before.push(send_all(host, &room, 200).await);
            host.admin.release(&with_two_hundred_schedules()).await;
            beside.push(send_all(host, &room, 200).await);
            host.admin.rollback("typing").await.expect(200);
        }
        expect_as_fast(&before, &beside, "200 schedules");
    })
    .await;
}
