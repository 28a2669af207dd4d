//! Lists of conversations: order, pages, unread counts, and lists without Redis. `flushed` tests losses of
//! Redis during writes.

use std::fmt::Debug;
use std::time::Duration;

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::rest::Rest;

pub(crate) const CONVERSATIONS: &str = "/api/v1/conversations";
/// A list may be one second behind; the rest of the wait is for a machine that is busy with other tests.
const LAG: Duration = Duration::from_secs(5);

/// An entry of a list, and the same from Postgres.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub id: String,
    pub last_seq: i64,
    last: String,
    pub last_read_seq: i64,
    unread: i64,
}

/// The whole list, page by page.
pub(crate) async fn list(rest: &Rest, limit: usize) -> Vec<Line> {
    let (mut lines, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = rest.get(&format!("{CONVERSATIONS}?limit={limit}{cursor}")).await.expect(200);
        let entries = page["conversations"].as_array().expect("a list");
        assert!(entries.len() <= limit);
        lines.extend(entries.iter().map(|entry| Line {
            id: entry["id"].as_str().expect("an id").to_owned(),
            last_seq: entry["last_message"]["seq"].as_i64().expect("a seq"),
            last: entry["last_message"]["content"].as_str().expect("a text").to_owned(),
            last_read_seq: entry["last_read_seq"].as_i64().expect("a mark"),
            unread: entry["unread"].as_i64().expect("a count"),
        }));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return lines,
        }
        assert_eq!(entries.len(), limit, "only the last page is short");
    }
}

/// The same from the tables, by the simplest statement.
pub(crate) async fn truth(host: &Host, user: &str) -> Vec<Line> {
    let statement = format!(
        "with mine as (
           select p.conversation_id, p.hidden_seq,
             (select max(seq) from app.messages m where m.conversation_id = p.conversation_id) as head,
             greatest(p.last_read_seq, (select max(seq) from app.messages m
               where m.conversation_id = p.conversation_id and m.sender_id = p.user_id and m.type = 'text')) as mark
           from app.participants p join app.conversations c on c.id = p.conversation_id
           where p.user_id = '{user}' and p.left_at is null and c.deleted_at is null)
         select mine.conversation_id::text, head, mark,
           (select count(*) from app.messages m where m.conversation_id = mine.conversation_id and m.seq > mark
             and m.type = 'text' and m.sender_id <> '{user}' and m.deleted_at is null),
           case when last.deleted_at is null then left(last.content, 100) else '' end
         from mine join app.messages last on last.conversation_id = mine.conversation_id and last.seq = mine.head
         where hidden_seq is null or head > hidden_seq
         order by last.id desc"
    );
    let rows = host.database.connect().await.rows(&statement).await;
    let line = |row: &tokio_postgres::Row| Line {
        id: row.get(0),
        last_seq: row.get(1),
        last_read_seq: row.get(2),
        unread: row.get(3),
        last: row.get(4),
    };
    rows.iter().map(line).collect()
}

/// Waits until a person's list equals the data in Postgres.
pub(crate) async fn agrees(host: &Host, user: &str) {
    let rest = host.rest(user);
    let what = format!("the list of {user}");
    settles(&what, async || list(&rest, 7).await, async || truth(host, user).await).await;
}

/// Waits until the shown data equal the stored data. On a failure it shows the difference.
pub(crate) async fn settles<T: PartialEq + Debug>(
    what: &str,
    show: impl AsyncFn() -> T,
    store: impl AsyncFn() -> T,
) {
    let (mut shown, mut stored) = (show().await, store().await);
    let agreed = async {
        while shown != stored {
            tokio::time::sleep(Duration::from_millis(20)).await;
            (shown, stored) = (show().await, store().await);
        }
    };
    if tokio::time::timeout(LAG, agreed).await.is_err() {
        assert_eq!(shown, stored, "{what} beside Postgres");
    }
}

pub(crate) async fn redis(host: &Host) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(host.redis.url_at(None)).expect("the test's Redis");
    client.get_multiplexed_async_connection().await.expect("the test's Redis")
}

