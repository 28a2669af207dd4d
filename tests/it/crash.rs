//! `kill -9` of the host under load: acknowledged messages are stored once, and reach every client that
//! resumes.

use std::time::Duration;

use switchboard_tests::checker::Books;
use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger;
use switchboard_tests::patience::until;

const ROOMS: usize = 5;
const KILLS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_messages_survive_kill_9() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let users = ["ana", "bo", "cy", "dee"];
        let mut rooms = Vec::new();
        for n in 0..ROOMS {
            rooms.push(host.group(&format!("room {n}"), &users).await);
        }
        let mut crowd = Vec::new();
        for room in &rooms {
            for user in &users[..3] {
                // Send without a pause, so that a kill always falls between a COMMIT and its acknowledgement.
                let plan = Plan::talker(*user, room, Duration::ZERO);
                crowd.push(Chatter::start(host.address, plan).await);
            }
        }
        let all = Plan { follows: rooms.clone(), ..Plan::listener("dee", &rooms[0]) };
        crowd.push(Chatter::start(host.address, all).await);

        let acknowledged = |crowd: &[Chatter]| crowd.iter().map(Chatter::acknowledged).sum::<usize>();
        for kill in 0..KILLS {
            let before = acknowledged(&crowd);
            until(format!("load before kill {kill}"), async || (acknowledged(&crowd) > before + 300).then_some(())).await;
            host.kill().await;
            host.start().await;
        }
        let before = acknowledged(&crowd);
        until("load after the last start", async || (acknowledged(&crowd) > before + 300).then_some(())).await;

        for chatter in &mut crowd {
            chatter.stop_sending().await;
        }
        let audit = ledger::audit(host, &rooms, &crowd).await;
        println!(
            "{KILLS} kills: {} messages acknowledged, all in history once; {} deliveries of {} owed, {} of them again; \
             {} connections broken",
            audit.acknowledged,
            audit.delivered,
            audit.owed,
            audit.duplicates.len(),
            audit.disconnects.len()
        );
        assert!(audit.disconnects.len() >= KILLS * crowd.len(), "the kills were felt by nobody");
        audit.expect_kept();
        drop(crowd);
    })
    .await;
}

/// Each connection has 64 frames in flight when the node dies. The clients send the unanswered ones again,
/// with the same keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_messages_survive_kill_9_in_their_order() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let users = ["ana", "bo", "cy"];
        let rooms = [host.group("hot", &users).await, host.group("quiet", &users).await];
        let mut crowd = Vec::new();
        for (user, room) in [("ana", 0), ("bo", 0), ("bo", 1)] {
            crowd.push(Chatter::start(host.address, Plan::pipelining(user, &rooms[room], 64)).await);
        }
        let both = Plan { follows: rooms.to_vec(), ..Plan::listener("cy", &rooms[0]) };
        crowd.push(Chatter::start(host.address, both).await);

        let acknowledged = |crowd: &[Chatter]| crowd.iter().map(Chatter::acknowledged).sum::<usize>();
        for kill in 0..KILLS {
            let before = acknowledged(&crowd);
            until(format!("load before kill {kill}"), async || {
                (acknowledged(&crowd) > before + 300).then_some(())
            })
            .await;
            host.kill().await;
            host.start().await;
        }
        let before = acknowledged(&crowd);
        until("load after the last start", async || (acknowledged(&crowd) > before + 300).then_some(()))
            .await;
        for chatter in &mut crowd {
            chatter.stop_sending().await;
        }
        let audit = ledger::audit(host, &rooms, &crowd).await;
        println!("{KILLS} kills: {} acknowledged, {} deliveries", audit.acknowledged, audit.delivered);
        assert!(audit.disconnects.len() >= KILLS * crowd.len(), "the kills were felt by nobody");
        assert!(audit.refusals.is_empty(), "a kill refuses nothing: {:?}", audit.refusals);
        audit.expect_kept();
        Books::of(&rooms, &crowd).check(host.address, |_| "ana".to_owned()).await.expect("a correct history");
        drop(crowd);
    })
    .await;
}
