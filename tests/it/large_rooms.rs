//! Large conversations: many people join and leave at once, everybody gets an answer, and what the others
//! receive of it is bounded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::within;
use switchboard_tests::proxy::Proxy;
use switchboard_tests::rest::Rest;
use switchboard_tests::services::{self, Redis};
use switchboard_tests::token::Token;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

const CONVERSATIONS: &str = "/api/v1/conversations";
/// The participants up to which each join is announced by itself.
const LARGE_ABOVE: usize = 100;
const AT_ONCE: usize = 64;
/// Long enough for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pushes about joins and leaves that one connection received.
#[derive(Debug, Default)]
struct Received {
    user: String,
    /// `member.joined` and `member.left` about others.
    one_by_one: usize,
    /// `message.new` of type `join` or `leave`.
    messages: usize,
    /// The `member.changes`, in order.
    changes: Vec<Value>,
    /// The frames about the user's own join.
    own: usize,
}

impl Received {
    fn take(&mut self, frame: &Value, room: &str) {
        let payload = &frame["payload"];
        if payload["conversation_id"] != room {
            return;
        }
        match frame["type"].as_str().unwrap_or_default() {
            "member.joined" | "member.left" if payload["user_id"] == *self.user => self.own += 1,
            "member.joined" | "member.left" => self.one_by_one += 1,
            "message.new" if payload["message"]["type"] != "text" => self.messages += 1,
            "member.changes" => self.changes.push(payload.clone()),
            _ => {}
        }
    }

    /// The number of changes in all `member.changes`, and in their lists.
    fn counted(&self, what: &str) -> (u64, usize) {
        let counts = self.changes.iter().map(|changes| changes[what]["count"].as_u64().expect("a count"));
        let people =
            self.changes.iter().map(|changes| changes[what]["people"].as_array().map_or(0, Vec::len));
        (counts.sum(), people.sum())
    }
}

async fn channel(host: &Host, owner: &str, members: &[String]) -> String {
    let body = json!({"type": "channel", "name": "lobby", "visibility": "public", "members": members});
    let made = host.rest(owner).post(CONVERSATIONS, body).await.expect(201);
    made["conversation"]["id"].as_str().expect("an id").to_owned()
}

/// Reads until `enough`, then what the host sent before it answers a `ping`.
async fn listen(mut client: Client, room: String, mut enough: watch::Receiver<bool>) -> Received {
    let mut received = Received { user: client.user.clone(), ..Received::default() };
    loop {
        tokio::select! {
            _ = enough.wait_for(|enough| *enough) => break,
            frame = client.next_push() => received.take(&frame, &room),
        }
    }
    client.write(json!({"type": "ping", "id": "last"})).await;
    loop {
        let frame = client.next_push().await;
        if frame["id"] == "last" {
            return received;
        }
        received.take(&frame, &room);
    }
}

