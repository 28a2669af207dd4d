//! Sending messages: acknowledged after COMMIT, numbered without gaps, idempotent, pushed to all subscribers.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger;
use switchboard_tests::services;

#[tokio::test]
async fn a_message_reaches_the_other_participant_and_the_sender() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let sent = ana.send("hi").await.expect_sent();
        let pushed = bo.expect_message("hi").await;
        assert_eq!(pushed["id"], sent["id"]);
        assert_eq!(pushed["seq"], sent["seq"]);
        assert_eq!(pushed["sender_id"], "ana");
        assert_eq!(pushed["type"], "text");
        assert_eq!(ana.expect_message("hi").await["id"], sent["id"]);
        bo.send("hello").await.expect_sent();
        bo.expect_message("hello").await;
        ana.expect_message("hello").await;
        ana.expect_silence().await;
        bo.expect_silence().await;
    })
    .await;
}

#[tokio::test]
async fn rest_stores_the_same_message() {
    Host::test(Options::default(), async |host| {
        let (_ana, mut bo) = host.two_members("lobby").await;
        let path = format!("/api/v1/conversations/{}/messages", bo.room());
        let sent = host.rest("ana").post(&path, json!({"content": "by REST"})).await.expect(201);
        assert_eq!(bo.expect_message("by REST").await["id"], sent["message"]["id"]);

        let body = json!({"conversation_id": bo.room(), "content": "by the alias"});
        host.rest("ana").post("/api/v1/messages", body).await.expect(201);
        bo.expect_message("by the alias").await;
    })
    .await;
}

#[tokio::test]
async fn a_key_makes_a_retry_return_the_first_result() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let once = json!({"conversation_id": ana.room(), "content": "caf\u{e9}", "client_msg_id": "k1"});
        let first = ana.request("message.send", once.clone()).await.expect_sent();
        let again = ana.request("message.send", once).await.expect("message.sent");
        assert_eq!(again["duplicate"], true);
        assert_eq!(again["message"]["id"], first["id"]);

        // The same text in another normal form is the same text.
        let path = format!("/api/v1/conversations/{}/messages", ana.room());
        let decomposed = json!({"content": "cafe\u{301}"}).to_string();
        let headers = [("content-type", "application/json"), ("idempotency-key", "k1")];
        let replay = host.rest("ana").send(Method::POST, &path, &headers, decomposed).await.expect(200);
        assert_eq!((&replay["message"]["id"], &replay["duplicate"]), (&first["id"], &json!(true)));

        let other = json!({"content": "tea", "client_msg_id": "k1"});
        host.rest("ana").post(&path, other.clone()).await.expect_problem(409, "idempotency_conflict");
        // Keys are per user.
        host.rest("bo").post(&path, other).await.expect(201);

        bo.expect_message("caf\u{e9}").await;
        bo.expect_message("tea").await;
        bo.expect_silence().await;
    })
    .await;
}

/// A retry gets the first result, even if the sender can no longer send in between. A sender who left gets
/// 404.
#[tokio::test]
async fn a_retry_gets_the_first_result_whatever_happened_since() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let (seat, ana, bo) =
            (format!("/api/v1/conversations/{room}/participants/bo"), host.rest("ana"), host.rest("bo"));
        let once = json!({"content": "x", "client_msg_id": "k"});
        let first = bo.post(&path, once.clone()).await.expect(201);
        let again = async || {
            let replay = bo.post(&path, once.clone()).await.expect(200);
            assert_eq!(
                (&replay["message"]["id"], &replay["duplicate"]),
                (&first["message"]["id"], &json!(true))
            );
        };
        // The sender, who may no longer write, had sent it before.
        ana.patch(&seat, json!({"role": "observer"})).await.expect(200);
        again().await;
        bo.post(&path, json!({"content": "y", "client_msg_id": "l"})).await.expect_problem(403, "forbidden");
        ana.patch(&seat, json!({"role": "member"})).await.expect(200);
        // The limit does not matter either.
        for _ in 0..24 {
            bo.post(&path, json!({"content": "z"})).await.expect(201);
        }
        bo.post(&path, json!({"content": "z"})).await.expect_problem(429, "rate_limited");
        again().await;
        // A user who has left sees nothing of it, whatever the limit is.
        ana.delete(&seat).await.expect(204);
        bo.post(&path, once.clone()).await.expect_problem(404, "not_found");
    })
    .await;
}

