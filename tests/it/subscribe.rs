//! Subscribing: missed messages come first, in order, then new ones, without a gap between them.

use std::time::Duration;

use serde_json::json;
use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger::{self, Audit};

#[tokio::test]
async fn missed_messages_come_in_order_before_new_ones() {
    Host::test(Options::default(), async |host| {
        let (mut ana, bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        drop(bo);
        for n in 1..=5 {
            ana.send(&format!("missed {n}")).await.expect_sent();
        }
        let mut bo = host.client("bo").await;
        let payload = json!({"conversation_ids": [room], "positions": {(room.as_str()): 2}});
        let subscribed = bo.request("subscribe", payload).await.expect("subscribed");
        bo.clear_buffered();
        assert_eq!(subscribed["heads"][&room], 6);
        ana.send("new").await.expect_sent();
        for (seq, content) in (3..).zip(["missed 2", "missed 3", "missed 4", "missed 5", "new"]) {
            let push = bo.expect("message.new").await;
            assert_eq!(push["conversation_id"], *room);
            assert_eq!(
                (&push["message"]["seq"], &push["message"]["content"]),
                (&json!(seq), &json!(content))
            );
        }
        bo.expect_silence().await;
    })
    .await;
}

#[tokio::test]
async fn a_subscription_without_position_begins_at_the_head() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let mut ana = host.client("ana").await;
        ana.enter(&room).await;
        ana.send("before").await.expect_sent();
        let mut bo = host.client("bo").await;
        let head = bo.enter(&room).await;
        assert_eq!(head, 2);
        ana.send("after").await.expect_sent();
        bo.expect_message("after").await;
    })
    .await;
}

#[tokio::test]
async fn strangers_are_refused_one_by_one() {
    Host::test(Options::default(), async |host| {
        let mine = host.group("mine", &["eve"]).await;
        let theirs = host.group("theirs", &["ana", "bo"]).await;
        let mut eve = host.client("eve").await;
        let payload = json!({"conversation_ids": [mine, theirs]});
        let subscribed = eve.request("subscribe", payload).await.expect("subscribed");
        assert_eq!(subscribed["conversation_ids"], json!([mine]));
        assert_eq!(subscribed["refused"], json!([{"id": theirs, "code": "not_found"}]));
        assert!(subscribed["heads"].get(&theirs).is_none());
        let path = format!("/api/v1/conversations/{theirs}/messages");
        host.rest("ana").post(&path, json!({"content": "secret"})).await.expect(201);
        eve.expect_silence().await;
    })
    .await;
}

#[tokio::test]
async fn a_subscribe_can_join_a_channel() {
    Host::test(Options::default(), async |host| {
        let body =
            json!({"type": "channel", "name": "news", "visibility": "public", "members": [], "capacity": 2});
        let made = host.rest("ana").post("/api/v1/conversations", body).await.expect(201);
        let room = made["conversation"]["id"].as_str().unwrap().to_owned();
        let mut bo = host.client("bo").await;
        // Without `join` she may not read a public channel.
        let ask = json!({"conversation_ids": [room]});
        let subscribed = bo.request("subscribe", ask).await.expect("subscribed");
        assert_eq!(subscribed["refused"][0]["id"], *room);
        let join = json!({"conversation_ids": [room], "join": true});
        let subscribed = bo.request("subscribe", join).await.expect("subscribed");
        assert_eq!(subscribed["conversation_ids"], json!([room]));
        let mut cy = host.client("cy").await;
        let joined = cy.request("chat:join", json!({"conversation_id": room})).await;
        let refused = joined.expect("subscribed")["refused"][0].clone();
        assert_eq!(refused["code"], "conversation_full");
        let path = format!("/api/v1/conversations/{room}/messages");
        host.rest("ana").post(&path, json!({"content": "headline"})).await.expect(201);
        let push = bo.expect_where("message.new", |push| push["message"]["type"] == "text").await;
        assert_eq!(push["message"]["content"], "headline");
        cy.expect_silence().await;
    })
    .await;
}

#[tokio::test]
async fn an_alias_gets_the_canonical_reply_with_the_conversation() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let mut ana = host.client("ana").await;
        let joined = ana.request("chat:join", json!({"conversation_id": room})).await.expect("subscribed");
        assert_eq!(joined["conversation"]["id"], *room);
        let payload = json!({"conversation_id": room, "content": "hi"});
        ana.request("chat:send-message", payload).await.expect_sent();
        ana.request("leave_room", json!({"conversation_id": room})).await.expect("unsubscribed");
        ana.request("heartbeat", json!({})).await.expect("pong");
    })
    .await;
}

