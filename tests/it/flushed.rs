//! Redis loses everything, again and again, while people write, edit, delete, mark, join and leave.
//! Afterwards all answers of REST and `subscribe` equal the data in Postgres.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::within;
use switchboard_tests::rest::{Answer, Rest};

use crate::lists::{CONVERSATIONS, Line, agrees, list, redis, settles, truth};

const PEOPLE: [&str; 4] = ["ana", "bo", "cy", "dee"];
/// Users who only read.
const OTHERS: [&str; 2] = ["eve", "zoe"];
const FLUSHES: usize = 8;
/// Number of writes between two flushes.
const WRITTEN_BETWEEN: i64 = 40;
/// The conversations of one `subscribe`.
const SUBSCRIBED_AT_ONCE: usize = 20;

/// A message, from the history or from Postgres.
#[derive(Debug, PartialEq)]
struct Shown {
    seq: i64,
    id: String,
    sender: String,
    kind: String,
    content: String,
    deleted: bool,
    edited: bool,
    change: Option<i64>,
}

/// A user who does all possible actions, one after the other.
struct Life {
    user: &'static str,
    rest: Rest,
    client: Client,
    rooms: Vec<String>,
    /// Room, id and seq of sent messages.
    sent: Vec<(String, String, u64)>,
}

impl Life {
    async fn go_on(mut self, stop: Arc<AtomicBool>) {
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            self.say(n).await;
            match n % 10 {
                0 => drop(self.rest.get(&format!("{CONVERSATIONS}?limit=5")).await.expect(200)),
                1 => self.make_a_group(n).await,
                2 => drop(self.rest.post(&format!("{CONVERSATIONS}/news/join"), json!({})).await.expect(200)),
                3 => drop(self.rest.delete(&format!("{CONVERSATIONS}/news")).await),
                4 | 5 => self.edit(n).await,
                6 => self.delete(n).await,
                7 | 8 => self.read(n).await,
                _ => self.confirm().await,
            }
            n += 1;
        }
    }

    /// A user who is not in the room gets a 404, which does not matter here.
    async fn say(&mut self, n: usize) {
        let room = self.rooms[(n * 7 + self.user.len()) % self.rooms.len()].clone();
        let content = json!({"content": format!("{} says {n}", self.user)});
        let answer = self.rest.post(&format!("{CONVERSATIONS}/{room}/messages"), content).await;
        if is_done(&answer, 201) {
            let message = &answer.json()["message"];
            let id = message["id"].as_str().expect("an id").to_owned();
            self.sent.push((room, id, message["seq"].as_u64().expect("a seq")));
        }
    }

    async fn make_a_group(&self, n: usize) {
        let name = format!("of {} {n}", self.user);
        let body = json!({"type": "group", "name": name, "members": ["ana", "bo"]});
        self.rest.post(CONVERSATIONS, body).await.expect(201);
    }

    /// A message from some time ago, or the last one.
    fn earlier(&self, n: usize) -> Option<&(String, String, u64)> {
        let back = [0, 1, 5, 20][n / 10 % 4];
        self.sent.iter().rev().nth(back).or(self.sent.last())
    }

    async fn edit(&self, n: usize) {
        let Some((room, id, _)) = self.earlier(n) else { return };
        let body = json!({"content": format!("{} means {n}", self.user)});
        is_done(&self.rest.put(&format!("{CONVERSATIONS}/{room}/messages/{id}"), body).await, 200);
    }

    async fn delete(&self, n: usize) {
        let Some((room, id, _)) = self.earlier(n) else { return };
        is_done(&self.rest.delete(&format!("{CONVERSATIONS}/{room}/messages/{id}")).await, 204);
    }

    async fn read(&self, n: usize) {
        let room = &self.rooms[n * 3 % self.rooms.len()];
        let seq = self.sent.last().map_or(1, |(_, _, seq)| *seq);
        is_done(
            &self.rest.post(&format!("{CONVERSATIONS}/{room}/read"), json!({"up_to_seq": seq})).await,
            200,
        );
    }

    /// Waits until every message up to the last has arrived, in every room of the user.
    async fn confirm(&mut self) {
        let seq = self.sent.last().map_or(1, |(_, _, seq)| *seq);
        let positions: BTreeMap<_, _> = self.rooms.iter().map(|room| (room, seq)).collect();
        self.client.write(json!({"type": "delivered", "payload": {"positions": positions}})).await;
        self.client.expect_alive().await;
        self.client.clear_buffered();
    }
}

/// Whether it succeeded. The user may have left, or the message may be deleted.
fn is_done(answer: &Answer, done: u16) -> bool {
    assert!([done, 403, 404, 409].contains(&answer.status), "{answer}");
    answer.status == done
}

