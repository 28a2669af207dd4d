//! Notifications: each event makes one row for each user, whatever happens to the handler. The push may be
//! repeated while the user has neither read nor deleted the notification.

mod follow;
mod inbox;

use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::proxy::Proxy;
use switchboard_tests::services::{self, Redis};

/// What [`Host::notified`] returns for notifications of these types and bodies.
fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(kind, body)| ((*kind).to_owned(), (*body).to_owned())).collect()
}

/// Sends a message by REST, so that no client needs to look at the conversation.
async fn send_by_rest(host: &Host, user: &str, room: &str, body: Value) {
    host.rest(user).post(&format!("/api/v1/conversations/{room}/messages"), body).await.expect(201);
}

/// Sets for which messages of the conversation the user is notified: `all`, `mentions` or `none`.
async fn set_notifications(host: &Host, user: &str, room: &str, setting: &str) {
    let path = format!("/api/v1/conversations/{room}/participants/{user}");
    host.rest(user).patch(&path, json!({"notifications": setting})).await.expect(200);
}

async fn set_username(host: &Host, user: &str, username: &str) {
    host.rest(user).put("/api/v1/users/me", json!({"username": username})).await.expect(200);
}

fn id_of(push: &Value) -> String {
    push["notification"]["id"].as_str().expect("a notification with an id").to_owned()
}

#[tokio::test]
async fn a_user_who_is_not_looking_is_notified_once() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let path = format!("/api/v1/conversations/{room}/participants");
        host.rest("ana").post(&path, json!({"user_id": "cy"})).await.expect(201);
        // Another device of bo. It is subscribed to no conversation, so it looks at none.
        let _other_device = host.client("bo").await;
        let mut cy = host.client("cy").await;
        let sent = ana.send("are you there?").await.expect_sent();
        let pushed = cy.expect("notification.new").await;
        let notification = &pushed["notification"];
        assert_eq!(notification["type"], "new_message", "{pushed}");
        assert_eq!(notification["level"], "info");
        assert_eq!(notification["user_id"], "cy");
        assert_eq!(
            (&notification["title"], &notification["body"]),
            (&json!("ana"), &json!("are you there?"))
        );
        assert_eq!(
            (&notification["entity_type"], &notification["entity_id"]),
            (&json!("message"), &sent["id"])
        );
        assert_eq!(notification["data"]["conversation_id"], room);
        assert_eq!(notification["read_at"], Value::Null);
        bo.expect_message("added").await;
        bo.expect_message("are you there?").await;
        // Bo looks at the conversation on one device, and Ana is the sender. A join causes no notification.
        assert_eq!(host.notified("cy").await, pairs(&[("new_message", "are you there?")]));
        assert_eq!(host.notified("bo").await, []);
        assert_eq!(host.notified("ana").await, []);

        bo.request("unsubscribe", json!({"conversation_ids": [room]})).await.expect("unsubscribed");
        ana.send("and now?").await.expect_sent();
        bo.expect("notification.new").await;
        assert_eq!(host.notified("bo").await, pairs(&[("new_message", "and now?")]));
    })
    .await;
}

#[tokio::test]
async fn a_mention_replaces_the_message_notification_and_ignores_mutes() {
    Host::test(Options::default(), async |host| {
        let users = ["ana", "bo", "cy", "dee", "eve"];
        let room = host.group("lobby", &users).await;
        set_username(host, "bo", "Bo_the-1st").await;
        set_username(host, "fay", "fay").await;
        set_notifications(host, "cy", &room, "mentions").await;
        set_notifications(host, "dee", &room, "none").await;
        // Eve looks at the conversation, and still gets notifications for her.
        host.client("eve").await.enter(&room).await;
        let mut eve = host.client("eve").await;
        eve.enter(&room).await;

        send_by_rest(host, "ana", &room, json!({"content": "hello all"})).await;
        let all =
            json!({"content": "you all", "mentions": ["ana", "bo", "cy", "dee", "eve", "fay", "nobody"]});
        send_by_rest(host, "ana", &room, all).await;
        send_by_rest(
            host,
            "ana",
            &room,
            json!({"content": "you, @bo_THE-1ST! mail fay@fay.net, @fay, @nobody"}),
        )
        .await;
        send_by_rest(host, "ana", &room, json!({"content": "twice @bo_the-1st", "mentions": ["bo"]})).await;

        let (at_bo, twice) = ("you, @bo_THE-1ST! mail fay@fay.net, @fay, @nobody", "twice @bo_the-1st");
        assert_eq!(
            host.notified("bo").await,
            pairs(&[
                ("new_message", "hello all"),
                ("mention", "you all"),
                ("mention", at_bo),
                ("mention", twice)
            ])
        );
        assert_eq!(host.notified("cy").await, pairs(&[("mention", "you all")]));
        assert_eq!(host.notified("eve").await, pairs(&[("mention", "you all")]));
        for nobody in ["ana", "dee", "fay"] {
            assert_eq!(host.notified(nobody).await, [], "{nobody}");
        }
    })
    .await;
}