#[tokio::test]
async fn no_push_arrives_after_unsubscribing() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let payload = json!({"conversation_ids": [bo.room()]});
        bo.request("unsubscribe", payload).await.expect("unsubscribed");
        ana.send("to whom").await.expect_sent();
        ana.expect_message("to whom").await;
        bo.expect_silence().await;
    })
    .await;
}

#[tokio::test]
async fn after_more_than_a_thousand_missed_messages_the_client_gets_a_resync() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let mut talkers = Vec::new();
        for _ in 0..8 {
            talkers.push(Chatter::start(host.address, Plan::talker("ana", &room, Duration::ZERO)).await);
        }
        switchboard_tests::patience::until("a thousand messages", async || {
            let sent: usize = talkers.iter().map(Chatter::acknowledged).sum();
            (sent > 1010).then_some(())
        })
        .await;
        drop(talkers);
        let mut bo = host.client("bo").await;
        let payload = json!({"conversation_ids": [room], "positions": {(room.as_str()): 1}});
        bo.request("subscribe", payload).await.expect("subscribed");
        let resync = bo.expect("resync").await;
        assert_eq!(resync["conversation_ids"], json!([room]));
        // The subscription still exists.
        let path = format!("/api/v1/conversations/{room}/messages");
        host.rest("ana").post(&path, json!({"content": "the newest"})).await.expect(201);
        // Messages still in flight may make another gap of a thousand, which is paged as well.
        loop {
            let push = bo.next_push().await;
            let message = match push["type"].as_str() {
                Some("message.new") => push["payload"]["message"].clone(),
                Some("resync") => {
                    let newest = host.rest("bo").get(&format!("{path}?limit=1")).await.expect(200);
                    newest["messages"][0].clone()
                }
                _ => continue,
            };
            if message["content"] == "the newest" {
                break;
            }
        }
    })
    .await;
}

/// Clients disconnect and resume during a stream, each with its position. At any moment, the stream of a
/// client equals the history.
#[tokio::test]
async fn resuming_under_load_leaves_nothing_out() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let mut talkers = Vec::new();
        for user in ["ana", "bo"] {
            let plan = Plan::talker(user, &room, Duration::from_millis(2));
            talkers.push(Chatter::start(host.address, plan).await);
        }
        let mut position = 1;
        for _ in 0..30 {
            let mut bo = host.client("bo").await;
            let payload = json!({"conversation_ids": [room], "positions": {(room.as_str()): position}});
            let subscribed = bo.request("subscribe", payload).await.expect("subscribed");
            bo.clear_buffered();
            let head = subscribed["heads"][&room].as_u64().unwrap();
            while position < head + 5 {
                let push = bo.expect("message.new").await;
                let seq = push["message"]["seq"].as_u64().unwrap();
                assert_eq!(seq, position + 1);
                position = seq;
            }
        }
        for talker in &mut talkers {
            talker.stop_sending().await;
        }
        let history = ledger::history(&host.rest("ana"), &room).await;
        let head = *history.last_key_value().unwrap().0;
        let mut records = Vec::new();
        for talker in &talkers {
            talker.expect_up_to(&room, head).await;
            records.push(talker.record());
        }
        Audit::of(&[(room, history)].into(), &records).expect_untouched();
    })
    .await;
}

/// A member who left and returned has subscribed again. This subscription must survive the late revocation of
/// the first.
#[tokio::test]
async fn a_user_who_rejoins_before_the_leave_is_delivered_stays_subscribed() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        let (mut bo, mut cy) = (host.client("bo").await, host.client("cy").await);
        bo.enter(&room).await;
        cy.enter(&room).await;
        let database = host.database.connect().await;
        let elsewhere = "update switchboard.cursors set epoch = epoch + 1, owner = gen_random_uuid(), \
             lease_until = now() + interval '1 hour' where consumer = 'outbox-relay'";
        database.run(elsewhere).await;
        let path = format!("/api/v1/conversations/{room}");
        host.rest("cy").delete(&path).await.expect(204);
        host.rest("bo").delete(&path).await.expect(204);
        let again = json!({"user_id": "bo"});
        host.rest("ana").post(&format!("{path}/participants"), again).await.expect(201);
        bo.enter(&room).await;
        database
            .run(
                "update switchboard.cursors set lease_until = '-infinity', owner = null \
                 where consumer = 'outbox-relay'",
            )
            .await;
        bo.expect_where("member.left", |left| left["user_id"] == "bo").await;
        let body = json!({"content": "you again"});
        host.rest("ana").post(&format!("{path}/messages"), body).await.expect(201);
        bo.expect_message("you again").await;
        // A member who stays away gets nothing, not even about the returned ones.
        cy.expect_where("member.left", |left| left["user_id"] == "cy").await;
        cy.clear_buffered();
        cy.expect_silence().await;
    })
    .await;
}