/// A key in a header that is not ASCII is a valid key or an error. The host never ignores it.
#[tokio::test]
async fn a_key_in_a_header_is_never_ignored() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let (path, ana) = (format!("/api/v1/conversations/{room}/messages"), host.rest("ana"));
        let send = async |key: &str| {
            let headers = [("content-type", "application/json"), ("idempotency-key", key)];
            ana.send(Method::POST, &path, &headers, json!({"content": "hi"}).to_string()).await
        };
        let first = send("chìa khóa").await.expect(201);
        assert_eq!(first["message"]["client_msg_id"], "chìa khóa");
        let again = send("chìa khóa").await.expect(200);
        assert_eq!((&again["message"]["id"], &again["duplicate"]), (&first["message"]["id"], &json!(true)));
        for broken in ["a\u{85}b", "", &"k".repeat(129)] {
            assert_eq!(send(broken).await.expect_problem(422, "invalid")["code"], "invalid", "{broken:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn one_key_sent_many_times_at_once_is_stored_once() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let sends = (0..16).map(|_| {
            let (ana, path) = (host.rest("ana"), path.clone());
            tokio::spawn(
                async move { ana.post(&path, json!({"content": "once", "client_msg_id": "k"})).await },
            )
        });
        let (mut created, mut ids) = (0, BTreeSet::new());
        for send in sends.collect::<Vec<_>>() {
            let answer = send.await.unwrap();
            created += usize::from(answer.status == 201);
            assert!(matches!(answer.status, 200 | 201), "{answer}");
            ids.insert(answer.json()["message"]["id"].to_string());
        }
        assert_eq!((created, ids.len()), (1, 1));
    })
    .await;
}

/// One key from two devices, by REST and by frame, all at once: one message, one push, and every request gets
/// it.
#[tokio::test]
async fn one_key_by_rest_and_frame_at_once_is_one_message() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        let path = format!("/api/v1/conversations/{room}/messages");
        let (mut phone, mut tablet) = (host.client("ana").await, host.client("ana").await);
        for round in 0..10 {
            let key = format!("k{round}");
            let body = json!({"conversation_id": room, "content": "once", "client_msg_id": key});
            let sends = (0..8).map(|_| {
                let (rest, path, body) = (host.rest("ana"), path.clone(), body.clone());
                tokio::spawn(async move { rest.post(&path, body).await })
            });
            let sends: Vec<_> = sends.collect();
            let frames =
                [phone.request("message.send", body.clone()), tablet.request("message.send", body.clone())];
            let (mut created, mut ids) = (0, BTreeSet::new());
            for reply in futures_util::future::join_all(frames).await {
                let payload = reply.expect("message.sent");
                created += usize::from(payload["duplicate"] == false);
                ids.insert(payload["message"]["id"].to_string());
            }
            for send in sends {
                let answer = send.await.unwrap();
                created += usize::from(answer.status == 201);
                assert!(matches!(answer.status, 200 | 201), "{answer}");
                ids.insert(answer.json()["message"]["id"].to_string());
            }
            assert_eq!((created, ids.len()), (1, 1), "round {round}");
            bo.expect_message("once").await;
            ana.expect_message("once").await;
        }
        bo.expect_silence().await;
        // The key belongs to the original text, not to later edits.
        let sent =
            host.rest("ana").post(&path, json!({"content": "once", "client_msg_id": "k0"})).await.expect(200);
        let one = format!("{path}/{}", sent["message"]["id"].as_str().unwrap());
        host.rest("ana").put(&one, json!({"content": "twice"})).await.expect(200);
        let replay =
            host.rest("ana").post(&path, json!({"content": "once", "client_msg_id": "k0"})).await.expect(200);
        assert_eq!((&replay["message"]["content"], &replay["duplicate"]), (&json!("twice"), &json!(true)));
    })
    .await;
}

