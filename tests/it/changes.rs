//! Edits and deletions: permissions, the pushes to everyone, their numbers, and how they reach clients that
//! were away.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::rest::Rest;

async fn send(rest: &Rest, room: &str, body: Value) -> Value {
    let path = format!("/api/v1/conversations/{room}/messages");
    rest.post(&path, body).await.expect(201)["message"].clone()
}

fn path(room: &str, message: &Value) -> String {
    format!("/api/v1/conversations/{room}/messages/{}", message["id"].as_str().expect("an id"))
}

async fn history(rest: &Rest, room: &str) -> Vec<Value> {
    let page = rest.get(&format!("/api/v1/conversations/{room}/messages?limit=100")).await.expect(200);
    page["messages"].as_array().expect("messages").clone()
}

#[tokio::test]
async fn an_edit_reaches_everyone_and_has_a_number() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let sent = ana.send("helo").await.expect_sent();
        bo.expect_message("helo").await;

        let payload =
            json!({"conversation_id": ana.room(), "message_id": sent["id"], "content": "cafe\u{301}"});
        let reply = ana.request("message.edit", payload).await.expect("message.edited");
        assert_eq!((&reply["change"], &reply["message"]["content"]), (&json!(1), &json!("caf\u{e9}")));
        for client in [&mut ana, &mut bo] {
            let push = client.expect("message.edited").await;
            assert_eq!(push, reply);
            let message = &push["message"];
            assert_eq!((&message["id"], &message["seq"]), (&sent["id"], &sent["seq"]));
            assert!(message["edited_at"].is_string() && message["deleted"] == false, "{message}");
        }

        let edited =
            host.rest("ana").put(&path(ana.room(), &sent), json!({"content": "again"})).await.expect(200);
        assert_eq!(
            (&edited["message"]["content"], &edited["message"]["change"]),
            (&json!("again"), &json!(2))
        );
        assert_eq!(bo.expect("message.edited").await["change"], 2);

        // The same text is no change: a retry of an edit is harmless.
        let same =
            host.rest("ana").put(&path(ana.room(), &sent), json!({"content": "again"})).await.expect(200);
        assert_eq!(same["message"]["change"], 2);
        bo.expect_silence().await;
        let kept = &history(&host.rest("bo"), bo.room()).await[1];
        assert_eq!(kept["content"], "again");
    })
    .await;
}

#[tokio::test]
async fn a_deleted_message_keeps_only_its_seq() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let body = json!({
            "content": "secret plans", "metadata": {"k": "secret"}, "mentions": ["bo"],
            "attachments": [{"url": "https://files.test/secret"}],
        });
        let sent = send(&host.rest("ana"), &room, body).await;
        bo.expect_message("secret plans").await;

        let payload = json!({"conversation_id": room, "message_id": sent["id"]});
        let reply = ana.request("message.delete", payload.clone()).await.expect("message.deleted");
        let expected =
            json!({"conversation_id": room, "message_id": sent["id"], "seq": sent["seq"], "change": 1});
        assert_eq!(reply, expected);
        assert_eq!(bo.expect("message.deleted").await, expected);
        assert_eq!(ana.expect("message.deleted").await, expected);

        // Again, by REST and by frame: the same answer, and no new change.
        assert_eq!(ana.request("message.delete", payload.clone()).await.expect("message.deleted"), expected);
        host.rest("ana").delete(&path(&room, &sent)).await.expect(204);
        let edit = host.rest("ana").put(&path(&room, &sent), json!({"content": "x"})).await;
        edit.expect_problem(409, "conflict");
        bo.expect_silence().await;

        let page = history(&host.rest("bo"), &room).await;
        let gone = &page[1];
        assert_eq!(
            (&gone["seq"], &gone["content"], &gone["deleted"]),
            (&sent["seq"], &json!(""), &json!(true))
        );
        assert_eq!(
            (&gone["attachments"], &gone["metadata"], &gone["mentions"]),
            (&json!([]), &Value::Null, &json!([]))
        );
        assert!(!json!(page).to_string().contains("secret"), "{page:?}");
        let frame = ana.request("history", json!({"conversation_id": room})).await.expect("history");
        assert!(!frame.to_string().contains("secret"), "{frame}");
        let listed = host.rest("bo").get("/api/v1/conversations").await.expect(200);
        assert!(!listed.to_string().contains("secret"), "{listed}");
    })
    .await;
}

