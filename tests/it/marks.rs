//! Read and delivered marks: they rise and never fall, every participant gets a push, and the log states when
//! each person had a message.

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::rest::Rest;

async fn say(host: &Host, user: &str, room: &str, texts: u64) {
    for n in 1..=texts {
        let path = format!("/api/v1/conversations/{room}/messages");
        host.rest(user).post(&path, json!({"content": format!("{user} {n}")})).await.expect(201);
    }
}

async fn read(rest: &Rest, room: &str, up_to: u64) -> (u64, u64) {
    let answer = rest.post(&format!("/api/v1/conversations/{room}/read"), json!({"up_to_seq": up_to})).await;
    let answer = answer.expect(200);
    (answer["last_read_seq"].as_u64().expect("a mark"), answer["unread"].as_u64().expect("a count"))
}

async fn receipts(rest: &Rest, room: &str, seq: u64) -> Vec<Value> {
    let answer = rest.get(&format!("/api/v1/conversations/{room}/receipts?seq={seq}")).await.expect(200);
    answer["receipts"].as_array().expect("receipts").clone()
}

/// The log entry of one user: delivered or not, read or not.
fn of(receipts: &[Value], user: &str) -> (bool, bool) {
    let receipt = receipts.iter().find(|receipt| receipt["user_id"] == user);
    let receipt = receipt.unwrap_or_else(|| panic!("nothing of {user}: {receipts:?}"));
    (receipt["delivered_at"].is_string(), receipt["read_at"].is_string())
}

#[tokio::test]
async fn a_mark_increases_up_to_the_head_and_never_decreases() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        // The first message is a system message, so these are 2 to 6.
        say(host, "ana", &room, 5).await;
        let bo = host.rest("bo");
        assert_eq!(read(&bo, &room, 3).await, (3, 3));
        assert_eq!(read(&bo, &room, 2).await, (3, 3));
        assert_eq!(read(&bo, &room, 0).await, (3, 3));
        assert_eq!(read(&bo, &room, i64::MAX as u64).await, (6, 0));
        assert_eq!(read(&bo, &room, 1).await, (6, 0));
        // Sending advances the sender's own mark.
        assert_eq!(read(&host.rest("ana"), &room, 0).await, (6, 0));
        say(host, "bo", &room, 1).await;
        say(host, "ana", &room, 2).await;
        assert_eq!(read(&bo, &room, 0).await, (7, 2));

        let log = host.database.rows("select kind, from_seq, up_to_seq from app.marks where user_id = 'bo' order by up_to_seq, kind").await;
        let log: Vec<(String, i64, i64)> = log.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let row = |kind: &str, from, to| (kind.to_owned(), from, to);
        assert_eq!(log, [row("delivered", 1, 3), row("read", 1, 3), row("delivered", 3, 6), row("read", 3, 6)]);
    })
    .await;
}

#[tokio::test]
async fn every_participant_gets_the_read_marks_of_others() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        // Another device of the reader, which looks at no conversation.
        let mut tablet = host.client("bo").await;
        let sent = ana.send("hi").await.expect_sent();
        bo.expect_message("hi").await;

        bo.write(json!({"type": "delivered", "payload": {"positions": {(room.as_str()): sent["seq"]}}}))
            .await;
        for client in [&mut ana, &mut bo, &mut tablet] {
            let push = client.expect("receipt.delivered").await;
            assert_eq!((&push["conversation_id"], &push["user_id"]), (&json!(room), &json!("bo")));
            assert_eq!(push["up_to_seq"], sent["seq"]);
            assert!(push["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{push}");
        }
        let payload = json!({"conversation_id": room, "up_to_seq": sent["seq"]});
        let reply = bo.request("read", payload.clone()).await.expect("read.ok");
        assert_eq!((&reply["last_read_seq"], &reply["unread"]), (&sent["seq"], &json!(0)));
        for client in [&mut ana, &mut bo, &mut tablet] {
            let push = client.expect("receipt.read").await;
            assert_eq!((&push["user_id"], &push["up_to_seq"]), (&json!("bo"), &sent["seq"]));
        }
        // An unchanged mark causes no push: the next push is for the next message.
        bo.request("chat:read", payload).await.expect("read.ok");
        let next = ana.send("more").await.expect_sent();
        let all = json!({"conversation_id": room, "up_to_seq": 99});
        bo.request("read", all).await.expect("read.ok");
        // A message that is read is also delivered.
        assert_eq!(ana.expect("receipt.delivered").await["up_to_seq"], next["seq"]);
        assert_eq!(ana.expect("receipt.read").await["up_to_seq"], next["seq"]);
    })
    .await;
}

