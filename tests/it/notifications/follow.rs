//! Notifications follow edits and deletions of their message, and the read mark of their person.

use super::*;

/// Sends a message by REST. Returns its id.
async fn send(host: &Host, user: &str, room: &str, body: Value) -> String {
    let path = format!("/api/v1/conversations/{room}/messages");
    let answer = host.rest(user).post(&path, body).await.expect(201);
    answer["message"]["id"].as_str().expect("an id").to_owned()
}

fn message(room: &str, id: &str) -> String {
    format!("/api/v1/conversations/{room}/messages/{id}")
}

async fn unread(host: &Host, user: &str) -> Value {
    host.outbox_read().await;
    host.notifications(user, "").await["unread"].clone()
}

/// Checks that REST, GraphQL and Postgres do not show this text.
async fn nobody_reads(host: &Host, user: &str, text: &str) {
    host.outbox_read().await;
    for _ in 0..2 {
        let page = host.notifications(user, "?limit=100").await.to_string();
        assert!(!page.contains(text), "REST shows {text}: {page}");
    }
    let query = json!({"query": "{ notifications(first: 100) { nodes { title body } } }"});
    let answer = host.rest(user).post("/graphql", query).await.expect(200).to_string();
    assert!(!answer.contains(text), "GraphQL shows {text}: {answer}");
    let rows = format!("select from app.notifications where user_id = '{user}' and body like '%{text}%'");
    assert!(host.database.connect().await.rows(&rows).await.is_empty(), "Postgres keeps {text}");
}

#[tokio::test]
async fn a_deleted_message_retracts_its_notifications_on_every_device() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        let (mut phone, mut desk) = (host.client("bo").await, host.client("bo").await);
        let secret = send(host, "ana", &room, json!({"content": "the secret", "mentions": ["cy"]})).await;
        send_by_rest(host, "ana", &room, json!({"content": "something else"})).await;
        let mut id = String::new();
        for device in [&mut phone, &mut desk] {
            id = id_of(&device.expect("notification.new").await);
            device.expect("notification.new").await;
        }
        // From here on the list is cached.
        assert_eq!(unread(host, "bo").await, 2);
        assert_eq!(unread(host, "cy").await, 2);

        host.rest("ana").delete(&message(&room, &secret)).await.expect(204);
        for device in [&mut phone, &mut desk] {
            let gone = device.expect("notification.read").await;
            assert_eq!(gone, json!({"id": id, "deleted": true, "unread": 1}));
        }
        for user in ["bo", "cy"] {
            nobody_reads(host, user, "the secret").await;
            assert_eq!(unread(host, user).await, 1, "{user}");
            assert_eq!(host.notified(user).await, pairs(&[("new_message", "something else")]));
        }
        let path = format!("/api/v1/notifications/{id}/read");
        host.rest("bo").put(&path, json!({})).await.expect_problem(404, "not_found");
        // A second deletion changes nothing, and causes no second push.
        phone.clear_buffered();
        host.rest("ana").delete(&message(&room, &secret)).await.expect(204);
        host.outbox_read().await;
        phone.expect_alive().await;
        assert!(phone.buffered("notification.read").is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_edit_replaces_the_text_of_notifications() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        let mut bo = host.client("bo").await;
        let id = send(host, "ana", &room, json!({"content": "meet at the old place"})).await;
        let before = bo.expect("notification.new").await["notification"].clone();
        assert_eq!(unread(host, "bo").await, 1);
        host.rest("ana").put(&message(&room, &id), json!({"content": "meet at noon"})).await.expect(200);
        let push = bo.expect("notification.updated").await;
        assert_eq!((&push["notification"]["body"], &push["unread"]), (&json!("meet at noon"), &json!(1)));
        for same in ["id", "type", "title", "data", "created_at", "read_at"] {
            assert_eq!(push["notification"][same], before[same], "{same}");
        }
        for user in ["bo", "cy"] {
            nobody_reads(host, user, "old place").await;
            assert_eq!(host.notified(user).await, pairs(&[("new_message", "meet at noon")]));
        }
        // A read one gets the new text too, and stays read.
        let path = format!("/api/v1/notifications/{}/read", before["id"].as_str().unwrap());
        host.rest("bo").put(&path, json!({})).await.expect(200);
        host.rest("ana").put(&message(&room, &id), json!({"content": "meet at one"})).await.expect(200);
        let push = bo.expect("notification.updated").await;
        assert!(push["notification"]["read_at"].is_string(), "{push}");
        assert_eq!(push["unread"], 0);
    })
    .await;
}

