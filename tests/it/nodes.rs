//! Two nodes are one fleet: messages cross between them, a client resumes on either, a release reaches both.

use std::time::Duration;

use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger::{self, Audit};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

#[tokio::test]
async fn messages_cross_between_nodes() {
    Host::test(Options::default(), async |host| {
        let other = host.another_node().await;
        let room = host.group("lobby", &["ana", "bo"]).await;
        let (mut ana, mut bo) = (host.client("ana").await, other.client("bo").await);
        ana.enter(&room).await;
        bo.enter(&room).await;
        for n in 0..5 {
            ana.send(&format!("from the first {n}")).await.expect_sent();
            bo.expect_message(&format!("from the first {n}")).await;
            ana.expect_message(&format!("from the first {n}")).await;
            bo.send(&format!("from the second {n}")).await.expect_sent();
            ana.expect_message(&format!("from the second {n}")).await;
            bo.expect_message(&format!("from the second {n}")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_resumes_on_the_other_node() {
    Host::test(Options::default(), async |host| {
        let other = host.another_node().await;
        let (mut ana, bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        drop(bo);
        for n in 0..3 {
            ana.send(&format!("missed {n}")).await.expect_sent();
        }
        let mut bo = Client::sign_in(other.address, "bo").await;
        let payload = json!({"conversation_ids": [room], "positions": {(room.as_str()): 1}});
        let subscribed = bo.request("subscribe", payload).await.expect("subscribed");
        assert_eq!(subscribed["heads"][&room], 4);
        bo.clear_buffered();
        ana.send("new").await.expect_sent();
        for content in ["missed 0", "missed 1", "missed 2", "new"] {
            assert_eq!(bo.expect("message.new").await["message"]["content"], content);
        }
    })
    .await;
}

#[tokio::test]
async fn a_release_reaches_every_node_and_one_that_starts_later() {
    Host::test(Options::default(), async |host| {
        let mut other = host.another_node().await;
        let first = Release::built("send-message").variant(1);
        host.admin.release(&first).await;
        assert_eq!(other.current("send-message").await, first.digest());
        other.kill().await;
        let second = first.variant(2);
        until("the fleet to forget the node that died", async || {
            let outcome = host.admin.deploy(&second).await.expect(200);
            (outcome["complete"] == true).then_some(())
        })
        .await;
        other.start().await;
        let strict = second.with_manifest(|manifest| {
            manifest["config"]["messages_per_minute"] = 1.into();
        });
        host.admin.release(&strict).await;
        let room = host.group("lobby", &["ana"]).await;
        let mut ana = other.client("ana").await;
        ana.enter(&room).await;
        ana.send("one").await.expect_sent();
        ana.send("two").await.expect_error("rate_limited");
    })
    .await;
}

#[tokio::test]
async fn status_reports_a_node_that_died_and_not_one_that_shut_down() {
    Host::test(Options::default(), async |host| {
        let mut other = host.another_node().await;
        other.terminate();
        assert!(other.ended().await.success());
        let (code, status) = host.switchboard(&["status", "--json"]).await;
        assert_eq!(status["nodes"].as_array().map(Vec::len), Some(1), "{status}");
        assert_eq!(code, 0, "{status}");

        other.start().await;
        other.kill().await;
        let (code, status) = until("the node that died to be silent", async || {
            let (code, status) = host.switchboard(&["status", "--json"]).await;
            let nodes = status["nodes"].as_array()?;
            nodes.iter().any(|node| node["live"] == false).then(|| (code, status.clone()))
        })
        .await;
        assert_eq!(code, 1, "{status}");
        assert_eq!(status["readiness"]["ready"], true, "{status}");
    })
    .await;
}

#[tokio::test]
async fn a_node_that_hangs_during_a_deploy_is_named_and_follows_later() {
    Host::test(Options::default(), async |host| {
        let other = host.another_node().await;
        let release = Release::built("send-message").variant(1);
        other.freeze();
        let outcome = host.admin.deploy(&release).await.expect(200);
        assert_eq!(outcome["complete"], false, "{outcome}");
        let nodes = outcome["nodes"].as_array().expect("nodes");
        let state = |of: &Host| {
            let address = of.admin_address().to_string();
            nodes.iter().find(|node| node["address"] == address).map(|node| node["state"].clone())
        };
        assert_eq!((state(host), state(&other)), (Some(json!("live")), Some(json!("silent"))), "{outcome}");
        other.thaw();
        until("the other node to follow", async || {
            let outcome = host.admin.deploy(&release).await.expect(200);
            (outcome["complete"] == true && outcome["nodes"].as_array()?.len() == 2).then_some(())
        })
        .await;
    })
    .await;
}

/// The node that owns the outbox's shards dies, and the other node takes them over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_over_from_one_that_dies() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let users = ["ana", "bo", "cy"];
        let room = host.group("lobby", &users).await;
        let mut other = host.another_node().await;
        let mut crowd = Vec::new();
        for user in users {
            let plan = Plan::talker(user, &room, Duration::from_millis(10));
            crowd.push(Chatter::start(host.address, plan).await);
        }
        let listener = Plan::listener("ana", &room);
        let mut there = Chatter::start(other.address, listener.clone()).await;
        let pushed = |chatter: &Chatter| chatter.record().pushed.len();
        for _ in 0..3 {
            let before = pushed(&crowd[0]);
            until("messages to flow", async || (pushed(&crowd[0]) > before + 50).then_some(())).await;
            other.kill().await;
            other.start().await;
        }
        there.stop_sending().await;
        for chatter in &mut crowd {
            chatter.stop_sending().await;
        }
        let history = ledger::history(&host.rest("ana"), &room).await;
        let head = *history.last_key_value().unwrap().0;
        let mut records = Vec::new();
        for chatter in crowd.iter().chain([&there]) {
            chatter.expect_up_to(&room, head).await;
            records.push(chatter.record());
        }
        let audit = Audit::of(&[(room, history)].into(), &records);
        audit.expect_kept();
        // Only the client on the other node was cut off.
        assert!(
            crowd.iter().all(|chatter| chatter.record().disconnects.is_empty()),
            "{:?}",
            audit.disconnects
        );
        drop((crowd, there));
    })
    .await;
}
