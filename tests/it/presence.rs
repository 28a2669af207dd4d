//! Presence: many connections are one person. People who share a conversation see each other, others do not.
//! Announcements are never wrong, whichever server dies or is emptied meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::{until, within};

/// A grace period that is short enough for a test.
fn quick() -> Options {
    Options::default().set("HANDLERS__PRESENCE_SWEEP__GRACE_MS", 300)
}

/// Makes a group in which everybody has written something, so that they see each other.
async fn acquainted(host: &Host, name: &str, members: &[&str]) -> String {
    let room = host.group(name, members).await;
    for user in members {
        writes(host, user, &room).await;
    }
    room
}

async fn writes(host: &Host, user: &str, room: &str) {
    let path = format!("/api/v1/conversations/{room}/messages");
    host.rest(user).post(&path, json!({"content": "here"})).await.expect(201);
}

/// The presence pushes about a person that this client received without asking.
fn unasked(client: &Client, user: &str) -> Vec<Value> {
    client.buffered("presence.update").into_iter().filter(|push| push["user_id"] == user).collect()
}

/// All events of these types about a user so far, in order.
async fn pushed_about(host: &Host, user: &str, types: &str) -> Vec<String> {
    let rows = host.database.connect().await;
    let statement = format!(
        "select event_type from switchboard.outbox \
         where event_type like '{types}' and payload ->> 'user_id' = '{user}' order by position"
    );
    rows.rows(&statement).await.iter().map(|row| row.get(0)).collect()
}

async fn becomes(host: &Host, user: &str, expected: &[&str]) {
    until(format!("{user} to be {expected:?}"), async || {
        (pushed_about(host, user, "user.o%").await == expected).then_some(())
    })
    .await;
}

/// The presence of one person as another person sees it.
async fn seen(host: &Host, viewer: &str, user: &str) -> Value {
    let path = format!("/api/v1/presence?user_ids={user}");
    let answer = host.rest(viewer).get(&path).await.expect(200);
    assert_eq!(answer["presence"].as_array().map(Vec::len), Some(1), "{answer}");
    assert_eq!(answer["presence"][0]["user_id"], *user);
    answer["presence"][0].clone()
}

async fn is_seen(host: &Host, viewer: &str, user: &str, status: &str) {
    until(format!("{viewer} to see {user} {status}"), async || {
        (seen(host, viewer, user).await["status"] == status).then_some(())
    })
    .await;
}

async fn receives(client: &mut Client, user: &str, status: &str) -> Value {
    let meant = |push: &Value| push["user_id"] == user;
    let push = client.expect_where("presence.update", meant).await;
    assert_eq!(push["status"], status, "{push}");
    push
}

