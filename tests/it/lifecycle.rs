//! The life of a connection from outside: who ends it, with which code, and the frames before its end.
//! Settings make long times short.

use std::time::Duration;

use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::proxy::Proxy;
use switchboard_tests::services::{self, Redis};
use switchboard_tests::socket::Handshake;
use switchboard_tests::token::Token;
use tokio::time::Instant;

#[tokio::test]
async fn a_silent_client_is_closed_and_pings_keep_it_open() {
    Host::test(Options::default().set("IDLE_MS", 1_500), async |host| {
        let (mut ana, mut bo) = (host.client("ana").await, host.client("bo").await);
        assert_eq!(ana.session["heartbeat_ms"], 500);
        let alive_for = Instant::now();
        let mut beat = tokio::time::interval(Duration::from_millis(500));
        while alive_for.elapsed() < Duration::from_secs(3) {
            beat.tick().await;
            bo.expect_alive().await;
        }
        assert_eq!(ana.expect_close().await, 4010);
        bo.expect_alive().await;
    })
    .await;
}

#[tokio::test]
async fn the_warning_precedes_the_expiry_of_a_token() {
    let options = Options::default().set("JWT_LEEWAY_S", 0).set("EXPIRY_WARNING_MS", 2_000);
    Host::test(options, async |host| {
        let token = Token::of("ana").expires_in_s(5).sign();
        let begin = Instant::now();
        let mut ana = Client::open(host.address, "ana", &Handshake::bearer(&token)).await;
        let expires_at = ana.session["expires_at"].clone();
        assert_eq!(ana.expect("auth.expiring").await["expires_at"], expires_at);
        assert!(begin.elapsed() >= Duration::from_millis(1_900), "it came after {:?}", begin.elapsed());
        // Renewed in place: the old end passes, and the host warns of the new one in time.
        let fresh = Token::of("ana").expires_in_s(8).sign();
        let renewed = ana.request("auth.refresh", json!({"token": fresh})).await.expect("auth.success");
        assert_eq!(renewed["session_id"], ana.session["session_id"]);
        let warned = ana.expect("auth.expiring").await;
        assert_eq!(warned["expires_at"], renewed["expires_at"]);
        ana.request("auth.refresh", json!({"token": "nonsense"})).await.expect_error("unauthorized");
        assert_eq!(ana.expect_close().await, 4001);
    })
    .await;
}

