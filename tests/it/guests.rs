//! Handlers that misbehave, released to a running host: each harms only its own call. Between every two of
//! its calls a user sends a message, and it arrives.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger::{self, Audit};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

/// The guest, and the statuses that its callers may get.
const GUESTS: [(&str, &[u16]); 8] = [
    ("loops-forever", &[500, 503]),
    ("memory-bomb", &[500]),
    ("deep-recursion", &[500]),
    ("trap", &[500]),
    ("floods-host-calls", &[500]),
    // Lines beyond the bound of a log are dropped; the call itself succeeds.
    ("floods-log", &[200, 204, 500]),
    ("sleeps-in-sql", &[500, 503]),
    ("leaves-transaction-open", &[200, 204, 500]),
];
const CALLS_AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_guest_only_fails_its_own_call() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let mut crowd = Vec::new();
        for user in ["ana", "bo"] {
            let plan = Plan::talker(user, &room, Duration::from_millis(5));
            crowd.push(Chatter::start(host.address, plan).await);
        }
        let acknowledged = |crowd: &[Chatter]| crowd.iter().map(Chatter::acknowledged).sum::<usize>();
        for (guest, statuses) in GUESTS {
            host.admin.release(&Release::guest(guest)).await;
            let before = acknowledged(&crowd);
            let calls: Vec<_> = (0..CALLS_AT_ONCE)
                .map(|_| {
                    let (eve, path) = (host.rest("eve"), format!("/api/v1/guests/{guest}"));
                    tokio::spawn(async move { eve.post(&path, json!({})).await })
                })
                .collect();
            for call in calls {
                let answer = call.await.expect("an answer");
                // Beyond its own concurrency its callers get 503 with `Retry-After`.
                let fits = statuses.contains(&answer.status) || answer.status == 503;
                assert!(fits, "{guest}: {answer}");
                let text = String::from_utf8_lossy(&answer.body).to_lowercase();
                for detail in ["wasm", "backtrace", "panicked", ".rs", "select "] {
                    assert!(!text.contains(detail), "{guest} tells its caller {detail:?}: {answer}");
                }
            }
            until(format!("people to go on beside {guest}"), async || {
                (acknowledged(&crowd) > before + 20).then_some(())
            })
            .await;
        }
        until("no transaction to be left by a guest", async || {
            (host.database.open_transactions().await == 0).then_some(())
        })
        .await;
        // The log has the trap, with the handler's name and its release.
        let log = host.log();
        for (guest, _) in GUESTS.iter().filter(|(_, statuses)| !statuses.contains(&200)) {
            assert!(log.contains(guest), "the log does not name {guest}");
        }
        assert!(log.contains("panic: on purpose, in "), "the log has no message of a panic");

        for chatter in &mut crowd {
            chatter.stop_sending().await;
        }
        let history = ledger::history(&host.rest("ana"), &room).await;
        for chatter in &crowd {
            chatter.expect_up_to(&room, *history.last_key_value().unwrap().0).await;
        }
        let records: Vec<_> = crowd.iter().map(Chatter::record).collect();
        Audit::of(&[(room, history)].into(), &records).expect_untouched();
        drop(crowd);
    })
    .await;
}

#[tokio::test]
async fn every_log_line_names_handler_release_and_call() {
    Host::test(Options::default().set("LOG_JSON", true), async |host| {
        let guest = Release::guest("floods-log");
        host.admin.release(&guest).await;
        for _ in 0..2 {
            host.rest("eve").post("/api/v1/guests/floods-log", json!({})).await;
        }
        let lines: Vec<Value> = until("both calls' lines", async || {
            let log = host.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let lines: Vec<_> = lines.filter(|line| line["target"] == "handler").collect();
            (lines.len() >= 128).then_some(lines)
        })
        .await;
        let mut calls = BTreeSet::new();
        for line in &lines {
            assert_eq!(line["handler.name"], "floods-log");
            assert!(guest.digest().starts_with(line["handler.release"].as_str().unwrap()));
            calls.insert(line["call"].as_str().expect("its call").to_owned());
            assert_eq!(line["message"], "flood");
            assert!(line["field.line"].as_str().is_some_and(|text| text.starts_with("xxx")), "{line}");
            assert!(line.to_string().len() < 5000, "{line}");
        }
        assert_eq!(calls.len(), 2, "{calls:?}");
    })
    .await;
}

#[tokio::test]
async fn a_release_without_the_needed_grants_is_refused_before_it_serves() {
    Host::test(Options::default(), async |host| {
        for guest in ["ungranted-import", "wrong-world"] {
            let answer = host.admin.deploy(&Release::guest(guest)).await;
            assert!(matches!(answer.status, 400 | 422), "{guest}: {answer}");
            let path = format!("/api/v1/guests/{guest}");
            host.rest("eve").post(&path, json!({})).await.expect_problem(404, "not_found");
        }
        host.client("ana").await.expect_alive().await;
    })
    .await;
}