async fn send(rest: &Rest, room: &str, content: &str) {
    rest.post(&format!("{CONVERSATIONS}/{room}/messages"), json!({"content": content})).await.expect(201);
}

#[tokio::test]
async fn pages_follow_each_other_and_a_new_message_moves_a_conversation_to_the_front() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let mut rooms = Vec::new();
        for n in 0..25 {
            rooms.push(host.group(&format!("room {n}"), &["ana", "bo"]).await);
        }
        agrees(host, "bo").await;
        let first = host.rest("bo").get(CONVERSATIONS).await.expect(200);
        assert_eq!(first["conversations"].as_array().unwrap().len(), 20);
        assert_eq!(first["conversations"][0]["id"], rooms[24]);
        let cursor = first["next_cursor"].as_str().expect("a second page");
        let second = host.rest("bo").get(&format!("{CONVERSATIONS}?cursor={cursor}")).await.expect(200);
        assert_eq!(second["conversations"].as_array().unwrap().len(), 5);
        assert_eq!(second["next_cursor"], Value::Null);

        send(&host.rest("ana"), &rooms[3], "up").await;
        until("the moved one to be first", async || {
            let list = host.rest("bo").get(&format!("{CONVERSATIONS}?limit=1")).await.expect(200);
            let entry = &list["conversations"][0];
            (entry["id"] == rooms[3] && entry["unread"] == 1).then_some(())
        })
        .await;
        agrees(host, "bo").await;
        agrees(host, "ana").await;
    })
    .await;
}

#[tokio::test]
async fn an_entry_has_the_conversation_and_the_users_own_fields() {
    Host::test(Options::default(), async |host| {
        let direct = json!({"type": "direct", "members": ["bo"]});
        let made = host.rest("ana").post(CONVERSATIONS, direct).await.expect(201);
        let room = made["conversation"]["id"].as_str().unwrap();
        let long = "đ".repeat(150);
        // Both users have written, so they see each other.
        send(&host.rest("bo"), room, "hi").await;
        send(&host.rest("ana"), room, &long).await;

        let shown = async |user: &str, status: &str| {
            until(format!("{user} to be shown as {status}"), async || {
                let list = host.rest("ana").get(CONVERSATIONS).await.expect(200);
                let entry = list["conversations"][0].clone();
                (entry["presence"]["status"] == status && entry["last_message"]["seq"] == 3).then_some(entry)
            })
            .await
        };
        let entry = shown("bo", "offline").await;
        assert_eq!((&entry["type"], &entry["my_role"]), (&json!("direct"), &json!("member")));
        assert_eq!(entry["last_message"]["content"], "đ".repeat(100));
        assert_eq!(entry["last_message"]["sender_id"], "ana");
        assert_eq!((&entry["unread"], &entry["last_read_seq"]), (&json!(0), &json!(3)));
        // A user who never connected has no profile.
        assert_eq!(entry["peer"], json!({"user_id": "bo", "user": null}));
        assert_eq!(entry["presence"]["user_id"], "bo");

        let bo = host.client("bo").await;
        shown("bo", "online").await;
        until("bo to be in the directory", async || {
            let list = host.rest("ana").get(CONVERSATIONS).await.expect(200);
            (list["conversations"][0]["peer"]["user"]["user_id"] == "bo").then_some(())
        })
        .await;
        drop(bo);
        let entry = shown("bo", "offline").await;
        assert!(entry["presence"]["last_seen"].is_string(), "{entry}");

        let group = host.group("lobby", &["ana", "bo"]).await;
        agrees(host, "ana").await;
        let list = host.rest("ana").get(CONVERSATIONS).await.expect(200);
        let entry = &list["conversations"][0];
        assert_eq!((&entry["id"], &entry["name"]), (&json!(group), &json!("lobby")));
        assert!(entry["peer"].is_null() && entry["presence"].is_null());
    })
    .await;
}