#[tokio::test]
async fn delivered_has_no_reply_and_skips_conversations_of_others() {
    Host::test(Options::default(), async |host| {
        let mine = host.group("mine", &["bo", "ana"]).await;
        let theirs = host.group("theirs", &["ana"]).await;
        say(host, "ana", &mine, 1).await;
        let mut bo = host.client("bo").await;
        let positions = json!({(mine.as_str()): {"seq": 2, "change": 0}, (theirs.as_str()): 1, "no-id": 1});
        bo.write(json!({"type": "delivered", "id": 1, "payload": {"positions": positions}})).await;
        // The reply to the next frame is the next frame with an id.
        bo.expect_alive().await;
        switchboard_tests::patience::until("the mark", async || {
            (of(&receipts(&host.rest("ana"), &mine, 2).await, "bo") == (true, false)).then_some(())
        })
        .await;
        assert!(
            host.database
                .rows("select from app.marks where user_id = 'bo' and up_to_seq <> 2")
                .await
                .is_empty()
        );

        for bad in [json!({}), json!({"positions": 7}), json!({"positions": []})] {
            bo.request("delivered", bad).await.expect_invalid("positions");
        }
        let field = format!("positions.{mine}");
        for bad in [json!(-1), json!("2"), json!(1.5), json!(null), json!({"change": 1})] {
            bo.request("delivered", json!({"positions": {(mine.as_str()): bad}}))
                .await
                .expect_invalid(&field);
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_who_cannot_mark_gets_an_error() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let path = format!("/api/v1/conversations/{room}/read");
        let mark = json!({"up_to_seq": 1});
        host.rest("eve").post(&path, mark.clone()).await.expect_problem(404, "not_found");
        host.rest_with(None).post(&path, mark.clone()).await.expect_problem(401, "unauthorized");
        let nowhere = "/api/v1/conversations/0199aaaa-0000-7000-8000-000000000000/read";
        host.rest("ana").post(nowhere, mark.clone()).await.expect_problem(404, "not_found");
        for bad in [
            json!({}),
            json!({"up_to_seq": -1}),
            json!({"up_to_seq": "1"}),
            json!({"up_to_seq": 1.5}),
            json!({"up_to_seq": 1e30}),
        ] {
            host.rest("ana").post(&path, bad).await.expect_invalid("up_to_seq");
        }
        let receipts = format!("/api/v1/conversations/{room}/receipts");
        host.rest("eve").get(&format!("{receipts}?seq=1")).await.expect_problem(404, "not_found");
        host.rest("ana").get(&format!("{receipts}?seq=2")).await.expect_problem(404, "not_found");
        for (query, field) in [
            ("", "seq"),
            ("?seq=x", "seq"),
            ("?seq=-1", "seq"),
            ("?seq=1&limit=0", "limit"),
            ("?seq=1&limit=1001", "limit"),
            ("?seq=1&cursor=", "cursor"),
        ] {
            host.rest("ana").get(&format!("{receipts}{query}")).await.expect_invalid(field);
        }
        // Observers can mark, and so can everyone in an archived conversation, because reading changes
        // nothing in it.
        host.database.run("update app.participants set role = 'observer' where user_id = 'bo'").await;
        host.database.run("update app.conversations set archived_at = now()").await;
        host.rest("bo").post(&path, mark.clone()).await.expect(200);
        host.database.run("update app.participants set left_at = now() where user_id = 'bo'").await;
        host.rest("bo").post(&path, mark).await.expect_problem(404, "not_found");
        let mut bo = host.client("bo").await;
        let payload = json!({"conversation_id": room, "up_to_seq": 1});
        bo.request("read", payload).await.expect_error("not_found");
    })
    .await;
}

#[tokio::test]
async fn the_log_of_marks_records_each_increase() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy", "di"]).await;
        say(host, "ana", &room, 3).await; // 2, 3, 4
        read(&host.rest("bo"), &room, 3).await;
        say(host, "cy", &room, 1).await; // 5
        let ana = host.rest("ana");
        let first = receipts(&ana, &room, 2).await;
        // The receipts do not include the sender.
        assert_eq!(first.len(), 3, "{first:?}");
        assert_eq!(
            (of(&first, "bo"), of(&first, "cy"), of(&first, "di")),
            ((true, true), (true, true), (false, false))
        );
        let fourth = receipts(&ana, &room, 4).await;
        assert_eq!((of(&fourth, "bo"), of(&fourth, "cy")), ((false, false), (true, true)));
        // A later mark does not change earlier entries of the log.
        let before = of_exactly(&first, "bo");
        read(&host.rest("bo"), &room, 5).await;
        assert_eq!(of_exactly(&receipts(&ana, &room, 2).await, "bo"), before);
        assert_ne!(of_exactly(&receipts(&ana, &room, 4).await, "bo"), before);

        // The receipts come in pages.
        let path = format!("/api/v1/conversations/{room}/receipts?seq=2&limit=2");
        let page = ana.get(&path).await.expect(200);
        let next = page["next_cursor"].as_str().expect("a next page");
        let rest = ana.get(&format!("{path}&cursor={next}")).await.expect(200);
        assert_eq!(
            (rest["receipts"].as_array().map(Vec::len), &rest["next_cursor"]),
            (Some(1), &Value::Null)
        );
    })
    .await;
}