async fn participants(host: &Host, room: &str) -> BTreeSet<String> {
    let (mut all, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let path = format!("{CONVERSATIONS}/{room}/participants?limit=1000{cursor}");
        let page = host.rest("ana").get(&path).await.expect(200);
        let list = page["participants"].as_array().expect("participants");
        all.extend(list.iter().map(|one| one["user_id"].as_str().expect("a user").to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

async fn stored(host: &Host, room: &str) -> BTreeSet<String> {
    let statement =
        format!("select user_id from app.participants where conversation_id = '{room}' and left_at is null");
    host.database.rows(&statement).await.iter().map(|row| row.get(0)).collect()
}

/// Joins and subscribes. Each frame gets its answer. An overloaded node may answer that it is `unavailable`;
/// the user then tries again. Returns the number of such answers.
async fn join(client: &mut Client, room: &str) -> usize {
    for refusals in 0..20 {
        let asked = json!({"conversation_ids": [room], "join": true});
        let reply = client.request("subscribe", asked).await;
        if reply.0["payload"]["retryable"] != true {
            let subscribed = reply.expect("subscribed");
            assert_eq!(subscribed["conversation_ids"], json!([room]), "{subscribed}");
            return refusals;
        }
        println!("{}: {}", client.user, reply.0);
    }
    panic!("{}: twenty refusals", client.user);
}

/// Lets this number of users join one public channel, [`AT_ONCE`] at a time, while everybody in it listens.
async fn join_at_once(host: &Host, joiners: usize) {
    let room = channel(host, "ana", &[]).await;
    let (enough, is_enough) = watch::channel(false);
    let mut ana = host.client("ana").await;
    ana.enter(&room).await;
    let ana = tokio::spawn(listen(ana, room.clone(), is_enough.clone()));
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let (mut answered, mut clients) = (JoinSet::new(), Vec::new());
    for number in 0..joiners {
        clients.push(host.client(&format!("joiner-{number}")).await);
    }
    let begun = Instant::now();
    let (mut listening, mut refusals) = (JoinSet::new(), 0);
    for mut client in clients {
        let (room, slots, is_enough) = (room.clone(), slots.clone(), is_enough.clone());
        answered.spawn(async move {
            let slot = slots.acquire_owned().await.expect("a slot");
            let refusals = join(&mut client, &room).await;
            drop(slot);
            (client, room, is_enough, refusals)
        });
    }
    while let Some(joined) = answered.join_next().await {
        let (client, room, is_enough, more) =
            joined.expect("each gets an answer, on a connection that stays");
        refusals += more;
        listening.spawn(listen(client, room, is_enough));
    }
    let took = begun.elapsed();
    let people = stored(host, &room).await;
    assert_eq!(people.len(), joiners + 1, "everybody is a participant");
    // The rest is announced after the interval.
    is_announced(host).await;
    enough.send_replace(true);
    let seconds = begun.elapsed().as_secs() as usize;
    let ana = ana.await.expect("ana stays connected");
    println!(
        "{joiners} joins in {took:?}, {refusals} tried again; ana received {} joins one by one, and {} announcements",
        ana.one_by_one,
        ana.changes.len()
    );
    // Those before the conversation was large, each with its message; then all others.
    assert_eq!((ana.one_by_one, ana.messages), (LARGE_ABOVE, LARGE_ABOVE));
    let counted = joiners - LARGE_ABOVE;
    let (joined, named) = ana.counted("joined");
    assert_eq!((joined, ana.counted("left")), (counted as u64, (0, 0)), "{:?}", ana.changes);
    assert!(named >= counted.min(20) && named <= 20 * ana.changes.len(), "{:?}", ana.changes);
    assert_eq!(ana.changes.last().expect("changes")["participants"], joiners + 1);
    let mut frames = 0;
    while let Some(received) = listening.join_next().await {
        let received = received.expect("a connection that stays");
        assert_eq!(received.own, 1, "{}: the own join", received.user);
        let most = seconds + 2;
        assert!(
            received.changes.len() <= most,
            "{}: {} in {seconds} s",
            received.user,
            received.changes.len()
        );
        assert!(received.one_by_one <= LARGE_ABOVE && received.messages <= LARGE_ABOVE + 1, "{received:?}");
        frames += received.one_by_one + received.messages + received.changes.len();
    }
    // Each event has the transaction that wrote it.
    let commits = "select count(distinct xmin::text) from switchboard.outbox \
         where event_type = 'conversation.participant.joined'";
    let commits: i64 = host.database.rows(commits).await[0].get(0);
    println!("{frames} frames to the joiners about others; {commits} commits");
    assert!((commits as usize) < joiners, "they shared commits");
    assert_eq!(participants(host, &room).await, people);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_200_who_join_at_once_gets_an_answer() {
    Host::test(Options::default().without_rate_limits(), async |host| join_at_once(host, 200).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_join_and_no_connection_is_dropped() {
    Host::test(Options::default().without_rate_limits(), async |host| join_at_once(host, 1_000).await).await;
}

/// A conversation of 121 participants. Everything that happens in these tests is a change of a large one.
async fn large(host: &Host) -> String {
    let members: Vec<String> = (0..120).map(|number| format!("member-{number}")).collect();
    channel(host, "ana", &members).await
}

/// The number of messages that are not texts: the first one of the conversation, and joins and leaves.
async fn announcements(host: &Host, room: &str) -> i64 {
    let statement =
        format!("select count(*) from app.messages where conversation_id = '{room}' and type <> 'text'");
    host.database.rows(&statement).await[0].get(0)
}

async fn is_announced(host: &Host) {
    within(PATIENCE, "all changes to be announced and delivered", async || {
        let waiting = "select from app.member_changes where event_id is not null";
        let done = host.database.rows(waiting).await.is_empty();
        (done && host.database.outbox_unread().await.is_empty()).then_some(())
    })
    .await;
}

/// Each of these users joins and leaves again and again, on both nodes, until one node is killed and then
/// some. Nothing is lost, whatever the node was doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_joins_and_leaves_survives_kill_9() {
    const USERS: usize = 24;
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = large(host).await;
        let mut second = host.another_node().await;
        let (enough, is_enough) = watch::channel(false);
        let mut ana = host.client("ana").await;
        ana.enter(&room).await;
        let ana = tokio::spawn(listen(ana, room.clone(), is_enough));
        let (stop, stopped) = watch::channel(false);
        let mut storm = JoinSet::new();
        for number in 0..USERS {
            let user = format!("storm-{number}");
            let nodes = [host.address, second.address];
            let (room, stopped) = (room.clone(), stopped.clone());
            storm.spawn(async move {
                let (mut answers, mut turn) = (0, number);
                // Half of the users are participants at the end.
                while !*stopped.borrow() || turn % 2 != number / 2 % 2 {
                    turn += 1;
                    let rest = Rest::new(nodes[turn / 2 % 2], Token::of(&user).sign());
                    let (method, path) = match turn % 2 {
                        0 => (Method::DELETE, format!("{CONVERSATIONS}/{room}")),
                        _ => (Method::POST, format!("{CONVERSATIONS}/{room}/join")),
                    };
                    // The dead node does not answer. Then the next turn may be refused.
                    let Ok(answer) = rest.try_send(method, &path, &[], "").await else { continue };
                    assert!(matches!(answer.status, 200 | 204 | 403 | 503), "{answer}");
                    answers += 1;
                }
                answers
            });
        }
        let made = async |at_least: i64| {
            within(PATIENCE, "joins and leaves", async || {
                let changes = "select count(*) from switchboard.outbox where payload ->> 'counted' = 'true'";
                (host.database.rows(changes).await[0].get::<_, i64>(0) > at_least).then_some(())
            })
            .await;
        };
        made(150).await;
        second.kill().await;
        made(450).await;
        stop.send_replace(true);
        let answers: usize = storm.join_all().await.into_iter().sum();
        is_announced(host).await;
        enough.send_replace(true);
        let ana = ana.await.expect("ana stays connected");
        let people = stored(host, &room).await;
        println!("{answers} joins and leaves answered; ana received {} announcements", ana.changes.len());
        assert_eq!(participants(host, &room).await, people, "the list agrees with the table");
        let last = ana.changes.last().expect("an announcement");
        assert_eq!(last["participants"], people.len(), "the last announcement agrees with the table");
        assert_eq!((ana.one_by_one, ana.messages), (0, 0), "no change is announced by itself");
        assert_eq!(announcements(host, &room).await, 1, "nothing is written to the history");
        // The announcements add up. After a kill, an announcement may come twice.
        let (joined, left) = (ana.counted("joined").0 as i64, ana.counted("left").0 as i64);
        assert!(joined > 150 && left > 150, "{joined} joined and {left} left");
        let distinct: BTreeSet<String> = ana.changes.iter().map(Value::to_string).collect();
        if distinct.len() == ana.changes.len() {
            assert_eq!(121 + joined - left, people.len() as i64, "{:?}", ana.changes);
        }
    })
    .await;
}

/// The exact list and the own frames: what stays as in a small conversation.
#[tokio::test]
async fn a_user_learns_of_their_own_join_and_removal_in_a_large_conversation() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = large(host).await;
        let (mut ana, mut zed, mut phone) =
            (host.client("ana").await, host.client("zed").await, host.client("zed").await);
        ana.enter(&room).await;
        let path = format!("{CONVERSATIONS}/{room}");
        let added = json!({"user_id": "zed", "role": "observer"});
        host.rest("ana").post(&format!("{path}/participants"), added).await.expect(201);
        for connection in [&mut zed, &mut phone] {
            let joined = connection.expect("member.joined").await;
            assert_eq!(
                (&joined["user_id"], &joined["role"], &joined["by"]),
                (&json!("zed"), &json!("observer"), &json!("ana"))
            );
        }
        let changes = ana.expect("member.changes").await;
        let person = json!({"user_id": "zed", "role": "observer", "by": "ana"});
        assert_eq!(
            changes,
            json!({
                "conversation_id": room, "participants": 122,
                "joined": {"count": 1, "people": [person]}, "left": {"count": 0, "people": []},
            })
        );
        // The mark of the newcomer is at the head, and they get what follows.
        assert_eq!(zed.enter(&room).await, 1);
        let detail = host.rest("zed").get(&path).await.expect(200);
        assert_eq!(detail["conversation"]["last_read_seq"], 1);
        let body = json!({"content": "hello"});
        host.rest("ana").post(&format!("{path}/messages"), body).await.expect(201);
        assert_eq!(zed.expect_message("hello").await["seq"], 2);
        host.rest("ana").delete(&format!("{path}/participants/zed")).await.expect(204);
        for connection in [&mut zed, &mut phone] {
            let left = connection.expect("member.left").await;
            assert_eq!((&left["user_id"], &left["by"]), (&json!("zed"), &json!("ana")));
        }
        let changes = ana.expect("member.changes").await;
        assert_eq!((&changes["participants"], &changes["left"]["count"]), (&json!(121), &json!(1)));
        // The subscription ended before the next message.
        let body = json!({"content": "without zed"});
        host.rest("ana").post(&format!("{path}/messages"), body).await.expect(201);
        ana.expect_message("hello").await;
        ana.expect_message("without zed").await;
        zed.clear_buffered();
        zed.expect_silence().await;
        assert_eq!(announcements(host, &room).await, 1);
    })
    .await;
}

/// A leave from a large conversation is no message, so a node that lost the bus cannot find it among those.
#[tokio::test]
async fn a_user_who_left_a_large_conversation_unnoticed_gets_no_later_message() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    Host::test_over(services::database().await, redis, Options::default(), async |host| {
        let room = large(host).await;
        let cut_off = host.another_node_with(Options::default().redis_at(proxy.address())).await;
        let (mut ana, mut zed) = (cut_off.client("ana").await, cut_off.client("member-7").await);
        ana.enter(&room).await;
        zed.enter(&room).await;
        proxy.freeze();
        let path = format!("{CONVERSATIONS}/{room}");
        host.rest("member-7").delete(&path).await.expect(204);
        is_announced(host).await;
        let body = json!({"content": "without zed"});
        host.rest("ana").post(&format!("{path}/messages"), body).await.expect(201);
        proxy.cut();
        proxy.heal();
        ana.expect_message("without zed").await;
        zed.clear_buffered();
        zed.expect_silence().await;
    })
    .await;
}
