//! Making conversations, listing and joining them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;

const CONVERSATIONS: &str = "/api/v1/conversations";

fn users(participants: &Value) -> BTreeSet<(&str, &str)> {
    let list = participants["participants"].as_array().expect("a list of participants");
    list.iter().map(|p| (p["user_id"].as_str().unwrap(), p["role"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn two_users_have_one_direct_conversation() {
    Host::test(Options::default(), async |host| {
        let with_bo = json!({"type": "direct", "members": ["bo"]});
        let first = host.rest("ana").post(CONVERSATIONS, with_bo.clone()).await.expect(201);
        let again = host.rest("ana").post(CONVERSATIONS, with_bo).await.expect(200);
        // The caller among the members is ignored, and the other user finds the same conversation.
        let with_ana = json!({"type": "direct", "members": ["ana", "bo"]});
        let other = host.rest("bo").post(CONVERSATIONS, with_ana).await.expect(200);
        assert_eq!(first["conversation"]["id"], again["conversation"]["id"]);
        assert_eq!(first["conversation"]["id"], other["conversation"]["id"]);
        for members in [json!(["ana"]), json!([]), json!(["bo", "cy"])] {
            let body = json!({"type": "direct", "members": members});
            host.rest("ana").post(CONVERSATIONS, body).await.expect_invalid("members");
        }
    })
    .await;
}

#[tokio::test]
async fn two_users_who_create_a_direct_conversation_at_once_get_one() {
    Host::test(Options::default(), async |host| {
        let asks = (0..8).map(|n| {
            let (me, other) = if n % 2 == 0 { ("ana", "bo") } else { ("bo", "ana") };
            let rest = host.rest(me);
            tokio::spawn(async move {
                rest.post(CONVERSATIONS, json!({"type": "direct", "members": [other]})).await
            })
        });
        let mut ids = BTreeSet::new();
        let mut created = 0;
        for ask in asks.collect::<Vec<_>>() {
            let answer = ask.await.unwrap();
            assert!(matches!(answer.status, 200 | 201), "{answer}");
            created += usize::from(answer.status == 201);
            ids.insert(answer.json()["conversation"]["id"].to_string());
        }
        assert_eq!((created, ids.len()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_group_begins_with_its_members_and_a_system_message() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        let participants =
            host.rest("bo").get(&format!("{CONVERSATIONS}/{room}/participants")).await.expect(200);
        assert_eq!(users(&participants), [("ana", "owner"), ("bo", "member"), ("cy", "member")].into());
        let history = host.rest("cy").get(&format!("{CONVERSATIONS}/{room}/messages")).await.expect(200);
        let first = &history["messages"][0];
        assert_eq!(
            (&first["seq"], &first["type"], &first["content"]),
            (&json!(1), &json!("system"), &json!("Group created"))
        );
        let detail = host.rest("ana").get(&format!("{CONVERSATIONS}/{room}")).await.expect(200);
        assert_eq!(detail["conversation"]["name"], "lobby");
        host.rest("eve").get(&format!("{CONVERSATIONS}/{room}")).await.expect_problem(404, "not_found");
    })
    .await;
}

#[tokio::test]
async fn a_conversation_that_violates_a_rule_is_refused() {
    Host::test(Options::default(), async |host| {
        for good in [
            json!({"type": "group", "name": "n".repeat(100), "members": []}),
            json!({"type": "channel", "name": "news", "visibility": "public", "slug": "daily-news", "members": []}),
            json!({"type": "group", "name": "small", "members": ["bo"], "capacity": 2}),
        ] {
            host.rest("ana").post(CONVERSATIONS, good).await.expect(201);
        }
        for (bad, field) in [
            (json!({"name": "x", "members": []}), "type"),
            (json!({"type": "party", "name": "x", "members": []}), "type"),
            (json!({"type": "class", "name": "x", "members": []}), "type"),
            (json!({"type": "group", "members": []}), "name"),
            (json!({"type": "group", "name": "", "members": []}), "name"),
            (json!({"type": "group", "name": "n".repeat(101), "members": []}), "name"),
            (json!({"type": "group", "name": "a\nb", "members": []}), "name"),
            (json!({"type": "group", "name": "x", "members": ["u".repeat(65)]}), "members[0]"),
            (json!({"type": "group", "name": "x", "members": [7]}), "members[0]"),
            (json!({"type": "group", "name": "x", "members": [], "slug": "No Slug"}), "slug"),
            (json!({"type": "group", "name": "x", "members": [], "capacity": 0}), "capacity"),
            (json!({"type": "group", "name": "x", "members": [], "settings": []}), "settings"),
        ] {
            host.rest("ana").post(CONVERSATIONS, bad).await.expect_invalid(field);
        }
        let taken = json!({"type": "group", "name": "x", "members": [], "slug": "daily-news"});
        host.rest("bo").post(CONVERSATIONS, taken).await.expect_problem(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn the_list_shows_the_newest_first_with_unread_counts() {
    Host::test(Options::default(), async |host| {
        let quiet = host.group("quiet", &["ana", "bo"]).await;
        let busy = host.group("busy", &["ana", "bo"]).await;
        let long = "x".repeat(150);
        for content in ["one", &long] {
            let path = format!("{CONVERSATIONS}/{busy}/messages");
            host.rest("ana").post(&path, json!({"content": content})).await.expect(201);
        }
        // The list is a projection and may be one second behind.
        let list = until("the list to show the message", async || {
            let list = host.rest("bo").get(CONVERSATIONS).await.expect(200);
            (list["conversations"][0]["unread"] == 2).then_some(list)
        })
        .await;
        assert_eq!(list["conversations"][0]["id"], *busy);
        assert_eq!(list["conversations"][1]["id"], *quiet);
        assert_eq!(list["conversations"][0]["last_message"]["content"], "x".repeat(100));
        assert_eq!(list["next_cursor"], Value::Null);
        until("the sender to have read their own", async || {
            let list = host.rest("ana").get(CONVERSATIONS).await.expect(200);
            (list["conversations"][0]["unread"] == 0).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_public_channel_is_joined_until_it_is_full() {
    Host::test(Options::default(), async |host| {
        let body =
            json!({"type": "channel", "name": "news", "visibility": "public", "members": [], "capacity": 2});
        let made = host.rest("ana").post(CONVERSATIONS, body).await.expect(201);
        let room = made["conversation"]["id"].as_str().unwrap().to_owned();
        let join = format!("{CONVERSATIONS}/{room}/join");
        let joined = host.rest("bo").post(&join, json!({})).await.expect(200);
        assert_eq!(joined["conversation"]["id"], *room);
        host.rest("cy").post(&join, json!({})).await.expect_problem(409, "conversation_full");
        // A group can be joined by invitation only; for others it does not exist.
        let group = host.group("lobby", &["ana"]).await;
        host.rest("bo")
            .post(&format!("{CONVERSATIONS}/{group}/join"), json!({}))
            .await
            .expect_problem(404, "not_found");
    })
    .await;
}
