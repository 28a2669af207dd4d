//! Invalid input. Each input gets a clear refusal over REST and as a frame; none gets a 500, ends the
//! connection, or writes anything.

use hyper::Method;
use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// Bodies that are not a JSON object.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", b"".to_vec()),
        ("cut short", br#"{"content": "x""#.to_vec()),
        ("more than one", br#"{"content":"x"}{"content":"y"}"#.to_vec()),
        ("invalid UTF-8", b"{\"content\":\"\xff\"}".to_vec()),
        ("half a surrogate pair", br#"{"content":"\ud800"}"#.to_vec()),
        ("nested 10,000 deep", [b"{\"content\":".as_slice(), &b"[".repeat(10_000)].concat()),
        ("a list", b"[]".to_vec()),
        ("a number", b"7".to_vec()),
        ("null", b"null".to_vec()),
    ]
}

/// Well-formed objects that break a rule of a message, with the field that breaks it.
fn invalid() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"content": null}), "content"),
        (json!({"content": 7}), "content"),
        (json!({"content": ["x"]}), "content"),
        (json!({"content": {"text": "x"}}), "content"),
        (json!({"content": "\u{0}"}), "content"),
        (json!({"content": "x", "client_msg_id": 7}), "client_msg_id"),
        (json!({"content": "x", "client_msg_id": "k".repeat(10_000)}), "client_msg_id"),
        (json!({"content": "x", "client_msg_id": "a\u{0}b"}), "client_msg_id"),
        (json!({"content": "x", "reply_to_id": "not-an-id"}), "reply_to_id"),
        (json!({"content": "x", "reply_to_id": 7}), "reply_to_id"),
        (json!({"content": "x", "attachments": {}}), "attachments"),
        (json!({"content": "x", "attachments": [7]}), "attachments[0]"),
        (json!({"content": "x", "attachments": [{"name": "no url"}]}), "attachments[0].url"),
        (json!({"content": "x", "attachments": [{"url": "u", "size": -1}]}), "attachments[0].size"),
        (json!({"content": "x", "attachments": vec![json!({"url": "u".repeat(2000)}); 5]}), "attachments"),
        (json!({"content": "x", "metadata": "text"}), "metadata"),
        (json!({"content": "x", "metadata": {"a": "\u{0}"}}), "metadata"),
        (json!({"content": "x", "mentions": "bo"}), "mentions"),
        (json!({"content": "x", "mentions": [7]}), "mentions[0]"),
    ]
}

#[tokio::test]
async fn an_invalid_message_names_its_field_and_is_not_stored() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let path = format!("/api/v1/conversations/{room}/messages");
        let rest = host.rest("ana");
        for (what, body) in malformed() {
            let answer = rest.send(Method::POST, &path, &JSON, body).await;
            assert_eq!(answer.status, 400, "{what}: {answer}");
            answer.expect_problem(400, "malformed");
        }
        for (mut message, field) in invalid() {
            rest.post(&path, message.clone()).await.expect_invalid(field);
            message["conversation_id"] = json!(room);
            ana.request("message.send", message).await.expect_invalid(field);
        }
        for (payload, field) in [
            (json!({"content": "x"}), "conversation_id"),
            (json!({"content": "x", "conversation_id": 7}), "conversation_id"),
            (json!({"content": "x", "conversation_id": null}), "conversation_id"),
        ] {
            ana.request("message.send", payload.clone()).await.expect_invalid(field);
            rest.post("/api/v1/messages", payload).await.expect_invalid(field);
        }
        // A text that cannot be an id names nothing.
        for id in ["not-an-id", "", "\u{0}", "' or 1=1 --", &"x".repeat(1000)] {
            let error = ana.request("message.send", json!({"content": "x", "conversation_id": id})).await;
            let error = error.expect("error");
            assert!(matches!(error["code"].as_str(), Some("not_found" | "invalid")), "{id:?}: {error}");
        }
        // Mistakes in a key are named too.
        let headers = [("content-type", "application/json"), ("idempotency-key", "")];
        rest.send(Method::POST, &path, &headers, r#"{"content":"x"}"#).await.expect_problem(422, "invalid");

        bo.expect_silence().await;
        assert_eq!(ledger::history(&rest, &room).await.len(), 1);
        ana.send("and now a good one").await.expect_sent();
        bo.expect_message("and now a good one").await;
    })
    .await;
}

