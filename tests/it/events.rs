//! Events that a handler cannot process: they are retried with growing delays, then parked with the error.
//! Operators see them, replay them or drop them.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::{until, within};
use switchboard_tests::release::Release;

async fn say(host: &Host, user: &str, word: &str) {
    let body = json!({"target": format!("user:{user}"), "type": "word", "payload": {"word": word}});
    host.publish(body).await.expect(202);
}

async fn failed(host: &Host) -> Vec<Value> {
    let (status, answer) = host.switchboard(&["events", "failed", "--json"]).await;
    assert_eq!(status, 0, "{answer}");
    answer["events"].as_array().expect("a list").clone()
}

/// The milliseconds between two times of one day.
fn between(from: &Value, to: &Value) -> i64 {
    let ms = |time: &Value| -> i64 {
        let text = time.as_str().expect("a time");
        let number =
            |from: usize, to: usize| text[from..to].parse::<i64>().expect("RFC 3339 with milliseconds");
        ((number(11, 13) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1000 + number(20, 23)
    };
    (ms(to) - ms(from)).rem_euclid(86_400_000)
}

#[tokio::test]
async fn a_failing_event_is_retried_then_parked_then_replayed_by_an_operator() {
    Host::test(Options::default().set("LOG_JSON", true), async |host| {
        let guest = Release::guest("poisoned");
        host.admin.release(&guest).await;
        let (mut bo, mut cy) = (host.client("bo").await, host.client("cy").await);
        let word = |push: Value| push["payload"]["word"].clone();
        // A new consumer begins with new events: wait until it has handled one.
        until("the guest to listen", async || {
            say(host, "cy", "are you there?").await;
            cy.expect_alive().await;
            cy.take_buffered("seen")
        })
        .await;

        for text in ["before", "poison", "after"] {
            say(host, "bo", text).await;
        }
        say(host, "cy", "poison too").await;
        assert_eq!(word(bo.expect("seen").await), "before");
        // The next event of the same person waits for it, events of others do not, and in the end it is
        // delivered.
        say(host, "dee", "meanwhile").await;
        assert_eq!(word(bo.expect("seen").await), "after");
        let parked =
            until("both to be parked", async || Some(failed(host).await).filter(|list| list.len() == 2))
                .await;
        for event in &parked {
            assert_eq!((&event["consumer"], &event["event_type"]), (&json!("poisoned"), &json!("published")));
            assert_eq!(event["attempts"], 3, "{event}");
            let error = event["error"].as_str().unwrap_or_default();
            let has_place = error.contains("poisoned/src/lib.rs:");
            assert!(error.starts_with("trap: panic: on purpose, in ") && has_place, "{event}");
            // The retries are 250 ms and 500 ms after the previous delivery.
            let waited = between(&event["created_at"], &event["parked_at"]);
            assert!(waited >= 700, "parked after {waited} ms: {event}");
        }
        for what in ["event postponed; it is delivered again", "event parked; an operator can retry"] {
            let line = until("its line in the log", async || {
                let log = host.log();
                let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                lines.find(|line| line["message"].as_str().is_some_and(|text| text.starts_with(what)))
            })
            .await;
            assert_eq!(line["handler.name"], "poisoned", "{line}");
            let release = line["handler.release"].as_str().unwrap_or_default();
            assert!(!release.is_empty() && guest.digest().starts_with(release), "{line}");
        }
        let of = |user: &str| -> String {
            let key = format!("user:{user}");
            let event = parked.iter().find(|event| event["key"] == *key).expect("one of this person's");
            event["id"].as_str().expect("an id").to_owned()
        };

        // A retry before the repair: it is parked again, with its attempts counted from one.
        let (status, answer) = host.switchboard(&["events", "retry", &of("bo"), "--json"]).await;
        assert_eq!(status, 0, "{answer}");
        // The consumer looked for retries when the event was parked, and would look again after 10 s. The
        // attempts take 750 ms.
        within(Duration::from_secs(6), "it to be parked again", async || {
            Some(failed(host).await).filter(|list| list.len() == 2)
        })
        .await;

        let repaired = guest.with_manifest(|manifest| manifest["config"]["repaired"] = true.into());
        host.admin.release(&repaired).await;
        let (status, answer) = host.switchboard(&["events", "retry", &of("bo"), "--json"]).await;
        assert_eq!(status, 0, "{answer}");
        // Delivery is at least once: `after` comes twice if a batch had it before the poison of another
        // person.
        bo.expect_where("seen", |push| push["payload"]["word"] == "poison").await;

        let (status, answer) = host.switchboard(&["events", "drop", &of("cy"), "--json"]).await;
        assert_eq!(status, 0, "{answer}");
        until("nothing to be left", async || failed(host).await.is_empty().then_some(())).await;
        // The command reports a missing event, and fails.
        for verb in ["retry", "drop"] {
            assert_eq!(host.switchboard(&["events", verb, &of("cy"), "--json"]).await.0, 1);
        }
        assert_eq!(host.switchboard(&["events", "drop", "x"]).await.0, 2);
        cy.expect_alive().await;
        assert!(cy.take_buffered("seen").is_none(), "what was dropped was delivered");
    })
    .await;
}

/// Number of calls of a guest with events.
async fn calls(host: &Host, handler: &str) -> f64 {
    let page = host.admin.rest().get("/metrics").await;
    let metrics = String::from_utf8_lossy(&page.body).into_owned();
    let of = format!("handler=\"{handler}\"");
    let lines = metrics.lines().filter(|line| {
        line.starts_with("switchboard_call_seconds_count") && line.contains(&of) && line.contains("event")
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn a_consumer_with_a_pace_gets_the_events_of_each_interval_together() {
    Host::test(Options::default(), async |host| {
        let guest = Release::guest("poisoned");
        let slow = guest.with_manifest(|manifest| {
            let event = manifest["on"]["event"].as_table_mut().expect("what it is called with");
            event.insert("pace_ms".into(), 1000.into());
        });
        host.admin.release(&slow).await;
        let mut bo = host.client("bo").await;
        until("the guest to listen", async || {
            say(host, "bo", "are you there?").await;
            bo.expect_alive().await;
            bo.take_buffered("seen")
        })
        .await;
        let before = calls(host, "poisoned").await;
        for word in ["one", "two", "three", "four", "five"] {
            say(host, "bo", word).await;
        }
        let mut seen = bo.expect("seen").await["payload"]["word"].clone();
        while seen != "five" {
            seen = bo.expect("seen").await["payload"]["word"].clone();
        }
        // Some events may have been in the first batch; five single ones would be five calls.
        let called = calls(host, "poisoned").await - before;
        assert!(called <= 3.0, "{called} calls");
    })
    .await;
}