#[tokio::test]
async fn each_role_changes_only_what_it_may() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy", "oz"]).await;
        let people = format!("/api/v1/conversations/{room}/participants");
        host.rest("ana").post(&people, json!({"user_id": "adam", "role": "admin"})).await.expect(201);
        let olga = send(&host.rest("oz"), &room, json!({"content": "before I only watch"})).await;
        let demote = "update app.participants set role = 'observer' where user_id = 'oz'";
        host.database.run(demote).await;

        let text = json!({"content": "changed"});
        let mine = send(&host.rest("bo"), &room, json!({"content": "bo's"})).await;
        for stranger in ["ana", "adam", "cy", "oz"] {
            host.rest(stranger).put(&path(&room, &mine), text.clone()).await.expect_problem(403, "forbidden");
        }
        for stranger in ["cy", "oz"] {
            host.rest(stranger).delete(&path(&room, &mine)).await.expect_problem(403, "forbidden");
        }
        host.rest("oz").put(&path(&room, &olga), text.clone()).await.expect_problem(403, "forbidden");
        host.rest("oz").delete(&path(&room, &olga)).await.expect_problem(403, "forbidden");
        host.rest("bo").put(&path(&room, &mine), text.clone()).await.expect(200);
        host.rest("adam").delete(&path(&room, &mine)).await.expect(204);
        host.rest("ana").delete(&path(&room, &olga)).await.expect(204);

        // System messages stay.
        let page = history(&host.rest("ana"), &room).await;
        for message in page.iter().filter(|message| message["type"] != "text") {
            host.rest("ana").put(&path(&room, message), text.clone()).await.expect_problem(403, "forbidden");
            host.rest("ana").delete(&path(&room, message)).await.expect_problem(403, "forbidden");
        }
    })
    .await;
}

#[tokio::test]
async fn things_of_others_are_answered_with_not_found() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let other = host.group("other", &["ana"]).await;
        let message = send(&host.rest("ana"), &room, json!({"content": "hi"})).await;
        let text = json!({"content": "x"});
        let nowhere = format!("/api/v1/conversations/{room}/messages/0199aaaa-0000-7000-8000-000000000000");
        for (user, path) in [
            ("eve", path(&room, &message)),
            ("ana", path(&other, &message)),
            ("ana", nowhere.clone()),
            ("ana", format!("/api/v1/conversations/{room}/messages/not-an-id")),
            ("ana", nowhere.replace(&room, "0199aaaa-0000-7000-8000-000000000001")),
        ] {
            host.rest(user).put(&path, text.clone()).await.expect_problem(404, "not_found");
            host.rest(user).delete(&path).await.expect_problem(404, "not_found");
        }
        host.database.run("update app.participants set left_at = now() where user_id = 'ana'").await;
        host.rest("ana").put(&path(&room, &message), text).await.expect_problem(404, "not_found");
        host.rest_with(None).delete(&path(&room, &message)).await.expect_problem(401, "unauthorized");

        let mut eve = host.client("eve").await;
        let payload = json!({"conversation_id": room, "message_id": message["id"], "content": "x"});
        eve.request("message.edit", payload.clone()).await.expect_error("not_found");
        eve.request("message.delete", payload).await.expect_error("not_found");
    })
    .await;
}

#[tokio::test]
async fn an_archived_conversation_does_not_change() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let message = send(&host.rest("ana"), &room, json!({"content": "hi"})).await;
        host.database.run("update app.conversations set archived_at = now()").await;
        host.rest("ana")
            .put(&path(&room, &message), json!({"content": "x"}))
            .await
            .expect_problem(409, "archived");
        host.rest("ana").delete(&path(&room, &message)).await.expect_problem(409, "archived");
        assert_eq!(history(&host.rest("ana"), &room).await[1]["content"], "hi");
    })
    .await;
}