#[tokio::test]
async fn sixty_four_concurrent_writers_leave_no_gap() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let mut reader = host.client("bo").await;
        let head = reader.enter(&room).await;
        let writers = (0..64).map(|n| {
            let (rest, path) =
                (host.rest(["ana", "bo"][n % 2]), format!("/api/v1/conversations/{room}/messages"));
            tokio::spawn(async move {
                let mut seqs = Vec::new();
                for m in 0..5 {
                    let sent = rest.post(&path, json!({"content": format!("{n}.{m}")})).await.expect(201);
                    seqs.push(sent["message"]["seq"].as_u64().unwrap());
                }
                seqs
            })
        });
        let mut given = BTreeSet::new();
        for writer in writers.collect::<Vec<_>>() {
            let seqs = writer.await.unwrap();
            assert!(seqs.is_sorted(), "one writer's messages are in its order: {seqs:?}");
            given.extend(seqs);
        }
        assert_eq!(given, (head + 1..=head + 320).collect());
        for seq in head + 1..=head + 320 {
            assert_eq!(reader.expect("message.new").await["message"]["seq"], seq);
        }
    })
    .await;
}

#[tokio::test]
async fn seqs_have_no_gaps_for_any_concurrent_senders() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let sends = (0..100).map(|n| {
            let member = host.rest(["ana", "bo"][n % 2]);
            let path = format!("/api/v1/conversations/{room}/messages");
            tokio::spawn(async move { member.post(&path, json!({"content": format!("m{n}")})).await })
        });
        let mut seqs = BTreeSet::new();
        for send in sends.collect::<Vec<_>>() {
            seqs.insert(send.await.unwrap().expect(201)["message"]["seq"].as_u64().unwrap());
        }
        let first = *seqs.first().unwrap();
        assert_eq!(seqs, (first..first + 100).collect());
        let history = ledger::history(&host.rest("ana"), &room).await;
        assert!(history.keys().copied().eq(1..first + 100), "{:?}", history.keys());
    })
    .await;
}

#[tokio::test]
async fn a_message_that_violates_a_rule_is_refused() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let elsewhere = host.group("elsewhere", &["ana"]).await;
        let path = |room: &str| format!("/api/v1/conversations/{room}/messages");
        let ana = host.rest("ana");
        let sent = ana.post(&path(&room), json!({"content": "first"})).await.expect(201);
        let foreign = ana.post(&path(&elsewhere), json!({"content": "other room"})).await.expect(201);

        let attachment =
            json!({"url": "https://files.test/a.png", "name": "a", "mime": "image/png", "size": 1});
        for good in [
            json!({"content": "ü".repeat(2000)}),
            // 4000 scalar values before normalisation, 2000 after.
            json!({"content": "e\u{301}".repeat(2000)}),
            json!({"content": "a reply", "reply_to_id": sent["message"]["id"]}),
            json!({"content": "files", "attachments": vec![attachment.clone(); 10]}),
            json!({"content": "meta", "metadata": {"k": "v".repeat(4096 - 8)}}),
            json!({"content": "hey @bo", "mentions": ["bo"]}),
            json!({"content": "unknown members are ignored", "colour": "red"}),
        ] {
            ana.post(&path(&room), good).await.expect(201);
        }
        for (bad, field) in [
            (json!({}), "content"),
            (json!({"content": ""}), "content"),
            (json!({"content": "ü".repeat(2001)}), "content"),
            (json!({"content": "nul\u{0}"}), "content"),
            (json!({"content": "x", "reply_to_id": foreign["message"]["id"]}), "reply_to_id"),
            (json!({"content": "x", "attachments": vec![attachment; 11]}), "attachments"),
            (json!({"content": "x", "metadata": {"k": "v".repeat(4096 - 7)}}), "metadata"),
            (json!({"content": "x", "metadata": [1]}), "metadata"),
            (json!({"content": "x", "client_msg_id": ""}), "client_msg_id"),
        ] {
            ana.post(&path(&room), bad).await.expect_invalid(field);
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_who_cannot_send_gets_an_error() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let hi = json!({"content": "hi"});
        // A conversation of others gets the same answer as one that does not exist.
        host.rest("eve").post(&path, hi.clone()).await.expect_problem(404, "not_found");
        let nowhere = "/api/v1/conversations/0199aaaa-0000-7000-8000-000000000000/messages";
        host.rest("ana").post(nowhere, hi.clone()).await.expect_problem(404, "not_found");
        host.rest_with(None).post(&path, hi).await.expect_problem(401, "unauthorized");

        let mut eve = host.client("eve").await;
        let payload = json!({"conversation_id": room, "content": "hi"});
        eve.request("message.send", payload).await.expect_error("not_found");
        eve.expect_alive().await;
    })
    .await;
}