#[tokio::test]
async fn in_a_large_conversation_only_mentions_notify() {
    let options = Options::default().set("HANDLERS__NOTIFY__PARTICIPANTS_MAX", 3);
    Host::test(options, async |host| {
        let small = host.group("small", &["ana", "bo", "cy"]).await;
        let large = host.group("large", &["ana", "bo", "cy", "dee"]).await;
        for room in [&small, &large] {
            send_by_rest(host, "ana", room, json!({"content": "hello"})).await;
            send_by_rest(host, "ana", room, json!({"content": "bo", "mentions": ["bo"]})).await;
        }
        assert_eq!(
            host.notified("bo").await,
            pairs(&[("new_message", "hello"), ("mention", "bo"), ("mention", "bo")])
        );
        assert_eq!(host.notified("cy").await, pairs(&[("new_message", "hello"), ("new_message", "bo")]));
        assert_eq!(host.notified("dee").await, []);
    })
    .await;
}

/// Ana and cy send ten messages by turns in these conversations, numbered from `first`. Some mention bo.
/// Returns the number of bo's notifications for them, which is 10.
async fn send_ten(host: &Host, rooms: &[String], first: usize) -> usize {
    let messages = 10;
    for n in first..first + messages {
        let mentions = if n % 3 == 0 { json!(["bo"]) } else { json!([]) };
        let body = json!({"content": format!("message {n}"), "mentions": mentions});
        send_by_rest(host, if n % 2 == 0 { "ana" } else { "cy" }, &rooms[n % rooms.len()], body).await;
    }
    messages
}

/// Waits until every consumer has read the outbox. Then the user must have this number of rows, deleted ones
/// included, and no two for the same entity with the same title.
async fn expect_rows(host: &Host, user: &str, expected: usize) {
    host.outbox_read().await;
    let query = format!(
        "select count(*), count(distinct (entity_id, title)) from app.notifications where user_id = '{user}'"
    );
    let rows = host.database.connect().await.rows(&query).await;
    let counts: (i64, i64) = (rows[0].get(0), rows[0].get(1));
    assert_eq!(counts, (expected as i64, expected as i64), "notifications of {user}");
}

#[tokio::test]
async fn a_repeated_event_makes_no_second_notification() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let mut rooms = Vec::new();
        for name in ["one", "two"] {
            rooms.push(host.group(name, &["ana", "bo", "cy"]).await);
        }
        let of_messages = send_ten(host, &rooms, 0).await;
        host.notice("bo", "from outside").await;
        let to_room = json!({"target": format!("conv:{}", rooms[0]), "type": "lesson.moved", "payload": {},
            "notify": {"type": "progress", "title": "for all"}});
        host.publish(to_room).await.expect(202);
        // Two more: one for bo alone, and one for everyone in the first conversation.
        let rows = of_messages + 2;
        expect_rows(host, "bo", rows).await;
        let before = host.notifications("bo", "").await;
        let read = before["notifications"][0]["id"].as_str().unwrap().to_owned();
        let deleted = before["notifications"][1]["id"].as_str().unwrap().to_owned();
        host.rest("bo").put(&format!("/api/v1/notifications/{read}/read"), json!({})).await.expect(200);
        host.rest("bo").delete(&format!("/api/v1/notifications/{deleted}")).await.expect(204);
        let list = host.notifications("bo", "?limit=100").await;

        for _ in 0..2 {
            host.terminate();
            assert!(host.ended().await.success());
            // Every event since the beginning comes again.
            let rewind = "update switchboard.cursors set high = 0, holes = '[]' where consumer = 'notify'";
            host.database.connect().await.run(rewind).await;
            host.start().await;
            let mut bo = host.client("bo").await;
            expect_rows(host, "bo", rows).await;
            // A read notification stays read, a deleted one stays deleted, and neither is pushed again.
            assert_eq!(host.notifications("bo", "?limit=100").await, list);
            bo.expect_alive().await;
            while let Some(again) = bo.take_buffered("notification.new") {
                assert!(id_of(&again) != read && id_of(&again) != deleted, "pushed again: {again}");
            }
        }
        // One was read and one deleted.
        assert_eq!(list["unread"], rows - 2);
    })
    .await;
}