#[tokio::test]
async fn frames_of_every_type_survive_nonsense() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        for (frame_type, payload) in [
            ("subscribe", json!({})),
            ("subscribe", json!({"conversation_ids": "x"})),
            ("subscribe", json!({"conversation_ids": [7]})),
            ("subscribe", json!({"conversation_ids": [room], "positions": []})),
            ("subscribe", json!({"conversation_ids": [room], "positions": {(room.as_str()): -1}})),
            ("subscribe", json!({"conversation_ids": [room], "positions": {(room.as_str()): "one"}})),
            ("subscribe", json!({"conversation_ids": [room], "positions": {(room.as_str()): 1e300}})),
            ("unsubscribe", json!({"conversation_ids": {}})),
            ("history", json!({})),
            ("history", json!({"conversation_id": room, "limit": 0})),
            ("history", json!({"conversation_id": room, "limit": 101})),
            ("history", json!({"conversation_id": room, "before_seq": "x"})),
            ("history", json!({"conversation_id": room, "after_seq": -1})),
            ("auth.refresh", json!({})),
            ("auth.refresh", json!({"token": 7})),
        ] {
            let reply = ana.request(frame_type, payload.clone()).await;
            let error = reply.expect("error");
            assert!(
                matches!(error["code"].as_str(), Some("invalid" | "malformed" | "unauthorized")),
                "{frame_type} {payload}: {error}"
            );
        }
        // A client with a position beyond the head gets later messages.
        let ahead = json!({"conversation_ids": [room], "positions": {(room.as_str()): 1_000_000}});
        bo.request("subscribe", ahead).await.expect("subscribed");
        ana.send("still here").await.expect_sent();
        ana.expect_message("still here").await;
    })
    .await;
}

#[tokio::test]
async fn requests_that_create_survive_nonsense() {
    Host::test(Options::default(), async |host| {
        let ana = host.rest("ana");
        for (what, body) in malformed() {
            let answer = ana.send(Method::POST, "/api/v1/conversations", &JSON, body).await;
            assert_eq!(answer.status, 400, "{what}: {answer}");
            answer.expect_problem(400, "malformed");
        }
        for (body, field) in [
            (json!({"type": 7, "name": "x", "members": []}), "type"),
            (json!({"type": "group", "name": ["x"], "members": []}), "name"),
            (json!({"type": "group", "name": "a\u{0}b", "members": []}), "name"),
            (json!({"type": "group", "name": "x", "members": "bo"}), "members"),
            (json!({"type": "group", "name": "x", "members": {"bo": true}}), "members"),
            (json!({"type": "group", "name": "x", "members": [], "capacity": -1}), "capacity"),
            (json!({"type": "group", "name": "x", "members": [], "capacity": 1.5}), "capacity"),
            (json!({"type": "group", "name": "x", "members": [], "capacity": 1e99}), "capacity"),
            (json!({"type": "group", "name": "x", "members": [], "description": 7}), "description"),
        ] {
            ana.post("/api/v1/conversations", body).await.expect_invalid(field);
        }
        let list = ana.get("/api/v1/conversations").await.expect(200);
        assert_eq!(list["conversations"], json!([]));
        for query in ["limit=0", "limit=101", "limit=x", "cursor=nonsense", "cursor=%00"] {
            let field = query.split('=').next().unwrap_or_default();
            ana.get(&format!("/api/v1/conversations?{query}")).await.expect_invalid(field);
        }
        // Invalid escapes.
        let answer = ana.get("/api/v1/conversations/%ff%fe").await;
        assert!(matches!(answer.status, 400 | 404), "{answer}");
    })
    .await;
}
