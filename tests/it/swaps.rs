//! Releases under load: no socket closes, no message is lost, repeated or reordered, and no request fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger::{self, Audit};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;
use switchboard_tests::rest::Rest;

const ROOMS: usize = 20;
const SOCKETS_A_ROOM: usize = 10;
const SWAPS: usize = 50;
/// Number of messages that every release must handle before it is replaced.
const MESSAGES_A_SWAP: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sockets_talk_through_fifty_swaps() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let mut rooms = Vec::new();
        for room in 0..ROOMS {
            let users: Vec<_> = (0..SOCKETS_A_ROOM).map(|n| format!("user-{room}-{n}")).collect();
            let users: Vec<_> = users.iter().map(String::as_str).collect();
            rooms.push(host.group(&format!("room {room}"), &users).await);
        }
        let mut crowd = Vec::new();
        for (n, room) in rooms.iter().enumerate() {
            for member in 0..SOCKETS_A_ROOM {
                let plan = Plan::talker(format!("user-{n}-{member}"), room, Duration::from_millis(150));
                crowd.push(Chatter::start(host.address, plan).await);
            }
        }
        let acknowledged = |crowd: &[Chatter]| crowd.iter().map(Chatter::acknowledged).sum::<usize>();
        let requests = Requests::begin(host.rest("user-0-0"), &rooms[0]);

        let built = [Release::built("send-message"), Release::built("outbox-relay")];
        let names = ["send-message", "outbox-relay"];
        for swap in 0..SWAPS {
            let before = (acknowledged(&crowd), requests.done());
            let release = built[swap % 2].variant(swap);
            host.admin.release(&release).await;
            assert_eq!(host.current(names[swap % 2]).await, release.digest(), "swap {swap}");
            until(format!("traffic on the release of swap {swap}"), async || {
                (acknowledged(&crowd) >= before.0 + MESSAGES_A_SWAP && requests.done() > before.1).then_some(())
            })
            .await;
        }

        let (requests, failed) = requests.end().await;
        for chatter in &mut crowd {
            chatter.stop_sending().await;
        }
        let mut histories = BTreeMap::new();
        for (n, room) in rooms.iter().enumerate() {
            let history = ledger::history(&host.rest(&format!("user-{n}-0")), room).await;
            let head = *history.last_key_value().expect("a room with messages").0;
            for chatter in &crowd[n * SOCKETS_A_ROOM..(n + 1) * SOCKETS_A_ROOM] {
                chatter.expect_up_to(room, head).await;
            }
            histories.insert(room.clone(), history);
        }
        let records: Vec<_> = crowd.iter().map(Chatter::record).collect();
        let audit = Audit::of(&histories, &records);
        println!(
            "{SWAPS} swaps, {} sockets: {} messages acknowledged, {} deliveries of {} owed, {requests} REST requests; \
             {} disconnects, {} refusals, {} duplicates, {} reordered, {} lost, {} failed requests",
            crowd.len(),
            audit.acknowledged,
            audit.delivered,
            audit.owed,
            audit.disconnects.len(),
            audit.refusals.len(),
            audit.duplicates.len(),
            audit.reordered.len(),
            audit.undelivered.len() + audit.acknowledged_lost.len(),
            failed.len(),
        );
        audit.expect_untouched();
        assert!(failed.is_empty(), "failed requests: {failed:?}");
        // The numbers of sent and stored messages are equal: by frame, by REST, and the first system message.
        let stored: usize = histories.values().map(BTreeMap::len).sum();
        assert_eq!(stored, audit.acknowledged + requests / 2 + ROOMS);
        drop(crowd);
    })
    .await;
}

/// Sends requests one after another until it is stopped: a message, then a page of history.
struct Requests {
    done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Requests {
    fn begin(member: Rest, room: &str) -> Self {
        let path = format!("/api/v1/conversations/{room}/messages");
        let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (done, stop) = (done.clone(), stop.clone());
            async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = done.load(Ordering::Relaxed);
                    let sent = member.post(&path, json!({"content": format!("by REST {number}")})).await;
                    let read = member.get(&format!("{path}?limit=5")).await;
                    for (answer, status) in [(sent, 201), (read, 200)] {
                        if answer.status != status {
                            failed.push(answer.to_string());
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
                failed
            }
        });
        Self { done, stop, task }
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// The number of requests, and the failed ones.
    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.task.await.expect("the requests end");
        (self.done.load(Ordering::Relaxed), failed)
    }
}

/// The count above must be able to differ from zero: a release that cuts off its calls affects the callers in
/// it, and no other client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_drops_calls_is_reported() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let mut crowd = Vec::new();
        for user in ["ana", "bo"] {
            crowd.push(Chatter::start(host.address, Plan::talker(user, &room, Duration::ZERO)).await);
        }
        let acknowledged = |crowd: &[Chatter]| crowd.iter().map(Chatter::acknowledged).sum::<usize>();
        let refused = |crowd: &[Chatter]| crowd.iter().map(|one| one.record().refusals.len()).sum::<usize>();
        until("load", async || (acknowledged(&crowd) > 20).then_some(())).await;
        let hasty = Release::built("send-message").with_manifest(|manifest| {
            manifest["limits"]["deadline_ms"] = 1.into();
        });
        host.admin.release(&hasty).await;
        until("calls to be cut off", async || (refused(&crowd) > 0).then_some(())).await;
        let back = host.admin.rollback("send-message").await;
        assert_eq!(back.status, 200, "{back}");
        for chatter in &mut crowd {
            chatter.stop_sending().await;
        }
        let history = ledger::history(&host.rest("ana"), &room).await;
        for chatter in &crowd {
            chatter.expect_up_to(&room, *history.last_key_value().expect("messages").0).await;
        }
        let records: Vec<_> = crowd.iter().map(Chatter::record).collect();
        let audit = Audit::of(&[(room, history)].into(), &records);
        audit.expect_kept();
        assert!(!audit.refusals.is_empty(), "dropped calls were not counted");
        drop(crowd);
    })
    .await;
}