#[tokio::test]
async fn after_25_messages_in_a_minute_the_sender_is_rate_limited() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let path = format!("/api/v1/conversations/{}/messages", ana.room());
        for n in 0..25 {
            // Frames and REST count together.
            if n % 2 == 0 {
                let key =
                    json!({"conversation_id": ana.room(), "content": "x", "client_msg_id": format!("k{n}")});
                ana.request("message.send", key).await.expect_sent();
            } else {
                host.rest("ana").post(&path, json!({"content": "x"})).await.expect(201);
            }
        }
        let refused = ana.send("one too many").await.expect_error("rate_limited");
        let wait = refused["retry_after_ms"].as_u64().expect("when to try again");
        assert!((1..=60_000).contains(&wait), "{refused}");
        assert_eq!(refused["retryable"], true);
        host.rest("ana").post(&path, json!({"content": "y"})).await.expect_problem(429, "rate_limited");
        // A replay does not count, and other users have limits of their own.
        let replay = json!({"conversation_id": ana.room(), "content": "x", "client_msg_id": "k0"});
        assert_eq!(ana.request("message.send", replay).await.expect("message.sent")["duplicate"], true);
        bo.send("I may").await.expect_sent();
    })
    .await;
}

/// Consumers need not ask who looks at a message that nobody else can see.
#[tokio::test]
async fn the_event_of_a_message_states_whether_its_sender_was_alone() {
    Host::test(Options::default(), async |host| {
        host.group("elsewhere", &["ana", "bo"]).await;
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/conversations/{room}");
        let say = async |content: &str| {
            host.rest("ana").post(&format!("{path}/messages"), json!({"content": content})).await.expect(201);
        };
        say("alone").await;
        let people = format!("{path}/participants");
        host.rest("ana").post(&people, json!({"user_id": "bo"})).await.expect(201);
        say("together").await;
        host.rest("bo").delete(&path).await.expect(204);
        say("alone again").await;
        let events = "select payload -> 'message' ->> 'content', payload ->> 'alone' from switchboard.outbox \
                      where event_type = 'message.created' and payload -> 'message' ->> 'type' = 'text' \
                      and payload ->> 'conversation_id' = ";
        let rows = host.database.rows(&format!("{events} '{room}' order by position")).await;
        let events: Vec<(String, Option<String>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let alone = |content: &str, alone: Option<&str>| (content.to_owned(), alone.map(str::to_owned));
        let expected =
            [alone("alone", Some("true")), alone("together", None), alone("alone again", Some("true"))];
        assert_eq!(events, expected);
    })
    .await;
}

/// The window begins with its first message and has a fixed end, however many follow; then 25 are allowed
/// again.
#[tokio::test]
async fn the_rate_limit_has_a_fixed_window() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        let ana = host.rest("ana");
        let client = redis::Client::open(host.redis.url_at(None)).unwrap();
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        // A refused message takes no slot.
        ana.post(&path, json!({"content": ""})).await.expect_invalid("content");
        host.rest("ana")
            .post(&path.replace(&room, &uuid_of_nothing()), json!({"content": "x"}))
            .await
            .expect(404);
        for _ in 0..25 {
            ana.post(&path, json!({"content": "x"})).await.expect(201);
        }
        let key = &host.redis_key("rate:send:ana").await;
        let before: i64 = redis::cmd("PTTL").arg(key).query_async(&mut redis).await.unwrap();
        assert!((1..=60_000).contains(&before), "{before}");
        let refused = ana.post(&path, json!({"content": "x"})).await;
        let wait = refused.expect_problem(429, "rate_limited")["retry_after_ms"].as_i64().unwrap();
        assert!(wait <= before, "refused until {wait}, the window ends in {before}");
        // Simulate the end of the minute.
        let () = redis::cmd("PEXPIRE").arg(key).arg(1).query_async(&mut redis).await.unwrap();
        switchboard_tests::patience::until("the end of the window", async || {
            let left: i64 = redis::cmd("EXISTS").arg(key).query_async(&mut redis).await.unwrap();
            (left == 0).then_some(())
        })
        .await;
        for _ in 0..25 {
            ana.post(&path, json!({"content": "x"})).await.expect(201);
        }
        ana.post(&path, json!({"content": "x"})).await.expect_problem(429, "rate_limited");
        // The refused messages do not count.
        let counted: i64 = redis::cmd("GET").arg(key).query_async(&mut redis).await.unwrap();
        assert_eq!(counted, 25);
        // A node died before it could set the end of a window: when the window is full, a new one begins.
        let () = redis::cmd("PERSIST").arg(key).query_async(&mut redis).await.unwrap();
        ana.post(&path, json!({"content": "x"})).await.expect(201);
        let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut redis).await.unwrap();
        assert!((1..=60_000).contains(&left), "{left}");
    })
    .await;
}

