//! Nodes whose clocks differ by hours: nothing that the fleet agrees on depends on them. Heartbeats, leases
//! and history use the clock of Postgres, switches a counter. Only decisions of one node (is this token
//! expired?) use its own clock.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;
use switchboard_tests::socket::Handshake;
use switchboard_tests::token::Token;

const PATH: &str = "/api/v1/guests/moody";
const HOUR_S: u64 = 3600;

/// A token that is valid on a node whose clock is two hours ahead.
fn token(user: &str) -> String {
    Token::of(user).expires_in_s(12 * 3600).sign()
}

async fn client(host: &Host, user: &str) -> Client {
    Client::open(host.address, user, &Handshake::bearer(&token(user))).await
}

/// A node refuses a revocation with a time of more than an hour ahead of its clock. So this shows the node's
/// time, to half an hour.
async fn thinks_it_is(host: &Host, ahead_s: i64) {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let rest = host.admin.rest();
    for (more_s, status) in [(HOUR_S / 2, 201), (HOUR_S * 3 / 2, 422)] {
        let before = now_s.saturating_add_signed(ahead_s) + more_s;
        let answer = rest.post("/admin/v1/revocations", json!({"user_id": "nobody", "before": before})).await;
        assert_eq!(answer.status, status, "{ahead_s} s ahead and {more_s} s more: {answer}");
    }
}

fn moody(mood: &str, says: &str) -> Release {
    Release::guest("moody").with_manifest(|manifest| {
        let config = manifest["config"].as_table_mut().unwrap();
        config.insert("mood".into(), mood.into());
        config.insert("says".into(), says.into());
    })
}

async fn says(host: &Host, user: &str) -> String {
    let answer = host.rest_with(token(user)).get(PATH).await;
    if answer.status == 200 {
        answer.json()["says"].as_str().unwrap().to_owned()
    } else {
        answer.status.to_string()
    }
}

#[tokio::test]
async fn clocks_that_differ_by_hours_change_nothing_that_the_fleet_agrees_on() {
    let options = Options::default().without_rate_limits();
    let (Some(fast), Some(slow)) = (
        options.clone().with_clock(2 * HOUR_S.cast_signed()),
        options.clone().with_clock(-2 * HOUR_S.cast_signed()),
    ) else {
        println!("libfaketime is not installed: clocks cannot be set apart here");
        return;
    };
    Host::test(options, async |host| {
        let (mut ahead, mut behind) =
            (host.another_node_with(fast).await, host.another_node_with(slow).await);
        let two_hours = 2 * HOUR_S.cast_signed();
        thinks_it_is(host, 0).await;
        thinks_it_is(&ahead, two_hours).await;
        thinks_it_is(&behind, -two_hours).await;

        // Each node sees all three, and deploys to all three.
        for (asked, text) in [(&*host, "by one"), (&ahead, "by one ahead"), (&behind, "by one behind")] {
            let nodes = asked.admin.rest().get("/admin/v1/nodes").await.expect(200);
            let live = nodes["nodes"].as_array().unwrap().iter().filter(|node| node["live"] == true).count();
            assert_eq!(live, 3, "{nodes}");
            asked.admin.release(&moody("fine", text)).await;
            for node in [&*host, &ahead, &behind] {
                assert_eq!(says(node, "ana").await, text);
            }
        }
        let outcome = behind.admin.rollback("moody").await.expect(200);
        assert_eq!(
            (&outcome["complete"], says(&ahead, "ana").await.as_str()),
            (&json!(true), "by one ahead")
        );

        // A canary that fails on the node whose clock is ahead is withdrawn on the node whose clock is
        // behind.
        let bad = moody("trap", "never");
        assert_eq!(behind.admin.try_out(&bad, "canary=50").await.expect(200)["complete"], true);
        until("the canary to be withdrawn", async || {
            for n in 0..10 {
                says(&ahead, &format!("user-{n}")).await;
            }
            let history = behind.admin.rest().get("/admin/v1/history?handler=moody").await.expect(200);
            (history["history"][0]["action"] == "withdraw").then_some(())
        })
        .await;
        // The history has the change a moment before the nodes follow it.
        until("everybody to get the running release again", async || {
            for n in 0..10 {
                if says(&behind, &format!("user-{n}")).await != "by one ahead" {
                    return None;
                }
            }
            Some(())
        })
        .await;

        // The history is in the order of one clock, for any acting node.
        let history = host.admin.rest().get("/admin/v1/history?handler=moody").await.expect(200);
        let history = history["history"].as_array().unwrap();
        let times: Vec<_> = history.iter().map(|event| event["at"].as_str().unwrap()).collect();
        assert_eq!(history.len(), 6, "{history:?}");
        assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");

        // Messages cross, and the owner of a shard may die: leases end by the clock of Postgres too.
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        let mut ana = client(host, "ana").await;
        let (mut bo, mut cy) = (client(&ahead, "bo").await, client(&behind, "cy").await);
        for one in [&mut ana, &mut bo, &mut cy] {
            one.enter(&room).await;
        }
        for (sender, text) in [(0, "from here"), (1, "from ahead"), (2, "from behind")] {
            let all = [&mut ana, &mut bo, &mut cy];
            all[sender].send(text).await.expect_sent();
            for one in all {
                one.expect_message(text).await;
            }
        }
        ahead.kill().await;
        ana.send("after one died").await.expect_sent();
        ana.expect_message("after one died").await;
        cy.expect_message("after one died").await;
        drop((ana, bo, cy));
        behind.terminate();
        behind.ended().await;
    })
    .await;
}