/// The number of writes of each kind.
async fn written(host: &Host) -> [i64; 5] {
    let row = host
        .database
        .rows(
            "select (select count(*) from app.messages),
               (select count(*) from app.message_changes where kind = 'edit'),
               (select count(*) from app.message_changes where kind = 'delete'),
               (select count(*) from app.marks where kind = 'read'),
               (select count(*) from app.marks as mark where kind = 'delivered' and not exists (
                 select from app.marks as read where read.kind = 'read' and read.conversation_id = mark.conversation_id
                   and read.user_id = mark.user_id and read.up_to_seq = mark.up_to_seq))",
        )
        .await
        .remove(0);
    [0_usize, 1, 2, 3, 4].map(|column| row.get(column))
}

async fn begin(host: &Host, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<()>> {
    let mut rooms = Vec::new();
    for n in 0..6 {
        rooms.push(host.group(&format!("room {n}"), &[PEOPLE[n % 4], PEOPLE[(n + 1) % 4]]).await);
    }
    let news = json!({"type": "channel", "name": "news", "slug": "news", "members": ["eve"]});
    let news = host.rest("zoe").post(CONVERSATIONS, news).await.expect(201);
    rooms.push(news["conversation"]["id"].as_str().unwrap().to_owned());
    let mut lives = Vec::new();
    for user in PEOPLE {
        let (rest, client) = (host.rest(user), host.client(user).await);
        let life = Life { user, rest, client, rooms: rooms.clone(), sent: Vec::new() };
        lives.push(tokio::spawn(life.go_on(stop.clone())));
    }
    lives
}

#[tokio::test]
async fn responses_stay_right_when_redis_loses_everything_under_load() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let stop = Arc::new(AtomicBool::new(false));
        let lives = begin(host, &stop).await;
        let mut redis = redis(host).await;
        for flush in 1..=FLUSHES {
            let before: i64 = written(host).await.iter().sum();
            within(Duration::from_secs(60), "people to go on", async || {
                (written(host).await.iter().sum::<i64>() > before + WRITTEN_BETWEEN).then_some(())
            })
            .await;
            let () = redis::cmd("FLUSHALL")
                .query_async(&mut redis)
                .await
                .unwrap_or_else(|e| panic!("{flush}: {e}"));
        }
        stop.store(true, Ordering::Relaxed);
        for life in lives {
            life.await.expect("a life without an unexpected answer");
        }
        let [messages, others @ ..] = written(host).await;
        println!("{messages} messages; edits, deletions, reads, deliveries: {others:?}");
        assert!(others.iter().all(|many| *many > 4), "too little of something went on: {others:?}");

        for user in PEOPLE.into_iter().chain(OTHERS) {
            agrees(host, user).await;
            for line in truth(host, user).await {
                is_shown(host, user, &line).await;
            }
            heads_are_announced(host, user).await;
        }
        made_anew(host, &mut redis).await;
        for user in PEOPLE {
            reads_all(host, user).await;
        }
    })
    .await;
}

/// One conversation of a user: its detail, and every page of its history.
async fn is_shown(host: &Host, user: &str, line: &Line) {
    let (rest, room) = (host.rest(user), &line.id);
    let detail = rest.get(&format!("{CONVERSATIONS}/{room}")).await.expect(200);
    assert_eq!(detail["conversation"]["last_read_seq"], line.last_read_seq, "{user}: {detail}");
    let what = format!("the history of {room} for {user}");
    settles(&what, async || history(&rest, room).await, async || messages(host, room).await).await;
}

/// The pages from the newest back to the first.
async fn history(rest: &Rest, room: &str) -> Vec<Shown> {
    let (mut pages, mut before) = (Vec::new(), String::new());
    loop {
        let page = rest.get(&format!("{CONVERSATIONS}/{room}/messages?limit=30{before}")).await.expect(200);
        let messages = page["messages"].as_array().expect("messages");
        pages.push(messages.iter().map(shown).collect::<Vec<_>>());
        if page["has_more"] != true {
            return pages.into_iter().rev().flatten().collect();
        }
        before = format!("&before_seq={}", messages[0]["seq"]);
    }
}

fn shown(message: &Value) -> Shown {
    let text = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("{name}: {message}")).to_owned();
    Shown {
        seq: message["seq"].as_i64().expect("a seq"),
        id: text("id"),
        sender: text("sender_id"),
        kind: text("type"),
        content: text("content"),
        deleted: message["deleted"] == true,
        edited: message["edited_at"].is_string(),
        change: message["change"].as_i64(),
    }
}

