//! Channels, and the names of conversations: slugs, settings, finding and changing.

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
            // This text is in NFD.
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
async fn channels_come_in_pages_without_duplicates() {
    Host::test(Options::default(), async |host| {
        // Some have the same name.
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
async fn a_stranger_sees_only_the_description_of_a_public_channel() {
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
        // The new member can read all earlier messages, and none of them is unread.
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

/// A user who is in neither learns only that the public channel exists, and nothing about the private one,
/// whatever they try.
#[tokio::test]
async fn every_endpoint_gives_strangers_the_same_answer() {
    Host::test(Options::default(), async |host| {
        for (visibility, status, code) in [("public", 403, "forbidden"), ("private", 404, "not_found")] {
            let slug = format!("news-{visibility}");
            let body = json!({"type": "channel", "name": "news", "slug": slug, "visibility": visibility});
            let room = make(host, body).await;
            let body = json!({"content": "inside"});
            let sent =
                host.rest("ana").post(&format!("{CONVERSATIONS}/{slug}/messages"), body).await.expect(201);
            let message = sent["message"]["id"].as_str().unwrap();
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
            let answer =
                bo.request("subscribe", json!({"conversation_ids": [room]})).await.expect("subscribed");
            assert_eq!(answer["refused"], json!([{"id": room, "code": code}]));
        }
    })
    .await;
}

#[tokio::test]
async fn owner_and_admins_change_a_conversation() {
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
        // By its slug; absent fields keep their values; `null` removes one.
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
        // A request without changes changes nothing.
        bo.clear_buffered();
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
async fn a_slug_belongs_to_one_conversation() {
    Host::test(Options::default(), async |host| {
        make(host, json!({"type": "group", "name": "one", "slug": "place"})).await;
        let other = make(host, json!({"type": "group", "name": "other"})).await;
        let path = format!("{CONVERSATIONS}/{other}");
        let problem =
            host.rest("ana").patch(&path, json!({"slug": "place"})).await.expect_problem(409, "conflict");
        assert_eq!(problem["field"], "slug");
        // Ten concurrent attempts: one of the public channels, or one attempt of the person, gets the slug.
        for (kind, user) in [("channel", "u"), ("group", "one")] {
            let tries = (0..10).map(|n| {
                let user = if kind == "channel" { format!("{user}{n}") } else { user.to_owned() };
                let rest = host.rest(&user);
                let body = json!({"type": kind, "name": "x", "members": [], "slug": format!("hot-{kind}")});
                tokio::spawn(async move { rest.post(CONVERSATIONS, body).await.status })
            });
            let mut statuses = Vec::new();
            for answer in tries.collect::<Vec<_>>() {
                statuses.push(answer.await.unwrap());
            }
            statuses.sort_unstable();
            assert_eq!(statuses, [[201].as_slice(), &[409; 9]].concat(), "{kind}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_slug_reveals_nothing_to_strangers() {
    Host::test(Options::default(), async |host| {
        let private = json!({"type": "group", "name": "plan", "slug": "plan-b", "members": ["cy"]});
        let theirs = make(host, private).await;
        // A stranger can take the slug as if it were free, on each way, and it means the conversation of each
        // caller.
        let bo = host.rest("bo");
        let made = bo.post(CONVERSATIONS, json!({"type": "group", "name": "x", "slug": "plan-b"})).await;
        let own = made.expect(201)["conversation"]["id"].clone();
        let third = host.rest("eve").post(CONVERSATIONS, json!({"type": "channel", "name": "y"})).await;
        let third = third.expect(201)["conversation"]["id"].as_str().unwrap().to_owned();
        let path = format!("{CONVERSATIONS}/{third}");
        host.rest("eve").patch(&path, json!({"slug": "plan-b"})).await.expect(200);
        let by_slug = format!("{CONVERSATIONS}/plan-b");
        for (user, meant) in
            [("ana", json!(theirs)), ("cy", json!(theirs)), ("bo", own), ("dee", json!(third))]
        {
            let answer = host.rest(user).get(&by_slug).await.expect(200);
            assert_eq!(answer["conversation"]["id"], meant, "{user}");
        }
        // Users who see the conversation get the reason.
        for user in ["cy", "bo", "dee"] {
            let body = json!({"type": "group", "name": "z", "slug": "plan-b"});
            host.rest(user).post(CONVERSATIONS, body).await.expect_problem(409, "conflict");
        }
        // A second public channel cannot have it, regardless of its creator.
        let closed = json!({"type": "channel", "name": "z", "visibility": "private", "slug": "plan-c"});
        let closed =
            host.rest("fay").post(CONVERSATIONS, closed).await.expect(201)["conversation"]["id"].clone();
        let open = json!({"type": "channel", "name": "z", "slug": "plan-c"});
        host.rest("gus").post(CONVERSATIONS, open).await.expect(201);
        let path = format!("{CONVERSATIONS}/{}", closed.as_str().unwrap());
        let taken = host.rest("fay").patch(&path, json!({"visibility": "public"})).await;
        assert_eq!(taken.expect_problem(409, "conflict")["field"], "slug");
        // When cy is added to another one with this name, the slug means the one that cy joined first.
        let people = format!("{CONVERSATIONS}/{third}/participants");
        host.rest("eve").post(&people, json!({"user_id": "cy"})).await.expect(201);
        assert_eq!(host.rest("cy").get(&by_slug).await.expect(200)["conversation"]["id"], theirs);
    })
    .await;
}

#[tokio::test]
async fn every_frame_accepts_a_slug() {
    Host::test(Options::default(), async |host| {
        let body = json!({"type": "group", "name": "Lobby", "slug": "lobby", "members": ["bo"]});
        let room = make(host, body).await;
        let (mut ana, mut bo, mut eve) =
            (host.client("ana").await, host.client("bo").await, host.client("eve").await);
        for client in [&mut ana, &mut bo] {
            let positions = json!({"lobby": 1});
            let wish = json!({"conversation_ids": ["lobby"], "positions": positions});
            let answer = client.request("subscribe", wish).await.expect("subscribed");
            assert_eq!(answer["conversation_ids"], json!([room]), "{answer}");
            assert_eq!((&answer["slugs"], &answer["heads"]), (&json!({"lobby": room}), &json!({(&*room): 1})));
        }
        let send = json!({"conversation_id": "lobby", "content": "hi"});
        let sent = ana.request("message.send", send.clone()).await.expect("message.sent")["message"].clone();
        assert_eq!(sent["conversation_id"], room);
        host.rest("ana").post("/api/v1/messages", send).await.expect(201);
        bo.expect_where("message.new", |push| push["message"]["content"] == "hi").await;
        ana.write(json!({"type": "typing", "payload": {"conversation_id": "lobby"}})).await;
        assert_eq!(bo.expect("typing.start").await["conversation_id"], room);
        bo.write(json!({"type": "focus", "payload": {"conversation_id": "lobby"}})).await;
        bo.write(json!({"type": "delivered", "payload": {"positions": {"lobby": 2}}})).await;
        let receipt = |push: &Value| push["user_id"] == "bo" && push["up_to_seq"] == 2;
        assert_eq!(ana.expect_where("receipt.delivered", receipt).await["conversation_id"], room);
        let read = bo.request("read", json!({"conversation_id": "lobby", "up_to_seq": 2})).await;
        assert_eq!(read.expect("read.ok")["conversation_id"], room);
        let page = bo.request("history", json!({"conversation_id": "lobby"})).await.expect("history");
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(3), "{page}");
        let named = json!({"conversation_id": "lobby", "message_id": sent["id"], "content": "hello"});
        let edited = ana.request("message.edit", named.clone()).await.expect("message.edited");
        assert_eq!(edited["conversation_id"], room);
        let deleted = ana.request("message.delete", named).await.expect("message.deleted");
        assert_eq!(deleted["conversation_id"], room);
        let event = json!({"target": "conv:lobby", "type": "lesson.moved", "payload": {"n": 1}});
        host.publish(event).await.expect(202);
        bo.expect("lesson.moved").await;
        let gone = bo.request("unsubscribe", json!({"conversation_ids": ["lobby"]})).await.expect("unsubscribed");
        assert_eq!(gone["conversation_ids"], json!([room]));

        // To a stranger it is like a name that does not exist.
        for slug in ["lobby", "no-such-slug"] {
            let refused = eve.request("subscribe", json!({"conversation_ids": [slug]})).await.expect("subscribed");
            assert_eq!(refused["refused"], json!([{"id": slug, "code": "not_found"}]));
            for (frame, more) in [
                ("message.send", json!({"content": "x"})),
                ("history", json!({})),
                ("read", json!({"up_to_seq": 1})),
                ("typing", json!({})),
                ("focus", json!({})),
                ("message.edit", json!({"message_id": sent["id"], "content": "x"})),
                ("message.delete", json!({"message_id": sent["id"]})),
            ] {
                let mut payload = more;
                payload["conversation_id"] = json!(slug);
                eve.request(frame, payload).await.expect_error("not_found");
            }
        }
        for frame in ["message.send", "history", "read", "typing", "focus", "message.edit", "message.delete"] {
            let payload = json!({"conversation_id": "No Slug", "content": "x", "up_to_seq": 1, "message_id": sent["id"]});
            eve.request(frame, payload).await.expect_invalid("conversation_id");
        }
        let nobodys = json!({"target": "conv:no-such-slug", "type": "lesson.moved", "payload": {}});
        assert_eq!(host.publish(nobodys).await.expect_problem(404, "not_found")["field"], "target");
    })
    .await;
}

#[tokio::test]
async fn a_channel_becomes_public_and_private() {
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
