//! Messages of a user's absence follow `auth.success` of the next connection, oldest first.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

async fn say(host: &Host, who: &str, room: &str, text: &str) {
    let path = format!("/api/v1/conversations/{room}/messages");
    host.rest(who).post(&path, json!({"content": text})).await.expect(201);
}

/// The frames of offline delivery: everything before the first reply.
async fn offline_frames(client: &mut Client) -> Vec<Value> {
    client.expect_alive().await;
    let mut frames = Vec::new();
    for frame_type in ["message.new", "resync"] {
        frames.extend(client.buffered(frame_type));
    }
    frames
}

fn texts(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter_map(|frame| frame["message"]["content"].as_str()).collect()
}

async fn is_gone(host: &Host, user: &str) {
    until(format!("the end of {user}'s connection to be noted"), async || {
        let rows = host.database.connect().await;
        let count = |event: &str| {
            format!(
                "select count(*) from switchboard.outbox \
                 where event_type = 'socket.{event}' and payload ->> 'user_id' = '{user}'"
            )
        };
        let (came, went) = (rows.rows(&count("connect")).await, rows.rows(&count("disconnect")).await);
        (came[0].get::<_, i64>(0) == went[0].get::<_, i64>(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn missed_messages_are_sent_once_oldest_first_and_marked() {
    Host::test(Options::default(), async |host| {
        let (one, two) = (host.group("one", &["ana", "bo"]).await, host.group("two", &["ana", "bo"]).await);
        // A user who has never connected.
        say(host, "ana", &one, "first").await;
        say(host, "ana", &two, "second").await;
        say(host, "ana", &one, "third").await;
        let mut bo = host.client("bo").await;
        let frames = offline_frames(&mut bo).await;
        assert_eq!(texts(&frames), ["first", "second", "third"]);
        let seqs: Vec<_> = frames.iter().map(|frame| &frame["message"]["seq"]).collect();
        assert_eq!(seqs, [2, 2, 3]);
        assert_eq!(frames[0]["conversation_id"], *one);
        // They are delivered, and do not come again, on another device or later.
        let rows = host.database.connect().await;
        let marks = rows
            .rows(&format!("select delivered_seq from app.participants where conversation_id = '{one}' and user_id = 'bo'"))
            .await;
        assert_eq!(marks[0].get::<_, i64>(0), 3);
        let mut phone = host.client("bo").await;
        assert!(offline_frames(&mut phone).await.is_empty());
        drop((bo, phone));
        is_gone(host, "bo").await;
        let mut bo = host.client("bo").await;
        assert!(offline_frames(&mut bo).await.is_empty());
        // Messages that a connected user got do not come again, read or not.
        bo.enter(&one).await;
        say(host, "ana", &one, "received").await;
        bo.expect_message("received").await;
        drop(bo);
        is_gone(host, "bo").await;
        say(host, "ana", &one, "missed").await;
        say(host, "bo", &two, "my own").await;
        let mut bo = host.client("bo").await;
        assert_eq!(texts(&offline_frames(&mut bo).await), ["missed"]);
    })
    .await;
}

#[tokio::test]
async fn two_hundred_messages_are_sent_and_incomplete_conversations_are_named() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let (much, little) =
            (host.group("much", &["ana", "bo"]).await, host.group("little", &["ana", "bo"]).await);
        say(host, "ana", &little, "the oldest").await;
        let mut ana = host.client("ana").await;
        ana.enter(&much).await;
        for n in 0..205 {
            ana.send(&format!("message {n}")).await.expect_sent();
        }
        let mut bo = host.client("bo").await;
        let frames = offline_frames(&mut bo).await;
        let (resync, messages) = frames.split_last().unwrap();
        assert_eq!(messages.len(), 200);
        assert_eq!((texts(messages)[0], texts(messages)[199]), ("the oldest", "message 198"));
        assert_eq!(*resync, json!({"conversation_ids": [much]}));
        // The other messages are in the history.
        let path = format!("/api/v1/conversations/{much}/messages?after_seq=200");
        let rest = host.rest("bo").get(&path).await.expect(200);
        assert_eq!(rest["messages"].as_array().map(Vec::len), Some(6));
    })
    .await;
}

/// Many ids of one millisecond: offline delivery is in the order of seq, and ids strictly increase with it.
#[tokio::test]
async fn messages_of_thirteen_concurrent_senders_are_sent_in_the_order_of_seq() {
    const SENDERS: usize = 13;
    const MESSAGES: usize = 20;
    Host::test(Options::default().without_rate_limits(), async |host| {
        let senders: Vec<String> = (0..SENDERS).map(|n| format!("sender-{n}")).collect();
        let members: Vec<&str> = senders.iter().map(String::as_str).chain(["bo"]).collect();
        let room = host.group("busy", &members).await;
        let (host, room) = (&*host, room.as_str());
        join_all(senders.iter().map(async |sender| {
            for n in 0..MESSAGES {
                say(host, sender, room, &format!("{sender} {n}")).await;
            }
        }))
        .await;
        let mut bo = host.client("bo").await;
        let frames = offline_frames(&mut bo).await;
        let seqs: Vec<u64> = frames.iter().filter_map(|frame| frame["message"]["seq"].as_u64()).collect();
        assert_eq!(seqs, (2..=201).collect::<Vec<_>>());
        let rows = host
            .database
            .rows(&format!("select id::text from app.messages where conversation_id = '{room}' order by seq"))
            .await;
        let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(ids.len(), SENDERS * MESSAGES + 1);
        let fallen = ids.windows(2).find(|pair| pair[0] >= pair[1]);
        assert_eq!(fallen, None, "an id is not above the id of the message before it");
    })
    .await;
}

#[tokio::test]
async fn offline_delivery_survives_the_loss_of_redis_and_of_the_node() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let bo = host.client("bo").await;
        drop(bo);
        is_gone(host, "bo").await;
        tokio::time::timeout(Duration::from_secs(30), async {
            until("bo to be announced gone", async || {
                let rows = host.database.connect().await;
                let stored = rows.rows("select status from app.presence where user_id = 'bo'").await;
                (stored.first().map(|row| row.get::<_, String>(0)).as_deref() == Some("offline"))
                    .then_some(())
            })
            .await;
        })
        .await
        .unwrap();
        say(host, "ana", &room, "kept").await;
        host.redis.kill();
        host.redis.start_again().await;
        host.kill().await;
        host.start().await;
        let mut bo = host.client("bo").await;
        assert_eq!(texts(&offline_frames(&mut bo).await), ["kept"]);
    })
    .await;
}

