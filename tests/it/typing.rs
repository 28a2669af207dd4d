//! Typing and focus: pushed to the other participants while it lasts, never to the person, and never from a
//! user who may not write.

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;

#[tokio::test]
async fn typing_is_pushed_to_the_others_until_it_stops() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let mut phone = host.client("ana").await;
        phone.enter(&room).await;
        let expected = json!({"conversation_id": room, "user_id": "ana"});
        // Every keystroke sends a frame; the others get one push.
        for _ in 0..10 {
            ana.write(json!({"type": "typing", "payload": {"conversation_id": room}})).await;
        }
        assert_eq!(bo.expect("typing.start").await, expected);
        ana.write(json!({"type": "chat:typing", "payload": {"conversation_id": room, "state": "stop"}}))
            .await;
        assert_eq!(bo.expect("typing.stop").await, expected);
        // After `stop`, typing has ended.
        ana.write(json!({"type": "typing", "payload": {"conversation_id": room, "state": "stop"}})).await;
        ana.expect_alive().await;
        // The frame has no reply: no frame with its id arrives.
        ana.write(json!({"type": "typing", "id": "t", "payload": {"conversation_id": room}})).await;
        ana.expect_alive().await;
        assert_eq!(bo.expect("typing.start").await, expected);
        bo.expect_silence().await;
        // The person gets no push, on any device.
        for mine in [&mut ana, &mut phone] {
            mine.expect_silence().await;
            assert!(mine.buffered("typing.start").is_empty() && mine.buffered("typing.stop").is_empty());
        }
        // Typing ends ten seconds after the last keystroke.
        assert_eq!(bo.expect("typing.stop").await, expected);
        assert!(bo.buffered("typing.start").is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_user_who_cannot_send_cannot_type() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let mut eve = host.client("eve").await;
        let database = host.database.connect().await;
        for state in ["start", "stop"] {
            let payload = json!({"conversation_id": room, "state": state});
            eve.request("typing", payload).await.expect_error("not_found");
        }
        eve.request("typing", json!({"conversation_id": "No Slug"})).await.expect_invalid("conversation_id");
        eve.request("typing", json!({})).await.expect_invalid("conversation_id");
        let maybe = json!({"conversation_id": room, "state": "maybe"});
        bo.request("typing", maybe).await.expect_invalid("state");

        let of_bo = format!("where conversation_id = '{room}' and user_id = 'bo'");
        database.run(&format!("update app.participants set role = 'observer' {of_bo}")).await;
        bo.request("typing", json!({"conversation_id": room})).await.expect_error("forbidden");
        database.run(&format!("update app.participants set role = 'member' {of_bo}")).await;
        bo.write(json!({"type": "typing", "payload": {"conversation_id": room}})).await;
        bo.write(json!({"type": "typing", "payload": {"conversation_id": room, "state": "stop"}})).await;
        ana.expect("typing.start").await;
        ana.expect("typing.stop").await;
        // After the user left, no push arrives, from the first moment on.
        database.run(&format!("update app.participants set left_at = now() {of_bo}")).await;
        bo.request("typing", json!({"conversation_id": room})).await.expect_error("not_found");
        ana.expect_silence().await;
        assert!(ana.buffered("typing.start").is_empty());
    })
    .await;
}

/// Types of a user's notifications.
async fn notified(host: &Host, user: &str) -> Vec<String> {
    let database = host.database.connect().await;
    let statement = format!("select body from app.notifications where user_id = '{user}' order by id");
    database.rows(&statement).await.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_user_who_looks_is_not_notified_and_focus_names_the_conversation() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let other = host.group("other", &["ana", "bo"]).await;
        ana.enter(&other).await;
        bo.enter(&other).await;
        let say = async |room: &str, text: &str| {
            let path = format!("/api/v1/conversations/{room}/messages");
            host.rest("ana").post(&path, json!({"content": text})).await.expect(201);
        };
        let consumed = async || {
            until("the outbox to be read", async || {
                host.database.outbox_unread().await.is_empty().then_some(())
            })
            .await;
        };
        // Subscribed to both, so the client looks at both.
        say(&room, "seen 1").await;
        say(&other, "seen 2").await;
        consumed().await;
        assert_eq!(notified(host, "bo").await, Vec::<String>::new());
        // After the first focus, only the focus counts.
        bo.write(json!({"type": "focus", "payload": {"conversation_id": room}})).await;
        bo.expect_alive().await;
        say(&room, "seen 3").await;
        say(&other, "unseen 1").await;
        consumed().await;
        assert_eq!(notified(host, "bo").await, ["unseen 1"]);
        bo.write(json!({"type": "focus", "payload": {"conversation_id": null}})).await;
        bo.expect_alive().await;
        say(&room, "unseen 2").await;
        consumed().await;
        assert_eq!(notified(host, "bo").await, ["unseen 1", "unseen 2"]);
        // One device that looks at the conversation is enough.
        let mut phone = host.client("bo").await;
        phone.enter(&room).await;
        say(&room, "seen 4").await;
        consumed().await;
        assert_eq!(notified(host, "bo").await, ["unseen 1", "unseen 2"]);
        bo.request("focus", json!({})).await.expect_invalid("conversation_id");
        let bad: Value = json!({"conversation_id": 7});
        bo.request("focus", bad).await.expect_invalid("conversation_id");
    })
    .await;
}