#[tokio::test]
async fn an_edit_follows_the_rules_of_a_message() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let body = json!({"content": "hey @bo", "mentions": ["bo"], "metadata": {"k": 1}});
        let message = send(&host.rest("ana"), &room, body).await;
        let (ana, path) = (host.rest("ana"), path(&room, &message));
        for (bad, field) in [
            (json!({}), "content"),
            (json!({"content": ""}), "content"),
            (json!({"content": null}), "content"),
            (json!({"content": 7}), "content"),
            (json!({"content": ["x"]}), "content"),
            (json!({"content": "nul\u{0}"}), "content"),
            (json!({"content": "ü".repeat(2001)}), "content"),
            (json!({"content": "x", "mentions": "bo"}), "mentions"),
            (json!({"content": "x", "mentions": [""]}), "mentions[0]"),
        ] {
            ana.put(&path, bad).await.expect_invalid(field);
        }
        ana.put(&path, json!([])).await.expect_problem(400, "malformed");
        let mut client = host.client("ana").await;
        for (bad, field) in [
            (json!({"message_id": message["id"], "content": "x"}), "conversation_id"),
            (json!({"conversation_id": room, "content": "x"}), "message_id"),
            (json!({"conversation_id": room, "message_id": 4, "content": "x"}), "message_id"),
            (json!({"conversation_id": room, "message_id": message["id"]}), "content"),
        ] {
            client.request("message.edit", bad).await.expect_invalid(field);
        }
        ana.put(&path, json!({"content": "e\u{301}".repeat(2000)})).await.expect(200);

        // Mentions stay unless the edit has others; the rest of the message always stays.
        let kept = ana.put(&path, json!({"content": "hello"})).await.expect(200);
        assert_eq!(
            (&kept["message"]["mentions"], &kept["message"]["metadata"]),
            (&json!(["bo"]), &json!({"k": 1}))
        );
        let cleared = ana.put(&path, json!({"content": "hello", "mentions": []})).await.expect(200);
        assert_eq!(cleared["message"]["mentions"], json!([]));
        let other = ana.put(&path, json!({"content": "hello", "mentions": ["cy", "cy"]})).await.expect(200);
        assert_eq!(other["message"]["mentions"], json!(["cy"]));
    })
    .await;
}

/// With concurrent changes, the numbers of a conversation's changes have neither gaps nor duplicates, a
/// deleted message stays deleted, and each change keeps the text from before it.
#[tokio::test]
async fn concurrent_changes_are_numbered_without_gaps() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let mut messages = Vec::new();
        for n in 0..4 {
            messages.push(send(&host.rest("ana"), &room, json!({"content": format!("m{n}")})).await);
        }
        let mut races = Vec::new();
        for n in 0..64 {
            let (rest, path) = (host.rest("ana"), path(&room, &messages[n % 4]));
            races.push(tokio::spawn(async move {
                match n / 4 % 8 {
                    7 => rest.delete(&path).await.status,
                    _ => rest.put(&path, json!({"content": format!("edit {n}")})).await.status,
                }
            }));
        }
        let mut accepted = 0;
        for race in races {
            match race.await.expect("no panic") {
                200 => accepted += 1,
                // Deletions, and edits after a deletion.
                204 | 409 => {}
                other => panic!("{other}"),
            }
        }
        // Two users deleted each message; one of them succeeded.
        let changes = host
            .database
            .rows("select change, kind, original_content, message_id::text from app.message_changes order by change")
            .await;
        let numbers: Vec<i64> = changes.iter().map(|row| row.get(0)).collect();
        assert_eq!(numbers, (1..=accepted + 4).collect::<Vec<_>>());
        let deletions: BTreeSet<String> =
            changes.iter().filter(|row| row.get::<_, &str>(1) == "delete").map(|row| row.get(3)).collect();
        assert_eq!(deletions.len(), 4);
        for message in &messages {
            let of_it: Vec<_> = changes.iter().filter(|row| message["id"] == row.get::<_, &str>(3)).collect();
            assert_eq!(message["content"], of_it[0].get::<_, &str>(2), "the first change kept the first text");
            assert_eq!(of_it.last().unwrap().get::<_, &str>(1), "delete", "nothing follows a deletion");
            let texts: BTreeSet<&str> = of_it.iter().map(|row| row.get(2)).collect();
            assert_eq!(texts.len(), of_it.len(), "each text was kept once");
        }
        let events = host.database.rows("select count(*) from switchboard.outbox where event_type in ('message.edited', 'message.deleted')").await;
        assert_eq!(events[0].get::<_, i64>(0), accepted + 4);
    })
    .await;
}