#[tokio::test]
async fn a_user_with_many_connections_has_one_presence() {
    Host::test(quick(), async |host| {
        let phone = host.client("bo").await;
        becomes(host, "bo", &["user.online"]).await;
        let mut laptop = host.client("bo").await;
        drop(phone);
        laptop.expect_alive().await;
        // A reloaded page does not make the person offline and online again.
        drop(laptop);
        let again = host.client("bo").await;
        drop(again);
        becomes(host, "bo", &["user.online", "user.offline"]).await;
        let _back = host.client("bo").await;
        becomes(host, "bo", &["user.online", "user.offline", "user.online"]).await;
        let sockets = pushed_about(host, "bo", "socket.%").await;
        assert_eq!(sockets.iter().filter(|expected| *expected == "socket.connect").count(), 4);
        until("every end to be announced", async || {
            let sockets = pushed_about(host, "bo", "socket.disconnect").await;
            (sockets.len() == 3).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn only_users_who_share_a_conversation_see_presence() {
    Host::test(quick(), async |host| {
        let room = acquainted(host, "lobby", &["ana", "bo"]).await;
        let mut ana = host.client("ana").await;
        ana.enter(&room).await;
        // She shares a conversation with both, and has no subscription.
        acquainted(host, "elsewhere", &["cy", "bo"]).await;
        let mut cy = host.client("cy").await;
        let mut eve = host.client("eve").await;
        assert_eq!(
            seen(host, "ana", "bo").await,
            json!({"user_id": "bo", "status": "offline", "last_seen": null})
        );

        let bo = host.client("bo").await;
        let push = receives(&mut ana, "bo", "online").await;
        assert!(push["last_seen"].is_string(), "{push}");
        is_seen(host, "ana", "bo", "online").await;
        is_seen(host, "cy", "bo", "online").await;
        is_seen(host, "bo", "bo", "online").await;
        // For a stranger, a connected user and a user who does not exist look the same.
        for name in ["bo", "nobody"] {
            let hidden = json!({"user_id": name, "status": "offline", "last_seen": null});
            assert_eq!(seen(host, "eve", name).await, hidden);
        }

        drop(bo);
        receives(&mut ana, "bo", "offline").await;
        let gone = seen(host, "ana", "bo").await;
        assert_eq!(gone["status"], "offline");
        assert!(gone["last_seen"].is_string(), "{gone}");
        for client in [&mut cy, &mut eve] {
            client.expect_alive().await;
            assert!(client.buffered("presence.update").is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_is_pushed_once_for_any_number_of_shared_conversations() {
    Host::test(quick(), async |host| {
        let mut ana = host.client("ana").await;
        for n in 0..5 {
            let room = acquainted(host, &format!("room {n}"), &["ana", "bo"]).await;
            ana.enter(&room).await;
        }
        ana.request("presence.watch", json!({"user_ids": ["bo"]})).await.expect("presence.snapshot");
        let mut bo = host.client("bo").await;
        receives(&mut ana, "bo", "online").await;
        bo.request("presence.set", json!({"status": "busy"})).await.expect("presence.ok");
        receives(&mut ana, "bo", "busy").await;
        drop(bo);
        receives(&mut ana, "bo", "offline").await;
        ana.expect_silence().await;
        assert_eq!(unasked(&ana, "bo"), Vec::<Value>::new());
    })
    .await;
}

#[tokio::test]
async fn away_is_detected_and_busy_is_chosen() {
    let options =
        quick().set("HANDLERS__PRESENCE_SWEEP__IDLE_MS", 2_000).set("HANDLERS__PRESENCE__IDLE_MS", 2_000);
    Host::test(options, async |host| {
        let room = acquainted(host, "lobby", &["ana", "bo"]).await;
        let mut ana = host.client("ana").await;
        ana.enter(&room).await;
        let mut bo = host.client("bo").await;
        receives(&mut ana, "bo", "online").await;
        // Pings keep the connection alive, but do not count as activity of the person.
        let pinging = within(Duration::from_secs(20), "bo to be away", async || {
            bo.expect_alive().await;
            (seen(host, "ana", "bo").await["status"] == "away").then_some(())
        });
        pinging.await;
        receives(&mut ana, "bo", "away").await;
        bo.request("history", json!({"conversation_id": room})).await.expect("history");
        receives(&mut ana, "bo", "online").await;

        bo.request("presence.set", json!({"status": "busy"})).await.expect("presence.ok");
        receives(&mut ana, "bo", "busy").await;
        // Busy stays, whatever the person does.
        bo.request("history", json!({"conversation_id": room})).await.expect("history");
        bo.request("presence.set", json!({"status": "online"})).await.expect("presence.ok");
        receives(&mut ana, "bo", "online").await;
        // Away that was set by hand ends with the next action, however soon.
        bo.request("presence.set", json!({"status": "away"})).await.expect("presence.ok");
        receives(&mut ana, "bo", "away").await;
        bo.request("history", json!({"conversation_id": room})).await.expect("history");
        receives(&mut ana, "bo", "online").await;
        // `busy` ends with the last connection.
        bo.request("presence.set", json!({"status": "busy"})).await.expect("presence.ok");
        receives(&mut ana, "bo", "busy").await;
        drop(bo);
        receives(&mut ana, "bo", "offline").await;
        let mut bo = host.client("bo").await;
        receives(&mut ana, "bo", "online").await;
        for (payload, field) in [
            (json!({"status": "offline"}), "status"),
            (json!({"status": 7}), "status"),
            (json!({}), "status"),
        ] {
            bo.request("presence.set", payload).await.expect_invalid(field);
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_lasts_as_long_as_the_permission() {
    Host::test(quick(), async |host| {
        let room = acquainted(host, "lobby", &["cy", "ana", "bo"]).await;
        let mut ana = host.client("ana").await;
        let watch = json!({"user_ids": ["bo", "eve", "nobody"]});
        let snapshot = ana.request("presence.watch", watch).await.expect("presence.snapshot");
        let offline = |user: &str| json!({"user_id": user, "status": "offline", "last_seen": null});
        assert_eq!(snapshot["presence"], json!([offline("bo"), offline("eve"), offline("nobody")]));

        let bo = host.client("bo").await;
        let _eve = host.client("eve").await;
        receives(&mut ana, "bo", "online").await;
        // Watching a stranger shows nothing, until both share a conversation.
        is_seen(host, "eve", "eve", "online").await;
        assert!(unasked(&ana, "eve").is_empty() && unasked(&ana, "bo").is_empty());
        drop(bo);
        receives(&mut ana, "bo", "offline").await;

        // The last list of watches counts.
        let snapshot = ana.request("presence.watch", json!({"user_ids": ["cy"]})).await;
        assert_eq!(snapshot.expect("presence.snapshot")["presence"][0]["user_id"], "cy");
        let _bo = host.client("bo").await;
        is_seen(host, "ana", "bo", "online").await;
        let mut cy = host.client("cy").await;
        receives(&mut ana, "cy", "online").await;
        assert!(unasked(&ana, "bo").is_empty());

        // A person who shares no conversation any more gets no push any more.
        let path = format!("/api/v1/conversations/{room}/participants/ana");
        host.rest("cy").delete(&path).await.expect(204);
        cy.request("presence.set", json!({"status": "busy"})).await.expect("presence.ok");
        is_seen(host, "bo", "cy", "busy").await;
        is_seen(host, "ana", "cy", "offline").await;
        host.outbox_read().await;
        ana.expect_alive().await;
        assert!(unasked(&ana, "cy").is_empty());
        ana.request("presence.watch", json!({"user_ids": []})).await.expect("presence.snapshot");
        for (payload, field) in [
            (json!({}), "user_ids"),
            (json!({"user_ids": "bo"}), "user_ids"),
            (json!({"user_ids": vec!["x"; 501]}), "user_ids"),
            (json!({"user_ids": ["ok", ""]}), "user_ids[1]"),
        ] {
            ana.request("presence.watch", payload).await.expect_invalid(field);
        }
    })
    .await;
}

/// The other person of a direct conversation, as the list shows them.
async fn listed(host: &Host, viewer: &str) -> Value {
    let page = host.rest(viewer).get("/api/v1/conversations").await.expect(200);
    let list = page["conversations"].as_array().expect("a list");
    list.iter().find(|entry| entry["type"] == "direct").expect("a direct conversation")["presence"].clone()
}

#[tokio::test]
async fn a_user_who_was_only_added_is_not_seen() {
    Host::test(quick(), async |host| {
        let body = json!({"type": "direct", "members": ["bo"]});
        let direct = host.rest("ana").post("/api/v1/conversations", body).await.expect(201);
        let direct = direct["conversation"]["id"].as_str().unwrap().to_owned();
        let group = host.group("strangers", &["ana", "bo", "cy"]).await;
        writes(host, "ana", &direct).await;
        writes(host, "ana", &group).await;
        let mut ana = host.client("ana").await;
        for room in [&direct, &group] {
            ana.enter(room).await;
        }
        let watch = json!({"user_ids": ["bo", "cy"]});
        ana.request("presence.watch", watch.clone()).await.expect("presence.snapshot");
        let mut bo = host.client("bo").await;
        bo.enter(&direct).await;
        bo.enter(&group).await;
        let _cy = host.client("cy").await;
        for user in ["ana", "bo", "cy"] {
            is_seen(host, user, user, "online").await;
        }
        // Not on any way: request, list, snapshot, push. Bo, who is not engaged, does not see her either.
        let hidden = |user: &str| json!({"user_id": user, "status": "offline", "last_seen": null});
        for user in ["bo", "cy"] {
            assert_eq!(seen(host, "ana", user).await, hidden(user));
            assert_eq!(seen(host, user, "ana").await, hidden("ana"));
        }
        assert_eq!((listed(host, "ana").await, listed(host, "bo").await), (hidden("bo"), hidden("ana")));
        let snapshot = ana.request("presence.watch", watch).await.expect("presence.snapshot");
        assert_eq!(snapshot["presence"], json!([hidden("bo"), hidden("cy")]));
        let status = async |client: &mut Client, status: &str| {
            client.request("presence.set", json!({"status": status})).await.expect("presence.ok");
        };
        status(&mut bo, "busy").await;
        is_seen(host, "bo", "bo", "busy").await;
        status(&mut ana, "busy").await;
        is_seen(host, "ana", "ana", "busy").await;
        host.outbox_read().await;
        for (client, other) in [(&mut ana, "bo"), (&mut bo, "ana")] {
            client.expect_alive().await;
            assert_eq!(unasked(client, other), Vec::<Value>::new());
        }

        // He answers in the group: there both see each other. Cy still sees nobody, and nobody sees cy.
        writes(host, "bo", &group).await;
        is_seen(host, "ana", "bo", "busy").await;
        is_seen(host, "bo", "ana", "busy").await;
        assert_eq!(listed(host, "ana").await["status"], "busy");
        assert_eq!(
            (seen(host, "cy", "bo").await, seen(host, "ana", "cy").await),
            (hidden("bo"), hidden("cy"))
        );
        let mut cy = host.client("cy").await;
        cy.enter(&group).await;
        // `busy` may still wait to be pushed, and changes in quick succession are pushed as one.
        let away_of =
            |user: &'static str| move |push: &Value| push["user_id"] == user && push["status"] == "away";
        status(&mut bo, "away").await;
        ana.expect_where("presence.update", away_of("bo")).await;
        status(&mut ana, "away").await;
        bo.expect_where("presence.update", away_of("ana")).await;
        cy.expect_silence().await;
        assert!(unasked(&cy, "bo").is_empty() && unasked(&cy, "ana").is_empty());

        // After he left the group they see nothing again, although the direct conversation still exists.
        host.rest("bo").delete(&format!("/api/v1/conversations/{group}")).await.expect(204);
        assert_eq!(seen(host, "ana", "bo").await, hidden("bo"));
        assert_eq!(listed(host, "ana").await, hidden("bo"));
        // When he is added again, he is not engaged.
        let people = format!("/api/v1/conversations/{group}/participants");
        host.rest("ana").post(&people, json!({"user_id": "bo"})).await.expect(201);
        assert_eq!(seen(host, "ana", "bo").await, hidden("bo"));
        writes(host, "bo", &direct).await;
        is_seen(host, "ana", "bo", "away").await;
    })
    .await;
}

#[tokio::test]
async fn only_engaged_users_get_presence() {
    Host::test(quick(), async |host| {
        // A class: one member joined by its code, another wrote, two were only added.
        let class = json!({"name": "Computing", "code": "CS101"});
        let made = host.rest("tess").post("/api/v1/classes", class).await.expect(201)["class"].clone();
        let room = made["conversation_id"].as_str().unwrap().to_owned();
        let members = format!("/api/v1/classes/{}/members", made["id"].as_str().unwrap());
        for student in ["ana", "cy", "dee"] {
            let body = json!({"user_id": student, "role": "student"});
            host.rest("tess").post(&members, body).await.expect(201);
        }
        writes(host, "ana", &room).await;
        host.rest("bo").post("/api/v1/classes/join", json!({"code": "CS101"})).await.expect(200);
        let mut clients = Vec::new();
        for user in ["tess", "ana", "cy", "dee"] {
            let mut client = host.client(user).await;
            client.enter(&room).await;
            clients.push(client);
        }
        let mut bo = host.client("bo").await;
        for client in &mut clients[..2] {
            receives(client, "bo", "online").await;
        }
        bo.request("presence.set", json!({"status": "busy"})).await.expect("presence.ok");
        for client in &mut clients[..2] {
            receives(client, "bo", "busy").await;
        }
        host.outbox_read().await;
        for client in &mut clients[2..] {
            client.expect_silence().await;
            assert_eq!(client.buffered("presence.update"), Vec::<Value>::new());
        }
        is_seen(host, "tess", "bo", "busy").await;
        assert_eq!(seen(host, "cy", "bo").await["status"], "offline");
        // The people who joined a public channel by themselves see a person who joins it.
        let channel = json!({"type": "channel", "name": "square", "members": ["dee"]});
        let channel = host.rest("cy").post("/api/v1/conversations", channel).await.expect(201);
        let join = format!("/api/v1/conversations/{}/join", channel["conversation"]["id"].as_str().unwrap());
        host.rest("bo").post(&join, json!({})).await.expect(200);
        is_seen(host, "cy", "bo", "busy").await;
        is_seen(host, "bo", "cy", "online").await;
        assert_eq!(seen(host, "dee", "bo").await["status"], "offline");
    })
    .await;
}

#[tokio::test]
async fn an_invalid_presence_request_names_its_field() {
    Host::test(Options::default(), async |host| {
        let ana = host.rest("ana");
        let many = |n: usize| (0..n).map(|i| format!("u{i}")).collect::<Vec<_>>().join(",");
        let answer = ana.get(&format!("/api/v1/presence?user_ids={}", many(100))).await.expect(200);
        assert_eq!(answer["presence"].as_array().map(Vec::len), Some(100));
        for query in [
            format!("user_ids={}", many(101)),
            "user_ids=".into(),
            String::new(),
            "user_ids=a%00b".into(),
            format!("user_ids={}", "x".repeat(65)),
        ] {
            let problem = ana.get(&format!("/api/v1/presence?{query}")).await;
            assert_eq!(problem.expect_problem(422, "invalid")["field"], "user_ids", "{query}");
        }
        host.rest_with(None).get("/api/v1/presence?user_ids=a").await.expect_problem(401, "unauthorized");
    })
    .await;
}

#[tokio::test]
async fn the_users_of_a_node_that_died_go_offline() {
    Host::test(quick(), async |host| {
        let room = acquainted(host, "lobby", &["ana", "bo"]).await;
        let mut other = host.another_node().await;
        let mut ana = host.client("ana").await;
        ana.enter(&room).await;
        let _bo = other.client("bo").await;
        receives(&mut ana, "bo", "online").await;
        other.kill().await;
        within(Duration::from_secs(15), "bo to be offline", async || {
            (seen(host, "ana", "bo").await["status"] == "offline").then_some(())
        })
        .await;
        receives(&mut ana, "bo", "offline").await;
        becomes(host, "bo", &["user.online", "user.offline"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_user_who_stays_during_a_loss_of_redis_is_not_announced_as_offline() {
    Host::test(Options::default(), async |host| {
        let room = acquainted(host, "lobby", &["ana", "eve"]).await;
        let mut ana = host.client("ana").await;
        ana.enter(&room).await;
        becomes(host, "ana", &["user.online"]).await;
        host.redis.kill();
        // The last announcement is shown as long as nothing newer is known.
        assert_eq!(seen(host, "eve", "ana").await["status"], "online");
        host.redis.start_again().await;
        until("the host to be well again", async || host.admin.ready().await.then_some(())).await;
        // Her node uploads her at once, although she has sent nothing since.
        is_seen(host, "eve", "ana", "online").await;
        // A user who connects and leaves meanwhile shows that the sweep continues.
        let eve = host.client("eve").await;
        becomes(host, "eve", &["user.online"]).await;
        drop(eve);
        within(Duration::from_secs(40), "eve to be gone", async || {
            let expected = pushed_about(host, "eve", "user.o%").await;
            (expected == ["user.online", "user.offline"]).then_some(())
        })
        .await;
        ana.expect_alive().await;
        assert_eq!(seen(host, "eve", "ana").await["status"], "online");
        assert!(!pushed_about(host, "ana", "user.%").await.contains(&"user.offline".to_owned()));
    })
    .await;
}