#[tokio::test]
async fn a_user_who_left_gets_no_missed_messages() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        say(host, "ana", &room, "before").await;
        let database = host.database.connect().await;
        let leave = "update app.participants set left_at = now() where user_id = 'bo'";
        database.run(leave).await;
        let mut bo = host.client("bo").await;
        assert!(offline_frames(&mut bo).await.is_empty());
    })
    .await;
}

/// Visits of a user who connects, leaves, and returns. Returns the errors.
async fn wrongs(host: &mut Host) -> Vec<String> {
    let rooms = [host.group("one", &["ana", "bo"]).await, host.group("two", &["ana", "bo"]).await];
    let left = host.group("left", &["ana", "bo"]).await;
    say(host, "ana", &left, "before").await;
    let database = host.database.connect().await;
    database
        .run(&format!(
            "update app.participants set left_at = now() where user_id = 'bo' and conversation_id = '{left}'"
        ))
        .await;
    let mut wrongs = Vec::new();
    let mut compare = |when: &str, frames: &[Value], expected: &[&str]| {
        if texts(frames) != expected {
            wrongs.push(format!("{when}: {:?} in place of {expected:?}", texts(frames)));
        }
    };
    say(host, "ana", &rooms[0], "first").await;
    let mut bo = host.client("bo").await;
    compare("at first", &offline_frames(&mut bo).await, &["first"]);
    let mut phone = host.client("bo").await;
    compare("on another device", &offline_frames(&mut phone).await, &[]);
    bo.enter(&rooms[0]).await;
    say(host, "ana", &rooms[0], "received").await;
    bo.expect_message("received").await;
    drop((bo, phone));
    is_gone(host, "bo").await;
    say(host, "ana", &rooms[1], "second").await;
    say(host, "bo", &rooms[1], "my own").await;
    let mut bo = host.client("bo").await;
    compare("after an absence", &offline_frames(&mut bo).await, &["second"]);
    let marks = database
        .rows(
            "select count(*) from app.participants \
             where user_id = 'bo' and left_at is null and delivered_seq < 2",
        )
        .await;
    if marks[0].get::<_, i64>(0) != 0 {
        wrongs.push("sent and not marked".to_owned());
    }
    wrongs
}

/// The check for duplicates must be able to fail: each of these is a mistake that the handler could make.
#[tokio::test]
async fn every_mistake_of_the_delivery_is_reported() {
    let built = Release::built("offline");
    let mistakes = [
        (
            "it is flushed again, whenever they went",
            built.with_mistake(
                "coalesce(to_timestamp(asked.gone_ms / 1000.0), known.last_seen, 'epoch')",
                "'epoch'::timestamptz",
            ),
        ),
        ("what was sent is not marked", built.with_mistake("app.mark($1::int[],", "app.none($1::int[],")),
        ("their own words come too", built.with_mistake("message.sender_id <> $1", "$1 is not null")),
        ("what they left is flushed", built.with_mistake("and participant.left_at is null", "")),
    ];
    Host::test(Options::default(), async |host| {
        assert_eq!(wrongs(host).await, [""; 0]);
    })
    .await;
    for (mistake, release) in mistakes {
        Host::test(Options::default(), async |host| {
            host.admin.release(&release).await;
            assert!(!wrongs(host).await.is_empty(), "nobody notices: {mistake}");
        })
        .await;
    }
}

/// A node has ended, and all its users connect to this one. Its handlers have fewer slots than there are
/// people.
#[tokio::test]
async fn every_client_of_a_reconnecting_crowd_gets_its_missed_messages() {
    const CROWD: usize = 40;
    Host::test(Options::default().without_rate_limits(), async |host| {
        for handler in ["offline", "presence-sweep"] {
            let narrow = Release::built(handler).with_manifest(|manifest| {
                manifest["limits"]["concurrency"] = 16.into();
            });
            host.admin.release(&narrow).await;
        }
        let users: Vec<String> = (0..CROWD).map(|n| format!("user-{n}")).collect();
        let members: Vec<&str> = ["ana"].into_iter().chain(users.iter().map(String::as_str)).collect();
        let room = host.group("lobby", &members).await;
        say(host, "ana", &room, "welcome").await;
        let clients = join_all(users.iter().map(|user| host.client(user))).await;
        for mut client in clients {
            assert_eq!(texts(&offline_frames(&mut client).await), ["welcome"]);
        }
        let here = "select count(*) from app.presence where user_id like 'user-%' and status <> 'offline'";
        let database = host.database.connect().await;
        until("all of them to be announced here", async || {
            (database.rows(here).await[0].get::<_, i64>(0) == CROWD as i64).then_some(())
        })
        .await;
    })
    .await;
}