/// A client that was away sends its position; it gets the missed messages, then the changes, then new frames.
#[tokio::test]
async fn a_returning_client_gets_missed_changes() {
    Host::test(Options::default(), async |host| {
        let (mut ana, bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let first = ana.send("first").await.expect_sent();
        let second = ana.send("second").await.expect_sent();
        drop(bo);
        let rest = host.rest("ana");
        rest.put(&path(&room, &first), json!({"content": "first, edited"})).await.expect(200);
        rest.delete(&path(&room, &second)).await.expect(204);
        let third = ana.send("third").await.expect_sent();
        rest.put(&path(&room, &third), json!({"content": "third, edited"})).await.expect(200);

        for after in [0, 1, 2] {
            let mut bo = host.client("bo").await;
            let payload =
                json!({"conversation_ids": [room], "positions": {(room.as_str()): {"seq": 3, "change": after}}});
            let subscribed = bo.request("subscribe", payload).await.expect("subscribed");
            bo.clear_buffered();
            assert_eq!((&subscribed["heads"][&room], &subscribed["changes"][&room]), (&json!(4), &json!(3)));
            // A missed message comes in its present version.
            assert_eq!(bo.next_message_push().await["payload"]["message"]["content"], "third, edited");
            if after < 1 {
                let push = bo.next_message_push().await;
                assert_eq!((&push["type"], &push["payload"]["change"]), (&json!("message.edited"), &json!(1)));
                assert_eq!(push["payload"]["message"]["content"], "first, edited");
            }
            if after < 2 {
                let push = bo.next_message_push().await;
                let expected =
                    json!({"conversation_id": room, "message_id": second["id"], "seq": 3, "change": 2});
                assert_eq!((&push["type"], &push["payload"]), (&json!("message.deleted"), &expected));
            }
            let push = bo.next_message_push().await;
            assert_eq!((&push["type"], &push["payload"]["change"]), (&json!("message.edited"), &json!(3)));
            bo.expect_silence().await;
        }

        // A position that is just a seq has no changes.
        let mut bo = host.client("bo").await;
        let payload = json!({"conversation_ids": [room], "positions": {(room.as_str()): 4}});
        bo.request("subscribe", payload).await.expect("subscribed");
        bo.expect_silence().await;
        rest.put(&path(&room, &first), json!({"content": "first, again"})).await.expect(200);
        assert_eq!(bo.expect("message.edited").await["change"], 4);
    })
    .await;
}

#[tokio::test]
async fn after_more_than_a_thousand_changes_the_client_gets_a_resync() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let message = send(&host.rest("ana"), &room, json!({"content": "hi"})).await;
        let id = message["id"].as_str().expect("an id");
        let many = format!(
            "insert into app.message_changes (id, conversation_id, change, message_id, seq, kind, by_user, at, original_content)
             select app.uuid_at(now()), '{room}', n, '{id}', 2, 'edit', 'ana', now(), 'x' from generate_series(1, 1001) as n"
        );
        host.database.run(&many).await;
        let mut bo = host.client("bo").await;
        let ask = |change: u64| json!({"conversation_ids": [room], "positions": {(room.as_str()): {"seq": 2, "change": change}}});
        bo.request("subscribe", ask(0)).await.expect("subscribed");
        assert_eq!(bo.expect("resync").await["conversation_ids"], json!([room]));
        // With one fewer, the changes come one by one.
        let mut bo = host.client("bo").await;
        bo.request("subscribe", ask(1)).await.expect("subscribed");
        for change in 2..=1001 {
            assert_eq!(bo.expect("message.edited").await["change"], change);
        }
        bo.expect_silence().await;
    })
    .await;
}

/// Edits and deletions count together, by REST and by frame; a request that changes nothing does not count.
#[tokio::test]
async fn a_user_who_changes_too_much_is_rate_limited() {
    let few = Options::default().set("HANDLERS__CHANGE_MESSAGE__CHANGES_PER_MINUTE", 3);
    Host::test(few, async |host| {
        let (mut ana, _bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let rest = host.rest("ana");
        let mut messages = Vec::new();
        for _ in 0..3 {
            messages.push(send(&rest, &room, json!({"content": "x"})).await);
        }
        let [first, second, third] = [0, 1, 2].map(|n| path(&room, &messages[n]));
        for (content, status) in [("", 422), ("x", 200), ("one", 200), ("one", 200)] {
            rest.put(&first, json!({"content": content})).await.expect(status);
        }
        host.rest("eve").put(&first, json!({"content": "not mine"})).await.expect(404);
        let named = json!({"conversation_id": room, "message_id": messages[1]["id"]});
        ana.request("message.delete", named.clone()).await.expect("message.deleted");
        ana.request("message.delete", named.clone()).await.expect("message.deleted");
        rest.put(&third, json!({"content": "three"})).await.expect(200);
        let refused = rest.delete(&third).await;
        let wait = refused.expect_problem(429, "rate_limited")["retry_after_ms"].as_u64().expect("when");
        assert!((1..=60_000).contains(&wait), "{refused}");
        let mut edit = named;
        edit["content"] = json!("y");
        ana.request("message.edit", edit).await.expect_error("rate_limited");
        rest.put(&second, json!({"content": "y"})).await.expect_problem(429, "rate_limited");
    })
    .await;
}