fn of_exactly(receipts: &[Value], user: &str) -> Value {
    receipts.iter().find(|receipt| receipt["user_id"] == user).cloned().unwrap_or_default()
}

/// Messages between a person's leaving and returning were neither delivered nor read.
#[tokio::test]
async fn skipped_messages_do_not_count_as_read() {
    Host::test(Options::default(), async |host| {
        let body = json!({"type": "channel", "name": "news", "visibility": "public", "members": ["bo"]});
        let made = host.rest("ana").post("/api/v1/conversations", body).await.expect(201);
        let room = made["conversation"]["id"].as_str().expect("an id").to_owned();
        say(host, "ana", &room, 1).await;
        let seen = host.database.rows("select max(seq) from app.messages").await[0].get::<_, i64>(0) as u64;
        read(&host.rest("bo"), &room, seen).await;
        host.database.run("update app.participants set left_at = now() where user_id = 'bo'").await;
        say(host, "ana", &room, 1).await;
        host.rest("bo").post(&format!("/api/v1/conversations/{room}/join"), json!({})).await.expect(200);
        say(host, "ana", &room, 1).await;
        say(host, "bo", &room, 1).await;
        read(&host.rest("bo"), &room, 99).await;

        let ana = host.rest("ana");
        assert_eq!(of(&receipts(&ana, &room, seen).await, "bo"), (true, true));
        assert_eq!(of(&receipts(&ana, &room, seen + 1).await, "bo"), (false, false));
        // The join message, and the messages after it.
        assert_eq!(of(&receipts(&ana, &room, seen + 3).await, "bo"), (true, true));
    })
    .await;
}

/// Concurrent marks of one reader from many devices: the log has one rise after the other, without overlap.
#[tokio::test]
async fn concurrent_marks_end_at_the_highest() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        say(host, "ana", &room, 40).await;
        let races = (0..64).map(|n| {
            let (rest, room) = (host.rest("bo"), room.clone());
            tokio::spawn(async move { read(&rest, &room, 1 + (n * 7) % 41).await })
        });
        for race in races.collect::<Vec<_>>() {
            race.await.expect("no panic");
        }
        assert_eq!(read(&host.rest("bo"), &room, 0).await, (41, 0));
        let log = host
            .database
            .rows("select from_seq, up_to_seq from app.marks where kind = 'read' order by up_to_seq")
            .await;
        let mut stand = 1;
        for row in &log {
            assert_eq!(row.get::<_, i64>(0), stand);
            stand = row.get(1);
        }
        assert_eq!(stand, 41);
        let events = host
            .database
            .rows("select count(*) from switchboard.outbox where event_type = 'receipt.read'")
            .await;
        assert_eq!(events[0].get::<_, i64>(0), log.len() as i64);
    })
    .await;
}
