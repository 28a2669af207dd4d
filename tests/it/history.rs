//! Pages of history by seq, in both directions, by REST and by frame.

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::rest::Rest;
use switchboard_tests::token::Token;

fn seqs(page: &Value) -> Vec<u64> {
    let messages = page["messages"].as_array().expect("a list of messages");
    messages.iter().map(|message| message["seq"].as_u64().expect("a seq")).collect()
}

#[tokio::test]
async fn history_pages_in_both_directions() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let (ana, path) = (host.rest("ana"), format!("/api/v1/conversations/{room}/messages"));
        // The first message is a system message: "Group created".
        for n in 2..=120 {
            ana.post(&path, json!({"content": format!("m{n}")})).await.expect(201);
        }
        for (query, from, to, more) in [
            ("", 71, 120, true),
            ("?limit=100", 21, 120, true),
            ("?before_seq=21&limit=100", 1, 20, false),
            ("?before_seq=3", 1, 2, false),
            ("?after_seq=0&limit=2", 1, 2, true),
            ("?after_seq=118", 119, 120, false),
            ("?after_seq=10&limit=1", 11, 11, true),
        ] {
            let page = host.rest("bo").get(&format!("{path}{query}")).await.expect(200);
            assert_eq!(seqs(&page), (from..=to).collect::<Vec<_>>(), "{query}");
            assert_eq!(page["has_more"], more, "{query}");
        }
        let none = ana.get(&format!("{path}?after_seq=120")).await.expect(200);
        assert_eq!((seqs(&none), &none["has_more"]), (vec![], &json!(false)));
        let texts = ana.get(&format!("{path}?after_seq=0&limit=3&type=text")).await.expect(200);
        assert_eq!(seqs(&texts), [2, 3, 4]);

        let mut bo = host.client("bo").await;
        let payload = json!({"conversation_id": room, "after_seq": 100, "limit": 5});
        let page = bo.request("history", payload).await.expect("history");
        assert_eq!(seqs(&page), (101..=105).collect::<Vec<_>>());
        assert_eq!(page["has_more"], true);
    })
    .await;
}

/// Pages come from the cache, and are never older than the last change.
#[tokio::test]
async fn a_cached_page_is_never_outdated() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let ana = host.rest("ana");
        let mut ids = Vec::new();
        for n in 0..5 {
            let sent = ana.post(&path, json!({"content": format!("m{n}")})).await.expect(201);
            ids.push(sent["message"]["id"].as_str().expect("an id").to_owned());
        }
        let queries = ["", "?before_seq=5", "?after_seq=1&limit=3", "?type=text"];
        let mut client = host.client("bo").await;
        let address = host.address;
        let mut pages = async |user: &str| {
            let rest = Rest::new(address, Token::of(user).sign());
            let mut texts = String::new();
            for query in queries {
                texts += &rest.get(&format!("{path}{query}")).await.expect(200).to_string();
            }
            texts
                + &client
                    .request("history", json!({"conversation_id": room}))
                    .await
                    .expect("history")
                    .to_string()
        };
        assert!(pages("ana").await.contains("m1"));
        // A page that no handler could make shows that the cache is read.
        host.database
            .run(&format!("update app.messages set content = 'unnoticed' where id = '{}'", ids[1]))
            .await;
        assert!(!pages("bo").await.contains("unnoticed"));

        ana.put(&format!("{path}/{}", ids[2]), json!({"content": "edited"})).await.expect(200);
        let now = pages("ana").await;
        assert!(
            now.matches("edited\"").count() >= 5 && !now.contains("\"m2\"") && now.contains("unnoticed"),
            "{now}"
        );
        ana.delete(&format!("{path}/{}", ids[2])).await.expect(204);
        let now = pages("bo").await;
        assert!(!now.contains("\"edited\"") && now.matches("\"deleted\":true").count() == 5, "{now}");
        ana.post(&path, json!({"content": "newest"})).await.expect(201);
        assert!(pages("ana").await.contains("newest"));

        // A user who has left sees nothing, cached or not; and without Redis the pages are the same.
        let before = pages("ana").await;
        host.redis.kill();
        assert_eq!(pages("ana").await, before);
        host.redis.start_again().await;
        host.database.run("update app.participants set left_at = now() where user_id = 'bo'").await;
        host.rest("bo").get(&path).await.expect_problem(404, "not_found");
        client.request("history", json!({"conversation_id": room})).await.expect_error("not_found");
    })
    .await;
}

#[tokio::test]
async fn senders_have_their_present_names() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        host.rest("ana").post(&path, json!({"content": "hi"})).await.expect(201);
        host.database.run("insert into app.users (id, display_name, username) values ('ana', 'Ana \"A\" Đặng', 'ana_d') on conflict (id) do update set display_name = excluded.display_name, username = excluded.username").await;
        let page = host.rest("bo").get(&path).await.expect(200);
        let sender = json!({"user_id": "ana", "name": "Ana \"A\" Đặng", "username": "ana_d", "avatar_url": null});
        assert_eq!(page["messages"][1]["sender"], sender);
        // Joins and leaves have their types.
        host.rest("ana").post(&format!("/api/v1/conversations/{room}/participants"), json!({"user_id": "cy"})).await.expect(201);
        let joins = host.rest("bo").get(&format!("{path}?type=join")).await.expect(200);
        assert_eq!((seqs(&joins), &joins["messages"][0]["sender_id"]), (vec![3], &json!("ana")));
        assert_eq!(joins["has_more"], false);
    })
    .await;
}

#[tokio::test]
async fn an_invalid_request_names_its_field() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=ten", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("before_seq=-1", "before_seq"),
            ("after_seq=x", "after_seq"),
            ("type=nonsense", "type"),
        ] {
            host.rest("ana").get(&format!("{path}?{query}")).await.expect_invalid(field);
        }
        host.rest("eve").get(&path).await.expect_problem(404, "not_found");
        host.rest("ana")
            .get("/api/v1/conversations/not-an-id/messages")
            .await
            .expect_problem(404, "not_found");
    })
    .await;
}

#[tokio::test]
async fn a_frame_of_history_stays_under_its_bound() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        for _ in 0..20 {
            // Each message has 8,000 bytes, so twenty do not fit 64 KiB.
            host.rest("ana").post(&path, json!({"content": "😀".repeat(2000)})).await.expect(201);
        }
        let mut ana = host.client("ana").await;
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let payload = json!({"conversation_id": room, "after_seq": after, "limit": 100});
            let page = ana.request("history", payload).await.expect("history");
            assert!(page.to_string().len() <= 64 * 1024);
            seen.extend(seqs(&page));
            after = *seen.last().unwrap();
            if page["has_more"] != true {
                break;
            }
        }
        assert_eq!(seen, (1..=21).collect::<Vec<_>>());
    })
    .await;
}