/// The same from the tables, with the contents of deleted messages removed.
async fn messages(host: &Host, room: &str) -> Vec<Shown> {
    let statement = format!(
        "select seq, id::text, sender_id, type, case when deleted_at is null then content else '' end,
           deleted_at is not null, edited_at is not null,
           (select max(changed.change) from app.message_changes as changed where changed.message_id = message.id)
         from app.messages as message where conversation_id = '{room}' order by seq"
    );
    let row = |row: &tokio_postgres::Row| Shown {
        seq: row.get(0),
        id: row.get(1),
        sender: row.get(2),
        kind: row.get(3),
        content: row.get(4),
        deleted: row.get(5),
        edited: row.get(6),
        change: row.get(7),
    };
    host.database.rows(&statement).await.iter().map(row).collect()
}

/// Checks the heads of all conversations in `subscribed`.
async fn heads_are_announced(host: &Host, user: &str) {
    let mut client = host.client(user).await;
    for lines in truth(host, user).await.chunks(SUBSCRIBED_AT_ONCE) {
        let ids: Vec<_> = lines.iter().map(|line| &line.id).collect();
        let reply = client.request("subscribe", json!({"conversation_ids": ids})).await.expect("subscribed");
        for line in lines {
            let changes = format!(
                "select coalesce(max(change), 0) from app.message_changes where conversation_id = '{}'",
                line.id
            );
            let changes: i64 = host.database.rows(&changes).await[0].get(0);
            let stand = (&reply["heads"][&line.id], &reply["changes"][&line.id]);
            assert_eq!(stand, (&json!(line.last_seq), &json!(changes)), "{user} in {}: {reply}", line.id);
        }
    }
}

/// A mark beyond the head counts as the head, and nothing after it is unread.
async fn reads_all(host: &Host, user: &str) {
    let rest = host.rest(user);
    for line in truth(host, user).await {
        let mark = json!({"up_to_seq": i64::MAX});
        let answer = rest.post(&format!("{CONVERSATIONS}/{}/read", line.id), mark).await.expect(200);
        let stand = (&answer["last_read_seq"], &answer["unread"]);
        assert_eq!(stand, (&json!(line.last_seq), &json!(0)), "{user} in {}", line.id);
    }
    agrees(host, user).await;
}

/// A rebuild gives the same model again, with its errors corrected.
async fn made_anew(host: &Host, redis: &mut redis::aio::MultiplexedConnection) {
    let before = lists(host).await;
    let room = before["ana"][0].id.clone();
    let wrong = ["head", "1", "activity", "00000000-0000-7000-8000-000000000000"];
    let () = redis::cmd("HSET")
        .arg(host.redis_key(&format!("meta:{room}")).await)
        .arg(&wrong)
        .query_async(redis)
        .await
        .unwrap();
    let gone = before["bo"][0].id.as_str();
    let () =
        redis::cmd("ZREM").arg(host.redis_key("list:bo").await).arg(gone).query_async(redis).await.unwrap();
    assert_ne!(lists(host).await, before);
    // Keys that no step writes again are deleted; keys outside the read model stay.
    let mut wrong_keys = Vec::new();
    for name in
        ["counts:x", "unread:x", "page:x:y", "participants:x", "profile:x", "notifications:x", "search:x:y"]
    {
        wrong_keys.push(host.redis_key(name).await);
    }
    let kept = host.redis_key("rate:send:x").await;
    for key in wrong_keys.iter().chain([&kept]) {
        let () = redis::cmd("SET").arg(key).arg("wrong").query_async(redis).await.unwrap();
    }
    let rebuilt = host.command(&["rebuild", "--json"]).await;
    assert!(rebuilt["done"].as_u64().is_some_and(|done| done > 10), "{rebuilt}");
    assert_eq!(lists(host).await, before);
    let wrong: i64 = redis::cmd("EXISTS").arg(&wrong_keys).query_async(redis).await.unwrap();
    let kept: i64 = redis::cmd("EXISTS").arg(&kept).query_async(redis).await.unwrap();
    assert_eq!((wrong, kept), (0, 1));
    let list: i64 =
        redis::cmd("EXISTS").arg(host.redis_key("list:bo").await).query_async(redis).await.unwrap();
    assert_eq!(list, 1, "the rebuilt list is in Redis, not only read around it");
}

async fn lists(host: &Host) -> BTreeMap<&'static str, Vec<Line>> {
    let mut all = BTreeMap::new();
    for user in PEOPLE.into_iter().chain(OTHERS) {
        all.insert(user, list(&host.rest(user), 50).await);
    }
    all
}