#[tokio::test]
async fn a_node_killed_between_write_and_ack_makes_no_second_notification() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    // Without a rate limit a sender needs no Redis.
    let options =
        Options::default().set("HANDLERS__SEND_MESSAGE__MESSAGES_PER_MINUTE", 0).redis_at(proxy.address());
    Host::test_over(services::database().await, redis, options, async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        host.outbox_read().await;
        for kill in 0..3 {
            // The bus is frozen: the row is written, and then the handler waits to push.
            proxy.freeze();
            send_by_rest(host, "ana", &room, json!({"content": format!("message {kill}")})).await;
            let written = format!("select from app.notifications where user_id = 'bo' offset {kill}");
            let connection = host.database.connect().await;
            until("the row to be written", async || {
                (!connection.rows(&written).await.is_empty()).then_some(())
            })
            .await;
            let waiting = host.database.outbox_unread().await;
            assert!(waiting.iter().any(|line| line.starts_with("notify")), "acknowledged: {waiting:?}");
            host.kill().await;
            proxy.heal();
            host.start().await;
            expect_rows(host, "bo", kill + 1).await;
            expect_rows(host, "cy", kill + 1).await;
        }
        assert_eq!(host.notifications("bo", "").await["unread"], 3);
    })
    .await;
}

#[tokio::test]
async fn two_nodes_notify_every_device_once() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let mut other = host.another_node().await;
        let rooms =
            [host.group("one", &["ana", "bo", "cy"]).await, host.group("two", &["ana", "bo", "cy"]).await];
        let (mut here, mut there) = (host.client("bo").await, other.client("bo").await);
        let mut expected = send_ten(host, &rooms, 0).await;
        let mut pushed: Vec<Vec<String>> = Vec::new();
        for device in [&mut here, &mut there] {
            let mut ids = Vec::new();
            for _ in 0..expected {
                ids.push(id_of(&device.expect("notification.new").await));
            }
            ids.sort();
            ids.dedup();
            pushed.push(ids);
        }
        assert_eq!(pushed[0].len(), expected);
        assert_eq!(pushed[0], pushed[1]);

        // A read on one device is pushed to the other, from either node.
        let read =
            there.request("notification.read", json!({"id": pushed[0][0]})).await.expect("notification.ok");
        assert_eq!(read["id"], pushed[0][0]);
        let pushed_read = here.expect("notification.read").await;
        assert_eq!(
            (&pushed_read["id"], &pushed_read["unread"]),
            (&json!(pushed[0][0]), &json!(expected - 1))
        );

        // A node dies with its shards during the work.
        drop(there);
        expected += send_ten(host, &rooms, expected).await;
        other.kill().await;
        expected += send_ten(host, &rooms, expected).await;
        expect_rows(host, "bo", expected).await;
        expect_rows(host, "ana", expected / 2).await;
        drop(here);
    })
    .await;
}

#[tokio::test]
async fn an_invitation_to_a_class_notifies_the_invited_user() {
    Host::test(Options::default(), async |host| {
        let mut bo = host.client("bo").await;
        let tess = host.rest("tess");
        let made =
            tess.post("/api/v1/classes", json!({"name": "Computing", "code": "CS101"})).await.expect(201);
        let class = &made["class"];
        let members = format!("/api/v1/classes/{}/members", class["id"].as_str().unwrap());
        tess.post(&members, json!({"user_id": "bo", "role": "student"})).await.expect(201);
        host.rest("cy").post("/api/v1/classes/join", json!({"code": "CS101"})).await.expect(200);
        let push = bo.expect("notification.new").await;
        let notification = &push["notification"];
        assert_eq!(
            (&notification["type"], &notification["title"]),
            (&json!("class_invite"), &json!("Computing"))
        );
        assert_eq!(
            (&notification["entity_type"], &notification["entity_id"]),
            (&json!("class"), &class["id"])
        );
        assert_eq!(
            (&notification["data"]["role"], &notification["data"]["by"]),
            (&json!("student"), &json!("tess"))
        );
        assert_eq!(notification["data"]["conversation_id"], class["conversation_id"]);
        // A member who joined by the code gets none.
        assert_eq!(host.notified("cy").await, []);
        assert_eq!(host.notified("tess").await, []);
    })
    .await;
}

/// The cost of an acknowledgement does not depend on the notified people, nor on the success of notifying.
#[tokio::test]
async fn a_sender_never_waits_for_notifications() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let connection = host.database.connect().await;
        // This transaction blocks writes to the table until it ends.
        connection.run("begin; lock table app.notifications in access exclusive mode").await;
        let mut ana: Client = host.client("ana").await;
        ana.enter(&room).await;
        for n in 0..5 {
            ana.send(&format!("message {n}")).await.expect_sent();
            ana.expect_message(&format!("message {n}")).await;
        }
        connection.run("rollback").await;
        assert_eq!(host.notified("bo").await.len(), 5);
    })
    .await;
}
