//! A failover that loses commits: a primary dies with messages that its replica did not have. They cannot be
//! restored, and later messages get their seqs. So every client that saw the lost messages must get a reset;
//! otherwise the members of a conversation disagree forever.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger;
use switchboard_tests::patience::{until, within};
use switchboard_tests::proxy::Proxy;
use switchboard_tests::reference::Reference;
use switchboard_tests::services::{Postgres, Redis};

const USERS: [&str; 4] = ["ana", "bo", "cy", "dee"];
/// Maximum wait after a failover, when every node reconnects on a machine that is busy with other tests.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

/// Two Postgres servers, of which the second one becomes the primary.
struct Servers {
    primary: std::sync::Arc<Postgres>,
    replica: std::sync::Arc<Postgres>,
    /// The replica follows the primary through this proxy.
    replication: Proxy,
    /// The hosts reach the present primary through this proxy.
    to_primary: Proxy,
}

impl Servers {
    async fn start() -> Self {
        let primary = Postgres::start(&["fsync = off"]).await;
        let replication = Proxy::to(primary.address()).await;
        let replica = primary.replica(replication.address()).await;
        let to_primary = Proxy::to(primary.address()).await;
        Self { primary, replica, replication, to_primary }
    }

    /// Cuts the replica off, once it has everything. It gets no later commit, and no COMMIT waits for it.
    async fn leave_the_replica_behind(&self) {
        self.replica.has_caught_up_with(&self.primary).await;
        self.replication.cut();
    }

    /// Kills the primary and promotes the replica. The host and the checks of the test then use the replica.
    async fn fail_over(&self, host: &mut Host) {
        self.to_primary.cut();
        self.primary.kill();
        self.replica.promote().await;
        self.to_primary.redirect(self.replica.address());
        host.database.postgres = self.replica.clone();
        self.to_primary.heal();
        within(RECOVERS_WITHIN, "the host to be ready", async || host.admin.ready().await.then_some(()))
            .await;
    }
}

async fn say(host: &Host, who: &str, room: &str, text: &str) -> Value {
    let path = format!("/api/v1/conversations/{room}/messages");
    host.rest(who).post(&path, json!({"content": text})).await.expect(201)["message"].clone()
}