#[tokio::test]
async fn a_user_who_leaves_a_conversation_loses_its_notifications() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        let other = host.group("other", &["ana", "bo"]).await;
        let mut bo = host.client("bo").await;
        for text in ["the plan", "the other plan"] {
            send_by_rest(host, "ana", &room, json!({"content": text, "mentions": ["cy"]})).await;
        }
        send_by_rest(host, "ana", &other, json!({"content": "lunch?"})).await;
        assert_eq!(unread(host, "bo").await, 3);
        // Removed by another user, and left by themselves.
        let participants = format!("/api/v1/conversations/{room}/participants");
        host.rest("ana").delete(&format!("{participants}/bo")).await.expect(204);
        host.rest("cy").delete(&format!("/api/v1/conversations/{room}")).await.expect(204);
        let gone = bo.expect("notification.read").await;
        assert_eq!(gone, json!({"conversation_id": room, "deleted": true, "unread": 1}));
        for user in ["bo", "cy"] {
            nobody_reads(host, user, "plan").await;
        }
        assert_eq!(host.notified("bo").await, pairs(&[("new_message", "lunch?")]));
        assert_eq!(host.notified("cy").await, []);
        // After returning, they get new notifications.
        host.rest("ana").post(&participants, json!({"user_id": "bo"})).await.expect(201);
        send_by_rest(host, "ana", &room, json!({"content": "welcome back"})).await;
        assert_eq!(unread(host, "bo").await, 2);
    })
    .await;
}

/// Events may come late, twice, or all at once.
#[tokio::test]
async fn a_repeated_event_restores_no_deleted_text() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        let gone = send(host, "ana", &room, json!({"content": "gone words", "mentions": ["cy"]})).await;
        let edited = send(host, "ana", &room, json!({"content": "first words"})).await;
        host.rest("ana").put(&message(&room, &edited), json!({"content": "second words"})).await.expect(200);
        host.rest("ana").delete(&message(&room, &gone)).await.expect(204);
        host.rest("cy").delete(&format!("/api/v1/conversations/{room}")).await.expect(204);
        host.outbox_read().await;
        for emptied in [false, true] {
            host.terminate();
            assert!(host.ended().await.success());
            let database = host.database.connect().await;
            if emptied {
                // Simulate that no event was handled: the creation comes long after the edit.
                database.run("delete from app.notifications").await;
            }
            database
                .run("update switchboard.cursors set high = 0, holes = '[]' where consumer = 'notify'")
                .await;
            host.start().await;
            for words in ["gone words", "first words"] {
                nobody_reads(host, "bo", words).await;
                nobody_reads(host, "cy", words).await;
            }
            assert_eq!(host.notified("bo").await, pairs(&[("new_message", "second words")]));
            assert_eq!(host.notified("cy").await, []);
        }
    })
    .await;
}

#[tokio::test]
async fn a_deletion_in_a_large_conversation_reaches_everyone() {
    Host::test(Options::default(), async |host| {
        // The conversation has more users than one step changes.
        let room = host.group("hall", &["ana"]).await;
        let fill = format!(
            "insert into app.participants (conversation_id, user_id, role)
             select '{room}', 'user-' || n, 'member' from generate_series(1, 700) as n"
        );
        host.database.connect().await.run(&fill).await;
        let id = send(host, "ana", &room, json!({"content": "to all of you"})).await;
        host.outbox_read().await;
        let count = async |condition: &str| -> i64 {
            let query = format!("select count(*) from app.notifications where {condition}");
            host.database.connect().await.rows(&query).await[0].get(0)
        };
        assert_eq!(count("body = 'to all of you'").await, 700);
        host.rest("ana").delete(&message(&room, &id)).await.expect(204);
        host.outbox_read().await;
        assert_eq!(count("deleted_at is null or body is not null").await, 0);
        assert_eq!(unread(host, "user-7").await, 0);
    })
    .await;
}

