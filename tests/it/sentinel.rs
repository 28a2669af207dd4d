//! Redis behind sentinels: nodes find the primary, and after a failover each of them receives the bus.

use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::{PATIENCE, within};
use switchboard_tests::sentinels::Sentinels;

#[tokio::test]
async fn every_node_receives_publications_after_a_failover() {
    let mut redis = Sentinels::start().await;
    let options = Options::default().set("REDIS_URL", redis.url()).without_rate_limits();
    Host::test(options, async |host| {
        let mut other = host.another_node().await;
        let room = host.group("lobby", &["ana", "bo"]).await;
        let (mut ana, mut bo) = (host.client("ana").await, other.client("bo").await);
        ana.enter(&room).await;
        bo.enter(&room).await;
        talk(&mut ana, &mut bo, "before").await;

        redis.kill_primary().await;
        recovered(&[host, &other]).await;
        talk(&mut ana, &mut bo, "after the primary died").await;

        // The old server continues as a replica: connections to it stay open and look healthy.
        redis.start_killed().await;
        redis.fail_over().await;
        recovered(&[host, &other]).await;
        talk(&mut ana, &mut bo, "after it was demoted").await;
        drop((ana, bo));
        other.terminate();
        other.ended().await;
    })
    .await;
}

/// After a failover the old primary still takes publications, until a sentinel demotes it. A node that has
/// not noticed the failover publishes there, and the others already receive from the new primary.
#[tokio::test]
async fn a_message_that_was_published_to_the_old_primary_arrives() {
    let mut redis = Sentinels::start().await;
    let slow = Options::default().set("REDIS_URL", redis.url_of_last()).without_rate_limits();
    let quick = Options::default().set("REDIS_URL", redis.url()).without_rate_limits();
    Host::test(slow, async |host| {
        let mut other = host.another_node_with(quick).await;
        // One node publishes the messages of a room, and the shard of the room decides which node. With this
        // many rooms, each node has some.
        let mut rooms = Vec::new();
        let (mut ana, mut bo) = (host.client("ana").await, other.client("bo").await);
        for number in 0..8 {
            rooms.push(host.group(&format!("room {number}"), &["ana", "bo"]).await);
            ana.enter(&rooms[number]).await;
            bo.enter(&rooms[number]).await;
            talk(&mut ana, &mut bo, &format!("before, room {number}")).await;
        }

        let moves =
            async |node: &Host| node.admin.metric("switchboard_bus_losses_total").await.unwrap_or(0.0);
        let before = (moves(host).await, moves(&other).await);
        redis.pause_last(true);
        redis.fail_over().await;
        within(PATIENCE, "the other node to follow", async || (moves(&other).await > before.1).then_some(()))
            .await;
        recovered(&[&other]).await;
        assert_eq!(moves(host).await, before.0, "the node must still be at the old primary");
        for room in &rooms {
            let message = json!({"conversation_id": room, "content": "after the failover"});
            ana.request("message.send", message).await.expect_sent();
        }
        redis.pause_last(false);
        for room in &rooms {
            bo.expect_where("message.new", |push| {
                push["message"]["conversation_id"] == *room
                    && push["message"]["content"] == "after the failover"
            })
            .await;
        }
        drop((ana, bo));
        other.terminate();
        other.ended().await;
    })
    .await;
}

/// In both directions, because either node may receive nothing. Messages of the outage come too, or on
/// request.
async fn talk(ana: &mut Client, bo: &mut Client, when: &str) {
    for number in 0..3 {
        let (from_ana, from_bo) = (format!("ana, {when}, {number}"), format!("bo, {when}, {number}"));
        ana.send(&from_ana).await.expect_sent();
        bo.expect_where("message.new", |push| push["message"]["content"] == from_ana).await;
        bo.send(&from_bo).await.expect_sent();
        ana.expect_where("message.new", |push| push["message"]["content"] == from_bo).await;
    }
}

/// Every node reports that its loopback heartbeat arrives.
async fn recovered(hosts: &[&Host]) {
    for host in hosts {
        within(PATIENCE * 2, "the node to be ready again", async || host.admin.ready().await.then_some(()))
            .await;
    }
}
