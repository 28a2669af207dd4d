//! Channels, and what a conversation is called: slugs, settings, finding and changing.

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};

const CONVERSATIONS: &str = "/api/v1/conversations";
const CHANNELS: &str = "/api/v1/channels";

async fn make(host: &Host, body: Value) -> String {
    let made = host.rest("ana").post(CONVERSATIONS, body).await.expect(201);
    made["conversation"]["id"].as_str().unwrap().to_owned()
}

async fn names(host: &Host, user: &str, query: &str) -> Vec<String> {
    let found = host.rest(user).get(&format!("{CHANNELS}?{query}")).await.expect(200);
    let list = found["conversations"].as_array().unwrap();
    list.iter().map(|channel| channel["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn public_channels_are_found_by_name() {
    Host::test(Options::default(), async |host| {
        for (name, visibility) in [
            ("Toán cao cấp", "public"),
            ("Daily news", "public"),
            ("100% fun", "public"),
            ("Secret news", "private"),
        ] {
            make(
                host,
                json!({"type": "channel", "name": name, "visibility": visibility, "description": "what for"}),
            )
            .await;
        }
        make(host, json!({"type": "group", "name": "Group news"})).await;
        assert_eq!(names(host, "bo", "").await, ["100% fun", "Daily news", "Toán cao cấp"]);
        for (query, expected) in [
            ("q=news", vec!["Daily news"]),
            ("q=NEWS", vec!["Daily news"]),
            ("q=aily", vec!["Daily news"]),
            ("q=toan%20cao%20cap", vec!["Toán cao cấp"]),
            // NFD.
            ("q=toa%CC%81n", vec!["Toán cao cấp"]),
            ("q=da", vec!["Daily news"]),
            ("q=ai", vec![]),
            ("q=0%25%20f", vec!["100% fun"]),
            ("q=%25%25%25", vec![]),
            ("q=___", vec![]),
            ("q=%5C%5C%5C", vec![]),
            ("q=%27%20or%201%3D1", vec![]),
        ] {
            assert_eq!(names(host, "bo", query).await, expected, "{query}");
        }
        let found = host.rest("bo").get(&format!("{CHANNELS}?q=daily")).await.expect(200);
        assert_eq!(
            (&found["conversations"][0]["my_role"], &found["next_cursor"]),
            (&Value::Null, &Value::Null)
        );
        let own = host.rest("ana").get(&format!("{CHANNELS}?q=daily")).await.expect(200);
        assert_eq!(own["conversations"][0]["my_role"], "owner");
        let long = format!("q={}", "x".repeat(101));
        for query in ["limit=0", "limit=101", "limit=x", "cursor=nonsense", "q=a%00b", &long] {
            let field = query.split('=').next().unwrap();
            host.rest("bo").get(&format!("{CHANNELS}?{query}")).await.expect_invalid(field);
        }
        assert!(names(host, "bo", "cursor=019a9fd9-277b-7fff-bfff-ffffffffffff").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn channels_come_page_by_page_each_once() {
    Host::test(Options::default(), async |host| {
        // Some are called the same.
        for n in 0..13 {
            make(host, json!({"type": "channel", "name": format!("room {}", n / 2)})).await;
        }
        let mut ids = std::collections::BTreeSet::new();
        let (mut cursor, mut pages) = (String::new(), 0);
        loop {
            let page = host.rest("bo").get(&format!("{CHANNELS}?q=room&limit=5{cursor}")).await.expect(200);
            pages += 1;
            for channel in page["conversations"].as_array().unwrap() {
                assert!(ids.insert(channel["id"].to_string()), "{channel} twice");
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!((ids.len(), pages), (13, 3));
    })
    .await;
}

#[tokio::test]
async fn who_is_not_in_a_public_channel_sees_its_description_only() {
    Host::test(Options::default(), async |host| {
        let body = json!({"type": "channel", "name": "news", "description": "what happens", "slug": "news"});
        let room = make(host, body).await;
        let path = format!("{CONVERSATIONS}/{room}");
        host.rest("ana").post(&format!("{path}/messages"), json!({"content": "inside"})).await.expect(201);
        let seen = host.rest("bo").get(&path).await.expect(200);
        assert_eq!(seen["conversation"]["description"], "what happens");
        assert_eq!(
            (&seen["conversation"]["my_role"], &seen["conversation"]["participants"]),
            (&Value::Null, &json!([]))
        );
        host.rest("bo").get(&format!("{path}/participants")).await.expect_problem(403, "forbidden");
        host.rest("bo").patch(&path, json!({"name": "mine"})).await.expect_problem(403, "forbidden");
        host.rest("bo").delete(&path).await.expect_problem(403, "forbidden");
        host.rest("bo").post(&format!("{CONVERSATIONS}/news/join"), json!({})).await.expect(200);
        // The newcomer reads all that was said, and none of it is unread.
        let history = host.rest("bo").get(&format!("{CONVERSATIONS}/news/messages")).await.expect(200);
        assert_eq!(history["messages"][1]["content"], "inside");
        let detail = host.rest("bo").get(&format!("{CONVERSATIONS}/news")).await.expect(200);
        assert_eq!(detail["conversation"]["last_read_seq"], 3);
        // Joining again changes nothing.
        host.rest("bo").post(&format!("{path}/join"), json!({})).await.expect(200);
        let history = host.rest("bo").get(&format!("{path}/messages")).await.expect(200);
        assert_eq!(history["messages"].as_array().unwrap().len(), 3);
    })
    .await;
}

/// Whatever somebody tries who is in neither: of the public channel they know that it is there, of the private one nothing.
#[tokio::test]
async fn every_door_of_a_channel_says_the_same_to_who_is_outside() {
    Host::test(Options::default(), async |host| {
        for (visibility, status, code) in [("public", 403, "forbidden"), ("private", 404, "not_found")] {
            let slug = format!("news-{visibility}");
            let body = json!({"type": "channel", "name": "news", "slug": slug, "visibility": visibility});
            let room = make(host, body).await;
            let said = json!({"content": "inside"});
            let said =
                host.rest("ana").post(&format!("{CONVERSATIONS}/{slug}/messages"), said).await.expect(201);
            let message = said["message"]["id"].as_str().unwrap();
            let bo = host.rest("bo");
            for name in [&room, &slug] {
                let path = format!("{CONVERSATIONS}/{name}");
                let messages = format!("{path}/messages");
                for answer in [
                    bo.get(&messages).await,
                    bo.post(&messages, json!({"content": "outside"})).await,
                    bo.put(&format!("{messages}/{message}"), json!({"content": "changed"})).await,
                    bo.delete(&format!("{messages}/{message}")).await,
                    bo.put(&format!("{messages}/{room}"), json!({"content": "no message"})).await,
                    bo.get(&format!("{path}/search?q=inside")).await,
                    bo.get(&format!("{path}/receipts?seq=2")).await,
                    bo.get(&format!("{path}/receipts?seq=700")).await,
                    bo.post(&format!("{path}/read"), json!({"up_to_seq": 1})).await,
                    bo.get(&format!("{path}/participants")).await,
                    bo.post(&format!("{path}/participants"), json!({"user_id": "cy"})).await,
                    bo.patch(&format!("{path}/participants/ana"), json!({"role": "member"})).await,
                    bo.delete(&format!("{path}/participants/ana")).await,
                    bo.patch(&path, json!({"name": "mine"})).await,
                    bo.delete(&path).await,
                ] {
                    answer.expect_problem(status, code);
                }
            }
            let mut bo = host.client("bo").await;
            for (frame_type, more) in [
                ("message.send", json!({"content": "outside"})),
                ("message.edit", json!({"message_id": message, "content": "changed"})),
                ("message.delete", json!({"message_id": message})),
                ("history", json!({})),
                ("read", json!({"up_to_seq": 1})),
                ("typing", json!({})),
                ("typing", json!({"state": "stop"})),
            ] {
                let mut payload = more;
                payload["conversation_id"] = json!(room);
                bo.request(frame_type, payload).await.expect_error(code);
            }
            let told =
                bo.request("subscribe", json!({"conversation_ids": [room]})).await.expect("subscribed");
            assert_eq!(told["refused"], json!([{"id": room, "code": code}]));
        }
    })
    .await;
}

#[tokio::test]
async fn a_conversation_is_changed_by_owner_and_admins() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let path = format!("{CONVERSATIONS}/{room}");
        let all = json!({
            "name": "Phòng khách", "slug": "lobby-2", "description": "by the door", "capacity": 5,
            "settings": {"theme": {"dark": true}},
        });
        let changed = host.rest("ana").patch(&path, all.clone()).await.expect(200);
        for field in ["name", "slug", "description", "capacity", "settings"] {
            assert_eq!(changed["conversation"][field], all[field]);
        }
        for client in [&mut ana, &mut bo] {
            let push = client.expect("conversation.updated").await;
            assert_eq!(
                (&push["conversation_id"], &push["conversation"]["name"]),
                (&json!(room), &all["name"])
            );
            assert_eq!(push["by"], "ana");
        }
        // By its slug; what is not named stays; `null` takes away.
        let by_slug = format!("{CONVERSATIONS}/lobby-2");
        let body = json!({"description": null, "capacity": null, "unknown": 7});
        let changed = host.rest("ana").patch(&by_slug, body).await.expect(200);
        assert_eq!(
            (&changed["conversation"]["description"], &changed["conversation"]["capacity"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(changed["conversation"]["settings"], all["settings"]);
        host.rest("ana").patch(&path, json!({"slug": null})).await.expect(200);
        host.rest("ana").get(&by_slug).await.expect_problem(404, "not_found");
        // Nothing to change is no change.
        bo.forget_pushes();
        host.rest("ana").patch(&path, json!({})).await.expect(200);
        host.rest("bo").patch(&path, json!({"name": "mine"})).await.expect_problem(403, "forbidden");
        host.rest("eve").patch(&path, json!({"name": "mine"})).await.expect_problem(404, "not_found");
        for (body, field) in [
            (json!({"name": null}), "name"),
            (json!({"name": ""}), "name"),
            (json!({"name": " "}), "name"),
            (json!({"name": "n".repeat(101)}), "name"),
            (json!({"name": "a\u{7}"}), "name"),
            (json!({"name": {}}), "name"),
            (json!({"slug": ""}), "slug"),
            (json!({"slug": "A"}), "slug"),
            (json!({"slug": "s".repeat(101)}), "slug"),
            (json!({"slug": room}), "slug"),
            (json!({"description": "d".repeat(2001)}), "description"),
            (json!({"description": "\u{0}"}), "description"),
            (json!({"capacity": 0}), "capacity"),
            (json!({"capacity": -1}), "capacity"),
            (json!({"capacity": 100_001}), "capacity"),
            (json!({"capacity": 1e30}), "capacity"),
            (json!({"settings": 7}), "settings"),
            (json!({"settings": {"a": "\u{0}"}}), "settings"),
            (json!({"settings": {"a": "x".repeat(4096)}}), "settings"),
            (json!({"visibility": "public"}), "visibility"),
            (json!({"visibility": 1}), "visibility"),
        ] {
            host.rest("ana").patch(&path, body).await.expect_invalid(field);
        }
        let detail = host.rest("ana").get(&path).await.expect(200);
        assert_eq!(detail["conversation"]["name"], "Phòng khách");
    })
    .await;
}

#[tokio::test]
async fn a_slug_belongs_to_one() {
    Host::test(Options::default(), async |host| {
        make(host, json!({"type": "group", "name": "one", "slug": "place"})).await;
        let other = make(host, json!({"type": "group", "name": "other"})).await;
        let path = format!("{CONVERSATIONS}/{other}");
        let problem =
            host.rest("ana").patch(&path, json!({"slug": "place"})).await.expect_problem(409, "conflict");
        assert_eq!(problem["field"], "slug");
        // Taken by ten at once: one gets it.
        let tries = (0..10).map(|n| {
            let rest = host.rest(&format!("u{n}"));
            let body = json!({"type": "group", "name": "x", "members": [], "slug": "hot"});
            tokio::spawn(async move { rest.post(CONVERSATIONS, body).await.status })
        });
        let mut statuses = Vec::new();
        for answer in tries.collect::<Vec<_>>() {
            statuses.push(answer.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [[201].as_slice(), &[409; 9]].concat());
    })
    .await;
}

#[tokio::test]
async fn a_channel_opens_and_closes() {
    Host::test(Options::default(), async |host| {
        let room = make(host, json!({"type": "channel", "name": "door", "visibility": "private"})).await;
        let path = format!("{CONVERSATIONS}/{room}");
        host.rest("bo").get(&path).await.expect_problem(404, "not_found");
        host.rest("ana").patch(&path, json!({"visibility": "public"})).await.expect(200);
        host.rest("bo").get(&path).await.expect(200);
        host.rest("ana").patch(&path, json!({"visibility": "private"})).await.expect(200);
        host.rest("bo").post(&format!("{path}/join"), json!({})).await.expect_problem(404, "not_found");
        assert!(names(host, "bo", "").await.is_empty());
    })
    .await;
}