#[tokio::test]
async fn every_stage_of_a_connection_is_counted() {
    Host::test(
        Options::default().set("AUTH_WAIT_MS", 300).set("LOG", "info,switchboard=debug"),
        async |host| {
            let ana = host.client("ana").await;
            drop(ana);
            let (mut silent, _) = Client::connect(host.address, &Handshake::bare()).await.unwrap();
            assert_eq!(silent.expect_close().await, 4001);
            until("both ends to be counted", async || {
                let metrics = host.admin.rest().get("/metrics").await;
                let text = String::from_utf8_lossy(&metrics.body).into_owned();
                let stages = [
                    ("connecting", 2),
                    ("authenticated", 1),
                    ("connected", 1),
                    ("disconnected", 1),
                    ("rejected", 1),
                ];
                let counted = |(stage, count): &(&str, u32)| {
                    text.lines().any(|line| {
                        line.starts_with("switchboard_connection_stages_total{")
                            && line.contains(&format!("stage=\"{stage}\""))
                            && line.ends_with(&format!(" {count}"))
                    })
                };
                stages.iter().all(counted).then_some(())
            })
            .await;
            for stage in ["connecting", "authenticated", "connected", "disconnected", "rejected"] {
                assert!(host.log().contains(&format!("connection {stage}")), "{stage} is not in the log");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn an_operator_closes_connections_on_every_node() {
    Host::test(Options::default(), async |host| {
        let other = host.another_node().await;
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        let end = async |target| {
            host.admin.rest().post("/admin/v1/disconnect", target).await.expect(202);
        };
        // All connections of a user, on every node.
        let (mut here, mut there) = (host.client("ana").await, other.client("ana").await);
        let mut bo = other.client("bo").await;
        end(json!({"user_id": "ana"})).await;
        assert_eq!((here.expect_close().await, there.expect_close().await), (4003, 4003));
        bo.expect_alive().await;
        // A session: one of two connections of the same user.
        let with_id = async |id: &str| {
            let handshake = Handshake::bearer(&Token::of("ana").claim("jti", json!(id)).sign());
            Client::open(other.address, "ana", &handshake).await
        };
        let (mut one, mut two) = (with_id("one").await, with_id("two").await);
        end(json!({"session_id": one.session["session_id"]})).await;
        assert_eq!(one.expect_close().await, 4003);
        two.expect_alive().await;
        // A conversation: everyone who is subscribed to it.
        two.enter(&room).await;
        let mut cy = host.client("cy").await;
        cy.enter(&room).await;
        end(json!({"conversation_id": room})).await;
        assert_eq!((two.expect_close().await, cy.expect_close().await), (4003, 4003));
        bo.expect_alive().await;
    })
    .await;
}

/// Messages of this size soon fill the kernel's buffers of a socket.
fn long_text() -> String {
    "€".repeat(2000)
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_loses_nothing() {
    let options = Options::default().without_rate_limits().set("STALL_MS", 500);
    Host::test(options, async |host| {
        let (mut ana, bo) = host.two_members("lobby").await;
        let room = ana.room().to_owned();
        // From here on bo does not read.
        let (mut sent, begin) = (0u64, Instant::now());
        let closed = async || {
            let metrics = host.admin.rest().get("/metrics").await;
            let text = String::from_utf8_lossy(&metrics.body).into_owned();
            text.lines().any(|line| {
                line.starts_with("switchboard_connections_closed_total{") && line.contains("code=\"4008\"")
            })
        };
        while !closed().await {
            assert!(begin.elapsed() < Duration::from_secs(60), "never closed, after {sent} messages");
            for _ in 0..200 {
                ana.send(&long_text()).await.expect_sent();
                sent += 1;
            }
            ana.clear_buffered();
        }
        drop(bo);
        // The close frame may not reach a client that reads nothing. The next connection delivers the unread
        // messages.
        let mut bo = host.client("bo").await;
        bo.clear_buffered();
        let resume = json!({"conversation_ids": [room], "positions": {(room.as_str()): sent - 20}});
        bo.request("subscribe", resume).await.expect("subscribed");
        bo.clear_buffered();
        for seq in sent - 19..=sent + 1 {
            assert_eq!(bo.expect("message.new").await["message"]["seq"], seq);
        }
    })
    .await;
}

/// A host that reaches Redis through a proxy that can be cut, and another one with a direct connection.
async fn with_one_cut_off(test: impl AsyncFnOnce(&mut Host, &Host, &Proxy)) {
    let redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    let options = Options::default().without_rate_limits();
    Host::test_over(services::database().await, redis, options.clone(), async |host| {
        let mut there =
            Host::over(host.database.clone(), host.redis.shared(), options.redis_at(proxy.address())).await;
        there.start().await;
        test(host, &there, &proxy).await;
        proxy.heal();
    })
    .await;
}

#[tokio::test]
async fn after_an_outage_of_the_bus_the_host_fills_the_gap_or_sends_a_resync() {
    with_one_cut_off(async |host, there, proxy| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let (mut ana, mut bo) = (host.client("ana").await, there.client("bo").await);
        ana.enter(&room).await;
        bo.enter(&room).await;
        ana.send("before").await.expect_sent();
        bo.expect_message("before").await;
        proxy.freeze();
        for n in 0..5 {
            ana.send(&format!("missed {n}")).await.expect_sent();
        }
        proxy.cut();
        proxy.heal();
        // No client sends anything more: the host notices it by itself.
        for n in 0..5 {
            bo.expect_message(&format!("missed {n}")).await;
        }
        proxy.freeze();
        for n in 0..1_010 {
            ana.send(&format!("many {n}")).await.expect_sent();
        }
        ana.clear_buffered();
        proxy.cut();
        proxy.heal();
        // Pages that it fetched while it was cut off count as well: it either sent everything, or reported
        // that there is more.
        let last = |frame: &serde_json::Value| frame["payload"]["message"]["content"] == "many 1009";
        let end = bo.expect_frame("all, or `resync`", |frame| frame["type"] == "resync" || last(frame)).await;
        if end["type"] == "resync" {
            assert_eq!(end["payload"]["conversation_ids"], json!([room]));
        } else {
            let pushes = bo.buffered("message.new");
            assert_eq!(pushes.len(), 1_009, "each once, in order");
            assert!(
                pushes.iter().enumerate().all(|(n, push)| push["message"]["content"] == format!("many {n}"))
            );
        }
        bo.clear_buffered();
        // The subscription still exists.
        until("the node to hear again", async || there.admin.ready().await.then_some(())).await;
        ana.send("the newest").await.expect_sent();
        bo.expect_where("message.new", |push| push["message"]["content"] == "the newest").await;
    })
    .await;
}

#[tokio::test]
async fn a_user_removed_while_their_node_was_cut_off_gets_no_later_message() {
    with_one_cut_off(async |host, there, proxy| {
        let room = host.group("lobby", &["ana", "bo", "cy"]).await;
        let mut ana = host.client("ana").await;
        let (mut bo, mut cy) = (there.client("bo").await, there.client("cy").await);
        for client in [&mut ana, &mut bo, &mut cy] {
            client.enter(&room).await;
        }
        ana.send("for all").await.expect_sent();
        bo.expect_message("for all").await;
        cy.expect_message("for all").await;
        proxy.freeze();
        let path = format!("/api/v1/conversations/{room}/participants/bo");
        host.rest("ana").delete(&path).await.expect(204);
        ana.send("not for bo").await.expect_sent();
        // Wait until delivery has done all that it can, before the node is back.
        ana.expect_message_where(|message| message["content"] == "not for bo").await;
        proxy.cut();
        proxy.heal();
        cy.expect_message_where(|message| message["content"] == "not for bo").await;
        ana.send("nor this").await.expect_sent();
        cy.expect_message_where(|message| message["content"] == "nor this").await;
        bo.expect_silence().await;
    })
    .await;
}
