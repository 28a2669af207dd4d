//! One connection with many frames in flight: they share commits, and nothing changes its order.

use std::collections::VecDeque;

use serde_json::{Value, json};
use switchboard_tests::checker::Books;
use switchboard_tests::client::Client;
use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger;
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

const IN_FLIGHT: usize = 64;
const FRAMES: usize = 2_000;

/// The reply that a frame must get.
enum Wanted {
    /// The next message of the room.
    Stored,
    /// The message of the frame before, whose key this frame repeats.
    Duplicate,
    /// An error of this frame alone.
    Invalid,
    /// The reply to a frame of another type.
    Pong,
}

/// The frame with this number, and what its reply must be.
fn frame(number: usize, room: &str) -> (Value, Wanted) {
    // A key belongs to one conversation of its user.
    let key = |number: usize| format!("key-{number}-{room}");
    let send = |content: &str, key: &str| {
        let payload = json!({"conversation_id": room, "content": content, "client_msg_id": key});
        json!({"type": "message.send", "id": number, "payload": payload})
    };
    match number % 100 {
        37 => (send("", &key(number)), Wanted::Invalid),
        53 => (send(&format!("message {}", number - 1), &key(number - 1)), Wanted::Duplicate),
        77 => (json!({"type": "ping", "id": number}), Wanted::Pong),
        _ => (send(&format!("message {number}"), &key(number)), Wanted::Stored),
    }
}

/// Reads frames until the reply to the frame with this number comes. No reply to a later frame may come
/// before it.
async fn reply(ana: &mut Client, number: usize) -> Value {
    let reply = ana.expect_frame("a reply", |frame| frame["id"].is_u64()).await;
    assert_eq!(reply["id"], number, "the replies have the order of the frames: {reply}");
    reply
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_frames_in_flight_keep_their_order_through_swaps() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        // He reads all the time: a slow reader would get `resync`.
        let pushes = tokio::spawn(async move {
            let mut pushes = Vec::new();
            while pushes.len() < FRAMES * 97 / 100 {
                let push = bo.expect_message_where(|message| message["type"] == "text").await;
                pushes.push((push["seq"].as_u64().expect("a seq"), push["content"].clone()));
            }
            pushes
        });
        let built = Release::built("send-message");
        let mut pending = VecDeque::new();
        let (mut stored, mut last) = (Vec::new(), Value::Null);
        for number in 0..FRAMES {
            if number % 250 == 249 {
                host.admin.release(&built.variant(number)).await;
            }
            let (frame, wanted) = frame(number, &room);
            ana.write(frame).await;
            pending.push_back((number, wanted));
            while pending.len() == IN_FLIGHT || number == FRAMES - 1 && !pending.is_empty() {
                let (number, wanted) = pending.pop_front().expect("a frame in flight");
                let reply = reply(&mut ana, number).await;
                let message = &reply["payload"]["message"];
                match wanted {
                    Wanted::Stored => {
                        assert_eq!(reply["payload"]["duplicate"], false, "{reply}");
                        assert_eq!(message["content"], format!("message {number}"));
                        let seq = message["seq"].as_u64().expect("a seq");
                        if let Some((before, _)) = stored.last() {
                            assert_eq!(seq, before + 1, "seq follows the order of the frames");
                        }
                        stored.push((seq, message["content"].clone()));
                        last = message["id"].clone();
                    }
                    Wanted::Duplicate => {
                        assert_eq!((&reply["payload"]["duplicate"], &message["id"]), (&json!(true), &last));
                    }
                    Wanted::Invalid => assert_eq!(reply["payload"]["code"], "invalid", "{reply}"),
                    Wanted::Pong => assert_eq!(reply["type"], "pong"),
                }
            }
        }
        assert_eq!(stored.len(), FRAMES * 97 / 100);
        assert_eq!(pushes.await.expect("a reader"), stored, "the other participant gets them in their order");
        // They shared commits. How many depends on the machine: a batch has the calls that got as far as
        // their write while the batch before it was committed.
        let batches =
            host.admin.metric("switchboard_postgres_collected_calls_count").await.expect("a metric");
        println!("{FRAMES} frames, {batches} batches");
        assert!(batches < FRAMES as f64 * 0.8, "{batches} batches for {FRAMES} frames");
    })
    .await;
}

/// Five connections, two of them of one user, send into two rooms, and a canary takes part of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_checker_finds_nothing_with_64_frames_in_flight_on_each_connection() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let users = ["ana", "bo", "cy", "dee"];
        let rooms = [host.group("hot", &users).await, host.group("quiet", &users).await];
        let mut crowd = Vec::new();
        for (user, room) in [("ana", 0), ("bo", 0), ("cy", 0), ("bo", 1), ("dee", 1)] {
            crowd.push(Chatter::start(host.address, Plan::pipelining(user, &rooms[room], IN_FLIGHT)).await);
        }
        let acknowledged = |crowd: &[Chatter]| crowd.iter().map(Chatter::acknowledged).sum::<usize>();
        let built = Release::built("send-message");
        for step in 0..4 {
            let before = acknowledged(&crowd);
            until(format!("load in step {step}"), async || {
                (acknowledged(&crowd) > before + 400).then_some(())
            })
            .await;
            match step % 2 {
                0 => host.admin.release(&built.variant(step)).await,
                _ => drop(host.admin.try_out(&built.variant(step), "canary=50").await.expect(200)),
            }
        }
        for chatter in &mut crowd {
            chatter.stop_sending().await;
        }
        let audit = ledger::audit(host, &rooms, &crowd).await;
        audit.expect_untouched();
        let checked = Books::of(&rooms, &crowd)
            .check(host.address, |_| "ana".to_owned())
            .await
            .expect("a correct history");
        println!("{checked:?}");
        assert_eq!((checked.acknowledged, checked.duplicates), (audit.acknowledged, 0));
        drop(crowd);
    })
    .await;
}
