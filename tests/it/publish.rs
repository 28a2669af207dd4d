//! Publications of internal systems to topics, users and conversations: with a service token, accepted after
//! COMMIT.

use hyper::Method;
use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::rest::{Answer, Rest};
use switchboard_tests::token::Token;

async fn follow(client: &mut Client, topics: &[&str]) {
    let reply = client.request("subscribe", json!({"conversation_ids": [], "topics": topics})).await;
    let subscribed = reply.expect("subscribed");
    assert_eq!(subscribed["topics"].as_array().map(Vec::len), Some(topics.len()), "{subscribed}");
}

#[tokio::test]
async fn a_topic_reaches_its_subscribers_in_order() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo, mut cy) = (host.client("ana").await, host.client("bo").await, host.client("cy").await);
        follow(&mut ana, &["match:31", "tournament:7"]).await;
        follow(&mut bo, &["match:31"]).await;
        for n in 0..20 {
            let body = json!({"target": "topic:match:31", "type": "match.update", "payload": {"matchId": 31, "scores": [n, 0]}});
            assert!(host.publish(body).await.expect(202)["id"].is_string());
        }
        for follower in [&mut ana, &mut bo] {
            for n in 0..20 {
                assert_eq!(follower.expect("match.update").await, json!({"matchId": 31, "scores": [n, 0]}));
            }
        }
        bo.request("unsubscribe", json!({"topics": ["match:31"]})).await.expect("unsubscribed");
        for target in ["topic:match:31", "topic:tournament:7"] {
            let body = json!({"target": target, "type": "tournament.start", "payload": {"tournamentId": 7}});
            host.publish(body).await.expect(202);
            assert_eq!(ana.expect("tournament.start").await["tournamentId"], 7);
        }
        // A client that does not follow gets nothing: a frame for everyone comes first.
        for client in [&mut bo, &mut cy] {
            let to_them = json!({"target": format!("user:{}", client.user), "type": "last", "payload": {}});
            host.publish(to_them).await.expect(202);
            client.expect("last").await;
            assert!(client.take_buffered("tournament.start").is_none());
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_and_a_conversation_are_reached_on_every_node() {
    Host::test(Options::default(), async |host| {
        let mut other = host.another_node().await;
        let room = host.group("lobby", &["ana", "bo"]).await;
        let (mut here, mut there) = (host.client("bo").await, other.client("bo").await);
        let mut ana = other.client("ana").await;
        ana.enter(&room).await;
        let body = json!({"target": "user:bo", "type": "progress.updated", "payload": {"lessonId": 3, "status": "done"}});
        host.publish(body).await.expect(202);
        for device in [&mut here, &mut there] {
            assert_eq!(device.expect("progress.updated").await["status"], "done");
        }
        // Only Ana is subscribed; both are notified, on all their devices.
        let body = json!({"target": format!("conv:{room}"), "type": "lesson.moved", "payload": {"to": "noon"},
            "notify": {"type": "progress", "level": "warning", "title": "Moved", "body": "to noon", "data": {"hour": 12}}});
        host.publish(body).await.expect(202);
        assert_eq!(ana.expect("lesson.moved").await["to"], "noon");
        for device in [&mut here, &mut there, &mut ana] {
            let push = device.expect("notification.new").await;
            let notification = &push["notification"];
            assert_eq!(notification["type"], "progress");
            assert_eq!((&notification["level"], &notification["data"]["hour"]), (&json!("warning"), &json!(12)));
            assert!(device.take_buffered("lesson.moved").is_none());
        }
        assert_eq!(host.notified("bo").await.len(), 1);
        drop((here, there, ana));
        other.terminate();
        other.ended().await;
    })
    .await;
}

#[tokio::test]
async fn everyone_in_a_large_conversation_is_notified_of_a_publication() {
    Host::test(Options::default(), async |host| {
        let room = host.group("hall", &["ana", "muted"]).await;
        // More people than one statement handles.
        let people = format!(
            "insert into app.participants (conversation_id, user_id, role)
             select '{room}', 'user-' || n, 'member' from generate_series(1, 2500) as n;
             update app.participants set notifications = 'none' where user_id = 'muted'"
        );
        let connection = host.database.connect().await;
        connection.run(&people).await;
        let body =
            json!({"target": format!("conv:{room}"), "type": "x", "payload": {}, "notify": {"title": "all"}});
        host.publish(body).await.expect(202);
        host.outbox_read().await;
        let rows = connection.rows("select count(*), count(distinct user_id) from app.notifications").await;
        assert_eq!((rows[0].get::<_, i64>(0), rows[0].get::<_, i64>(1)), (2501, 2501));
    })
    .await;
}

#[tokio::test]
async fn only_internal_systems_publish() {
    Host::test(Options::default(), async |host| {
        let body = json!({"target": "user:bo", "type": "x", "payload": {}});
        for roles in [&[][..], &["admin"], &["auditor", "services"]] {
            let token = Token::of("ana").roles(roles).sign();
            host.rest_with(token)
                .post("/internal/v1/publish", body.clone())
                .await
                .expect_problem(403, "forbidden");
        }
        let nobody = host.rest("ana").anonymous();
        nobody.post("/internal/v1/publish", body).await.expect_problem(401, "unauthorized");
    })
    .await;
}

#[tokio::test]
async fn an_invalid_publication_names_its_field_and_is_not_published() {
    Host::test(Options::default(), async |host| {
        let good = json!({"target": "user:bo", "type": "x", "payload": {}, "notify": {"title": "x"}});
        for (field, value) in [
            ("target", json!(null)),
            ("target", json!("bo")),
            ("target", json!("topic:")),
            ("target", json!("user:a\0")),
            ("type", json!("message.new")),
            ("type", json!("presence.update")),
            ("type", json!("member.joined")),
            ("type", json!("receipt.read")),
            ("type", json!("notification.new")),
            ("type", json!("a b")),
            ("type", json!(7)),
            ("payload", json!([])),
            ("payload", json!("x")),
            ("payload", json!({"x": "y".repeat(60 * 1024)})),
            ("notify", json!("x")),
        ] {
            let mut body = good.clone();
            body[field] = value;
            host.publish(body).await.expect_invalid(field);
        }
        for (field, value) in [
            ("title", json!(null)),
            ("title", json!("x".repeat(256))),
            ("type", json!("mention")),
            ("level", json!("loud")),
            ("data", json!([])),
        ] {
            let mut body = good.clone();
            body["notify"][field] = value;
            host.publish(body).await.expect_invalid(&format!("notify.{field}"));
        }
        let mut to_topic = good.clone();
        to_topic["target"] = "topic:x".into();
        host.publish(to_topic).await.expect_invalid("notify");
        let mut nowhere = good.clone();
        nowhere["target"] = "conv:019aa007-76bb-7fff-bfff-ffffffffffff".into();
        host.publish(nowhere).await.expect_problem(404, "not_found");
        let service = host.rest_with(Token::of("billing").roles(&["service"]).sign());
        let large = json!({"target": "user:bo", "type": "x", "payload": {"x": "y".repeat(64 * 1024)}});
        service.post("/internal/v1/publish", large).await.expect_problem(413, "too_large");
        for body in ["", "{", "[]"] {
            let headers = [("content-type", "application/json")];
            let answer = service.send(Method::POST, "/internal/v1/publish", &headers, body).await;
            answer.expect_problem(400, "malformed");
        }
        let rows = host
            .database
            .connect()
            .await
            .rows("select from switchboard.outbox where event_type = 'published'")
            .await;
        assert!(rows.is_empty());
        assert_eq!(host.notified("bo").await, []);
    })
    .await;
}

async fn publish_with_key(service: &Rest, key: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    service.send(Method::POST, "/internal/v1/publish", &headers, body.to_string()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_with_a_key_is_published_once() {
    Host::test(Options::default(), async |host| {
        let mut bo = host.client("bo").await;
        let service = |name: &str| host.rest_with(Token::of(name).roles(&["service"]).sign());
        let body =
            json!({"target": "user:bo", "type": "once", "payload": {"n": 1}, "notify": {"title": "once"}});
        let first = publish_with_key(&service("billing"), "k", &body).await.expect(202);
        // Also with concurrent requests: one of them is the first.
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let (service, body) = (service("billing"), body.clone());
                tokio::spawn(async move { publish_with_key(&service, "k2", &body).await.expect(202) })
            })
            .collect();
        let mut ids = std::collections::BTreeSet::new();
        for call in calls {
            ids.insert(call.await.expect("an answer")["id"].to_string());
        }
        assert_eq!(ids.len(), 1);
        let again = publish_with_key(&service("billing"), "k", &body).await.expect(202);
        assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
        let mut other = body.clone();
        other["payload"]["n"] = 2.into();
        publish_with_key(&service("billing"), "k", &other).await.expect_problem(409, "idempotency_conflict");
        publish_with_key(&service("billing"), "", &body).await.expect_invalid("Idempotency-Key");
        // Each publisher has keys of its own.
        publish_with_key(&service("lessons"), "k", &body).await.expect(202);
        assert_eq!(host.notified("bo").await.len(), 3);
        for _ in 0..3 {
            bo.expect("once").await;
        }
        bo.expect_alive().await;
        assert!(bo.take_buffered("once").is_none());
    })
    .await;
}

/// A publisher that did not get the answer asks again, and the conversation may have ended meanwhile.
#[tokio::test]
async fn an_accepted_publication_stays_accepted_after_its_conversation_ends() {
    Host::test(Options::default(), async |host| {
        let room = host.group("short", &["ana"]).await;
        let service = host.rest_with(Token::of("billing").roles(&["service"]).sign());
        let body = json!({"target": format!("conv:{room}"), "type": "once", "payload": {"n": 1}});
        let first = publish_with_key(&service, "k", &body).await.expect(202);
        host.rest("ana").delete(&format!("/api/v1/conversations/{room}")).await.expect(204);
        let again = publish_with_key(&service, "k", &body).await.expect(202);
        assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
        let other = json!({"target": format!("conv:{room}"), "type": "once", "payload": {"n": 2}});
        publish_with_key(&service, "k", &other).await.expect_problem(409, "idempotency_conflict");
        publish_with_key(&service, "new", &body).await.expect_problem(404, "not_found");
    })
    .await;
}

#[tokio::test]
async fn an_accepted_publication_survives_the_loss_of_redis_and_of_the_host() {
    Host::test(Options::default(), async |host| {
        host.outbox_read().await;
        host.redis.kill();
        let body = json!({"target": "user:bo", "type": "x", "payload": {}, "notify": {"title": "kept"}});
        host.publish(body).await.expect(202);
        host.kill().await;
        host.redis.start_again().await;
        host.start().await;
        until("the notification to be there", async || {
            (host.notifications("bo", "").await["unread"] == 1).then_some(())
        })
        .await;
    })
    .await;
}