fn uuid_of_nothing() -> String {
    "0199aaaa-0000-7000-8000-000000000000".to_owned()
}

#[tokio::test]
async fn without_redis_there_is_no_rate_limit() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        host.redis.kill();
        for _ in 0..30 {
            host.rest("ana").post(&path, json!({"content": "x"})).await.expect(201);
        }
        let page = host.rest("ana").get(&path).await.expect(200);
        assert_eq!(page["messages"].as_array().map(Vec::len), Some(31));
        host.redis.start_again().await;
    })
    .await;
}

/// Tests `app.id_after` with random pairs of the same four milliseconds. The result is always a UUIDv7 above
/// the head. It is the id itself if that is above the head already, and it differs for two ids above one
/// head. Then heads with a full counter are tested, and a chain of ids from clocks that jump back and forth.
#[tokio::test]
async fn the_next_id_is_above_the_head_for_any_clock() {
    const RANDOM: &str = "create temp view random_id as select lpad(to_hex((1764410400000 + floor(random() * 4))::bigint), 12, '0') \
            || '7' || right(replace(gen_random_uuid()::text, '-', ''), 3) \
            || substr('89ab', 1 + floor(random() * 4)::int, 1) || right(replace(gen_random_uuid()::text, '-', ''), 15) as hex";
    const PAIRS: &str = "with pair as materialized ( \
            select (select hex from random_id where n > 0)::uuid as head, (select hex from random_id where n > 0)::uuid as id \
            from generate_series(1, 20000) as n), \
        made as (select head, id, app.id_after(head, id) as next from pair) \
        select count(*) filter (where next <= head), \
            count(*) filter (where id > head and next <> id), \
            count(*) filter (where next::text !~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-'), \
            count(*) - count(distinct next) \
        from made";
    const FULL: &str = "select app.id_above('019aa117-0000-7fff-bfff-ffffffffffff', '019aa117-0000-7000-8000-000000000000')::text, \
            app.id_above('019aa117-0000-7ffe-bfff-ffffffffffff', '019aa117-0000-7000-8000-ffffffffffff')::text, \
            app.id_after(null, '019aa117-0000-7000-8000-000000000000')::text";
    const CHAIN: &str = "with recursive chain as ( \
            select 1 as n, (select hex from random_id)::uuid as id, true as rises \
            union all \
            select n + 1, next.id, next.id > chain.id from chain cross join lateral ( \
                select app.id_after(chain.id, (select hex from random_id where n > 0)::uuid) as id) as next \
            where n < 5000) \
        select count(*) filter (where not rises) from chain";
    let database = services::database().await;
    let connection = database.connect().await;
    connection.run(RANDOM).await;
    let pairs = &connection.rows(PAIRS).await[0];
    for (at, rule) in ["above the head", "the id itself", "a UUIDv7", "distinct"].iter().enumerate() {
        assert_eq!(pairs.get::<_, i64>(at), 0, "ids that are not {rule}");
    }
    let full = &connection.rows(FULL).await[0];
    assert_eq!(full.get::<_, String>(0), "019aa117-0001-7000-8000-000000000000");
    assert_eq!(full.get::<_, String>(1), "019aa117-0000-7fff-8000-ffffffffffff");
    assert_eq!(full.get::<_, String>(2), "019aa117-0000-7000-8000-000000000000");
    assert_eq!(connection.rows(CHAIN).await[0].get::<_, i64>(0), 0, "ids that do not rise");
    drop(connection);
    database.drop_it().await;
}