#[tokio::test]
async fn an_invalid_request_names_its_field() {
    Host::test(Options::default(), async |host| {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=-1", "limit"),
            ("limit=x", "limit"),
            ("limit=1.5", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("cursor=", "cursor"),
            ("cursor=x", "cursor"),
            ("cursor=%00", "cursor"),
            ("cursor=1%27%20or%201=1", "cursor"),
        ] {
            host.rest("ana").get(&format!("{CONVERSATIONS}?{query}")).await.expect_invalid(field);
        }
        let none = host.rest("ana").get(CONVERSATIONS).await.expect(200);
        assert_eq!(none, json!({"conversations": [], "next_cursor": null}));
        host.rest("ana").anonymous().get(CONVERSATIONS).await.expect_problem(401, "unauthorized");
        // Routes of operators do not exist for clients, whatever their token contains.
        host.rest("ana").post("/admin/v1/rebuild", json!({})).await.expect_problem(404, "not_found");
    })
    .await;
}

#[tokio::test]
async fn a_direct_conversation_that_was_left_is_hidden_until_the_next_message() {
    Host::test(Options::default(), async |host| {
        let direct = json!({"type": "direct", "members": ["bo"]});
        let made = host.rest("ana").post(CONVERSATIONS, direct).await.expect(201);
        let room = made["conversation"]["id"].as_str().unwrap().to_owned();
        agrees(host, "ana").await;
        assert_eq!(list(&host.rest("ana"), 20).await.len(), 1);
        host.rest("ana").delete(&format!("{CONVERSATIONS}/{room}")).await.expect(204);
        until("it to be hidden", async || list(&host.rest("ana"), 20).await.is_empty().then_some(())).await;
        assert_eq!(list(&host.rest("bo"), 20).await.len(), 1);
        send(&host.rest("bo"), &room, "still there?").await;
        until("it to be in sight", async || (list(&host.rest("ana"), 20).await.len() == 1).then_some(()))
            .await;
        agrees(host, "ana").await;
    })
    .await;
}

#[tokio::test]
async fn older_entries_of_a_list_come_from_postgres() {
    const ROOMS: usize = 520;
    Host::test(Options::default(), async |host| {
        // Insert conversations as if they had grown over the last days: with ids of their time, and without
        // events.
        host.database
            .connect()
            .await
            .run(&format!(
                "create temp table rooms as select n, (lpad(to_hex((extract(epoch from now() - (600 - n) * interval \
                   '1 minute') * 1000)::bigint), 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid as id \
                   from generate_series(1, {ROOMS}) as n;
                 insert into app.conversations (id, kind, name, created_by) select id, 'group', 'n' || n, 'ana' from rooms;
                 insert into app.participants (conversation_id, user_id, role) select id, 'ana', 'owner' from rooms;
                 insert into app.participants (conversation_id, user_id, role) select id, 'bo', 'member' from rooms;
                 insert into app.messages (id, conversation_id, seq, sender_id, type, content, created_at) \
                   select id, id, 1, 'ana', 'text', 'first', now() from rooms"
            ))
            .await;
        let rest = host.rest("bo");
        for limit in [100, 7] {
            let all = list(&rest, limit).await;
            assert_eq!(all.len(), ROOMS);
            assert_eq!(all, truth(host, "bo").await);
        }
        let kept: i64 = redis::cmd("ZCARD").arg(host.redis_key("list:bo").await).query_async(&mut redis(host).await).await.unwrap();
        assert_eq!(kept, 501, "500 and the word that there are more");
        // The oldest conversation, which Redis does not keep, gets a message.
        let oldest = truth(host, "bo").await.last().unwrap().id.clone();
        send(&host.rest("ana"), &oldest, "after all").await;
        until("the oldest to be first", async || {
            let first = rest.get(&format!("{CONVERSATIONS}?limit=1")).await.expect(200);
            (first["conversations"][0]["id"] == *oldest).then_some(())
        })
        .await;
        agrees(host, "bo").await;
    })
    .await;
}

#[tokio::test]
async fn without_redis_the_list_comes_from_postgres() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        send(&host.rest("ana"), &room, "before").await;
        agrees(host, "bo").await;
        host.redis.kill();
        send(&host.rest("ana"), &room, "meanwhile").await;
        // Data that are read from Postgres are never behind.
        assert_eq!(list(&host.rest("bo"), 20).await, truth(host, "bo").await);
        host.redis.start_again().await;
        agrees(host, "bo").await;
    })
    .await;
}