/// Sends a message, and repeats the request until the host has stored it.
async fn say_after_failover(host: &Host, who: &str, room: &str, text: &str) -> Value {
    let path = format!("/api/v1/conversations/{room}/messages");
    within(RECOVERS_WITHIN, "a message to be stored", async || {
        let answer = host.rest(who).post(&path, json!({"content": text, "client_msg_id": text})).await;
        (answer.status == 201 || answer.status == 200).then(|| answer.json()["message"].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_that_lost_messages_all_clients_agree_with_postgres() {
    const MESSAGES_EACH: usize = 25;
    let servers = Servers::start().await;
    let database = servers.primary.database().await;
    let options = Options::default().without_rate_limits().database_at(servers.to_primary.address());
    Host::test_over(database, Redis::start().await, options, async |host| {
        let room = host.group("lobby", &USERS).await;
        let second = host.another_node().await;
        let nodes = [host.address, second.address];
        let rooms = std::slice::from_ref(&room);
        let clients: Vec<Reference> =
            (0..4).map(|n| Reference::start(vec![nodes[n % 2]], USERS[n], rooms)).collect();
        until("all to be subscribed", async || {
            clients.iter().all(|client| client.seq(&room) >= 1).then_some(())
        })
        .await;
        let acknowledged = || clients.iter().map(Reference::acknowledged).sum::<usize>();
        let talk = async |what: &str| {
            let before = acknowledged();
            for n in 0..MESSAGES_EACH {
                clients.iter().for_each(|client| client.say(&room, &format!("{what} {n}")));
            }
            within(RECOVERS_WITHIN, &format!("{what} to be acknowledged"), async || {
                (acknowledged() == before + MESSAGES_EACH * clients.len()).then_some(())
            })
            .await;
        };
        let all_see = async |seq: u64| {
            within(RECOVERS_WITHIN, &format!("everybody to see {seq}"), async || {
                clients.iter().all(|client| client.seq(&room) >= seq).then_some(())
            })
            .await;
        };
        let head = 1 + (MESSAGES_EACH * clients.len()) as u64;

        talk("kept").await;
        all_see(head).await;
        servers.leave_the_replica_behind().await;
        talk("lost").await;
        let lost_head = head + (MESSAGES_EACH * clients.len()) as u64;
        all_see(lost_head).await;
        let before: Vec<_> = clients.iter().map(|client| client.view().streams[&room].clone()).collect();
        // Redis caches the page under seqs that will be given out again.
        let page = format!("/api/v1/conversations/{room}/messages?limit=10");
        host.rest("ana").get(&page).await.expect(200);

        servers.fail_over(host).await;
        // The clients get the reset although they send nothing.
        within(RECOVERS_WITHIN, "everybody to get a reset", async || {
            clients.iter().all(|client| client.seq(&room) == head).then_some(())
        })
        .await;
        talk("anew").await;
        all_see(lost_head).await;

        let stored = ledger::history(&host.rest("ana"), &room).await;
        assert_eq!(*stored.last_key_value().unwrap().0, lost_head);
        let stored: Vec<(u64, String)> = stored.into_iter().map(|(seq, message)| (seq, message.id)).collect();
        let rows =
            format!("select seq, id::text from app.messages where conversation_id = '{room}' order by seq");
        let rows = host.database.rows(&rows).await;
        let truth: Vec<(u64, String)> =
            rows.iter().map(|row| (row.get::<_, i64>(0) as u64, row.get(1))).collect();
        assert_eq!(stored, truth, "history does not show what Postgres has");
        let shown = |stream: &switchboard_tests::reference::stream::Stream| -> Vec<(u64, String)> {
            let id = |message: &Value| message["id"].as_str().unwrap_or_default().to_owned();
            stream.shown.iter().map(|(seq, message)| (*seq, id(message))).collect()
        };
        for client in &clients {
            let view = client.view();
            let shown = shown(&view.streams[&room]);
            let from = shown[0].0;
            assert_eq!(shown, truth[from as usize - 1..], "a client shows something else");
            assert!(view.ends.is_empty(), "a socket was closed: {:?}", view.ends);
        }
        // The failover lost messages, as the test intends.
        let again = before[0].shown.iter().filter(|(seq, _)| *seq > head).count();
        assert_eq!(again as u64, lost_head - head);
        assert!(shown(&before[0])[head as usize..].iter().all(|of_old| !truth.contains(of_old)));

        // Clients that were away resume from lost positions.
        let stream = &before[0];
        let mut away = host.client("ana").await;
        let subscribed = resume(&mut away, &room, stream.position()).await;
        assert_eq!(subscribed["reset"][&room], json!({"seq": head, "change": 0}), "{subscribed}");
        assert_ne!(subscribed["epoch"], stream.position()["epoch"]);
        for (seq, id) in &truth[head as usize..] {
            let push = away.expect("message.new").await;
            assert_eq!(
                (push["message"]["seq"].as_u64(), push["message"]["id"].as_str()),
                (Some(*seq), Some(&**id))
            );
        }
        // A position at or below the common point is not reset.
        let mut below = stream.position();
        below["seq"] = json!(head - 1);
        let subscribed = resume(&mut away, &room, below).await;
        assert_eq!(subscribed.get("reset"), None, "{subscribed}");
        // A position of an unknown epoch is reset to zero.
        let unknown = json!({"seq": 7, "change": 0, "epoch": "00000000-0000-7000-8000-000000000000"});
        let subscribed = resume(&mut away, &room, unknown).await;
        assert_eq!(subscribed["reset"][&room], json!({"seq": 0, "change": 0}), "{subscribed}");
        // A client without epochs, above the head, gets a `resync`.
        let mut old = host.client("bo").await;
        let subscribed = resume(&mut old, &room, json!(lost_head + 5)).await;
        assert_eq!(subscribed.get("reset"), None, "{subscribed}");
        assert_eq!(old.expect("resync").await, json!({"conversation_ids": [room]}));
    })
    .await;
}

async fn resume(client: &mut Client, room: &str, position: Value) -> Value {
    let reply =
        client.request("subscribe", json!({"conversation_ids": [room], "positions": {room: position}})).await;
    client.clear_buffered();
    reply.expect("subscribed")
}

/// A failover that loses an edit. A later edit gets the same change number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_edits_are_undone_and_their_numbers_are_reused() {
    let servers = Servers::start().await;
    let database = servers.primary.database().await;
    let options = Options::default().without_rate_limits().database_at(servers.to_primary.address());
    Host::test_over(database, Redis::start().await, options, async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let mut bo = host.client("bo").await;
        bo.enter(&room).await;
        let first = say(host, "ana", &room, "first").await;
        let second = say(host, "ana", &room, "second").await;
        bo.expect_message("first").await;
        bo.expect_message("second").await;
        servers.leave_the_replica_behind().await;
        let edit = |message: &Value| {
            format!("/api/v1/conversations/{room}/messages/{}", message["id"].as_str().unwrap_or_default())
        };
        host.rest("ana").put(&edit(&first), json!({"content": "lost"})).await.expect(200);
        assert_eq!(bo.expect("message.edited").await["change"], 1);

        servers.fail_over(host).await;
        let resync = bo.expect("resync").await;
        assert_eq!(resync["reset"][&room], json!({"seq": 3, "change": 0}), "{resync}");
        within(RECOVERS_WITHIN, "an edit", async || {
            let answer = host.rest("ana").put(&edit(&second), json!({"content": "kept"})).await;
            (answer.status == 200).then_some(())
        })
        .await;
        let edited = bo.expect("message.edited").await;
        assert_eq!((&edited["change"], &edited["message"]["content"]), (&json!(1), &json!("kept")));
        let third = say_after_failover(host, "ana", &room, "third").await;
        assert_eq!(bo.expect_message("third").await["id"], third["id"]);
    })
    .await;
}
