//! `kill -9` of the host under load: acknowledged messages are stored once, and reach every client that
//! resumes.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger::{self, Audit};
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
        let all = Plan { user: "dee".into(), follows: rooms.clone(), talks_in: None, pause: Duration::ZERO };
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
        let mut histories = BTreeMap::new();
        for room in &rooms {
            histories.insert(room.clone(), ledger::history(&host.rest("ana"), room).await);
        }
        for chatter in &crowd {
            for room in chatter.record().from.keys() {
                chatter.expect_up_to(room, *histories[room].last_key_value().unwrap().0).await;
            }
        }
        let records: Vec<_> = crowd.iter().map(Chatter::record).collect();
        let audit = Audit::of(&histories, &records);
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
