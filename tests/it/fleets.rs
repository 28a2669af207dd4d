//! Two fleets on one Redis, and a Redis with wrong data: refused writes, an old snapshot.

use std::time::Duration;

use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::{until, within};
use switchboard_tests::services;

use crate::lists::{CONVERSATIONS, agrees};

/// The number of the database does not matter: publications have none.
#[tokio::test]
async fn two_fleets_on_one_redis_do_not_affect_each_other() {
    Host::test(Options::default(), async |host| {
        let mut other = Host::over(services::database().await, host.redis.shared(), Options::default()).await;
        other.start().await;
        assert_ne!(host.redis_key("").await, other.redis_key("").await);
        let mut here = host.client("ana").await;
        let mut there = Client::sign_in(other.address, "ana").await;
        for client in [&mut here, &mut there] {
            client.request("subscribe", json!({"topics": ["match:7"]})).await.expect("subscribed");
        }
        let body = json!({"target": "user:ana", "type": "lesson.moved", "payload": {"to": "noon"},
            "notify": {"title": "only here"}});
        host.publish(body).await.expect(202);
        let topic = json!({"target": "topic:match:7", "type": "match.update", "payload": {"score": 1}});
        host.publish(topic).await.expect(202);
        assert_eq!(here.expect("lesson.moved").await["to"], "noon");
        assert_eq!(here.expect("match.update").await["score"], 1);
        there.expect_silence().await;
        for name in ["lesson.moved", "match.update", "notification.new"] {
            assert!(there.take_buffered(name).is_none(), "the other fleet received {name}");
        }
        host.admin.rest().post("/admin/v1/disconnect", json!({"user_id": "ana"})).await.expect(202);
        assert_eq!(here.expect_close().await, 4003);
        there.expect_silence().await;
        other.terminate();
        other.ended().await;
        other.database.drop_it().await;
    })
    .await;
}

/// Redis reads and refuses writes: the host does not show changes of the meantime from it, and writes them
/// later.
#[tokio::test]
async fn while_redis_refuses_writes_lists_are_right_and_events_wait() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let messages = format!("{CONVERSATIONS}/{room}/messages");
        let sent = host.rest("ana").post(&messages, json!({"content": "a secret"})).await.expect(201);
        agrees(host, "bo").await;

        host.redis.say(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
        let id = sent["message"]["id"].as_str().expect("an id");
        host.rest("ana").delete(&format!("{messages}/{id}")).await.expect(204);
        host.rest("ana").post(&messages, json!({"content": "after"})).await.expect(201);
        within(Duration::from_secs(10), "readiness to name the refusal", async || {
            let ready = host.admin.rest().get("/readyz").await;
            String::from_utf8_lossy(&ready.body).contains("NOREPLICAS").then_some(())
        })
        .await;
        let shown = host.rest("bo").get(CONVERSATIONS).await.expect(200);
        assert!(!shown.to_string().contains("a secret"), "{shown}");
        assert_eq!(shown["conversations"][0]["last_message"]["content"], "after");

        host.redis.say(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
        until("the events that waited to be read", async || {
            host.database.outbox_unread().await.is_empty().then_some(())
        })
        .await;
        let parked = host.admin.rest().get("/admin/v1/events?state=failed").await.expect(200);
        assert_eq!(parked["events"], json!([]), "{parked}");
        agrees(host, "bo").await;
    })
    .await;
}

/// Redis returns with an older state: the host shows nothing of it.
#[tokio::test]
async fn data_of_a_redis_restored_from_an_old_snapshot_is_not_used() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let messages = format!("{CONVERSATIONS}/{room}/messages");
        let sent = host.rest("ana").post(&messages, json!({"content": "a secret"})).await.expect(201);
        let publish =
            json!({"target": "user:bo", "type": "x", "payload": {}, "notify": {"title": "read me"}});
        host.publish(publish).await.expect(202);
        let bo = host.rest("bo");
        until("the notification", async || {
            let listed = bo.get("/api/v1/notifications").await.expect(200);
            listed.to_string().contains("read me").then_some(())
        })
        .await;
        agrees(host, "bo").await;
        assert_eq!(host.redis.say(&["SAVE"]).await, "OK");

        let id = sent["message"]["id"].as_str().expect("an id");
        host.rest("ana").delete(&format!("{messages}/{id}")).await.expect(204);
        bo.put("/api/v1/notifications/read-all", json!({})).await.expect(200);
        host.group("new", &["ana", "bo"]).await;
        agrees(host, "bo").await;
        host.redis.kill();
        host.redis.start_again().await;

        agrees(host, "bo").await;
        let shown = bo.get(CONVERSATIONS).await.expect(200);
        assert!(!shown.to_string().contains("a secret"), "{shown}");
        let listed = bo.get("/api/v1/notifications?unread=true").await.expect(200);
        assert_eq!(listed["notifications"], json!([]), "{listed}");
        // The same after Redis is used again.
        until("Redis to be used", async || host.admin.ready().await.then_some(())).await;
        agrees(host, "bo").await;
        let listed = bo.get("/api/v1/notifications?unread=true").await.expect(200);
        assert_eq!(listed["notifications"], json!([]), "{listed}");
    })
    .await;
}