#[tokio::test]
async fn reading_a_conversation_marks_its_notifications_as_read() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let other = host.group("other", &["ana", "bo"]).await;
        let (mut phone, mut desk) = (host.client("bo").await, host.client("bo").await);
        let texts = [("one", json!([])), ("two", json!(["bo"])), ("three", json!([]))];
        for (content, mentions) in texts {
            send_by_rest(host, "ana", &room, json!({"content": content, "mentions": mentions})).await;
        }
        send_by_rest(host, "ana", &other, json!({"content": "elsewhere"})).await;
        assert_eq!(unread(host, "bo").await, 4);

        // By frame: up to the mention, which counts too. Seq 1 is the system message of the new group.
        let read = json!({"conversation_id": room, "up_to_seq": 3});
        phone.request("read", read).await.expect("read.ok");
        for device in [&mut phone, &mut desk] {
            let push = device.expect("notification.read").await;
            assert_eq!(
                (&push["conversation_id"], &push["up_to_seq"], &push["unread"]),
                (&json!(room), &json!(3), &json!(2)),
                "{push}"
            );
            assert!(push["read_at"].is_string(), "{push}");
        }
        assert_eq!(unread(host, "bo").await, 2);
        let page = host.notifications("bo", "?unread=true").await;
        let left: Vec<_> = page["notifications"].as_array().unwrap().iter().map(|one| &one["body"]).collect();
        assert_eq!(left, ["elsewhere", "three"]);

        // By REST, and by writing a message.
        let path = format!("/api/v1/conversations/{room}/read");
        host.rest("bo").post(&path, json!({"up_to_seq": 4})).await.expect(200);
        assert_eq!(desk.expect("notification.read").await["unread"], 1);
        send_by_rest(host, "bo", &other, json!({"content": "I am here"})).await;
        let push = desk.expect("notification.read").await;
        assert_eq!((&push["conversation_id"], &push["unread"]), (&json!(other), &json!(0)));
        assert_eq!(unread(host, "bo").await, 0);
        // They are read, not deleted; and the next message is unread again.
        assert_eq!(host.notified("bo").await.len(), 4);
        send_by_rest(host, "ana", &room, json!({"content": "news"})).await;
        assert_eq!(unread(host, "bo").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_mention_that_an_edit_adds_notifies_the_mentioned_user() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy", "dee"]).await;
        set_username(host, "cy", "carla").await;
        set_notifications(host, "dee", &room, "none").await;
        let mut cy = host.client("cy").await;
        cy.enter(&room).await;
        let id = send(host, "ana", &room, json!({"content": "who comes?", "mentions": ["bo"]})).await;
        let edit = async |body: Value| {
            host.rest("ana").put(&message(&room, &id), body).await.expect(200);
        };
        edit(json!({"content": "@carla, who comes?", "mentions": ["ana", "bo", "dee", "stranger"]})).await;
        let push = cy.expect("notification.new").await;
        assert_eq!(
            (&push["notification"]["type"], &push["notification"]["body"]),
            (&json!("mention"), &json!("@carla, who comes?"))
        );
        assert_eq!(push["notification"]["entity_id"], id);
        // A removed mention, a repeated one, and one in another form cause no further notification.
        edit(json!({"content": "who comes?", "mentions": []})).await;
        edit(json!({"content": "who comes, @carla?", "mentions": ["bo", "cy"]})).await;
        let now = "who comes, @carla?";
        assert_eq!(host.notified("cy").await, pairs(&[("mention", now)]));
        assert_eq!(host.notified("bo").await, pairs(&[("mention", now)]));
        for nobody in ["ana", "dee", "stranger"] {
            assert_eq!(host.notified(nobody).await, [], "{nobody}");
        }
        // Their text does not stay behind either when the message is deleted.
        host.rest("ana").delete(&message(&room, &id)).await.expect(204);
        assert_eq!((host.notified("cy").await, host.notified("bo").await), (vec![], vec![]));
    })
    .await;
}
