//! SIGTERM: everyone is told, answered, and sent to reconnect at a time of their own; nothing acknowledged is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use switchboard_tests::client::Client;
use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger::{self, Audit};
use switchboard_tests::patience::until;
use switchboard_tests::socket::Handshake;
use switchboard_tests::token::Token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_drain_tells_everyone_when_to_come_back() {
    Host::test(Options::default(), async |host| {
        let mut clients = Vec::new();
        for n in 0..20 {
            clients.push(host.client(&format!("user-{n}")).await);
        }
        host.terminate();
        let mut times = BTreeSet::new();
        for client in &mut clients {
            let draining = client.expect("draining").await;
            times.insert(draining["reconnect_after_ms"].as_u64().expect("a time"));
            assert_eq!(client.expect_close().await, 1012);
        }
        assert!(times.len() > 10, "all at once: {times:?}");
        let status = host.ended().await;
        assert!(status.success(), "{status}");
        let handshake = Handshake::bearer(&Token::of("late").sign());
        assert!(Client::connect(host.address, &handshake).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn operators_are_told_of_a_drain_until_it_is_done() {
    Host::test(Options::default().set("DRAIN_MS", 5_000), async |host| {
        let mut clients = Vec::new();
        for n in 0..20 {
            clients.push(host.client(&format!("user-{n}")).await);
        }
        // Of one who asked something once and stays: the end does not wait for him.
        let mut idle = TcpStream::connect(host.admin_address()).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"alive\n") {
            assert_ne!(idle.read_buf(&mut answer).await.unwrap(), 0, "it hung up");
        }

        host.terminate();
        let rest = host.admin.rest().anonymous();
        let (ready, others) = until("readyz to say that the node drains", async || {
            let ready = rest.get("/readyz").await;
            if ready.status == 200 {
                return None;
            }
            Some((ready, (rest.get("/healthz").await.status, rest.get("/metrics").await.status)))
        })
        .await;
        let ready = ready.expect(503);
        assert_eq!(ready["checks"]["serving"], "the node is draining", "{ready}");
        assert_eq!(others, (200, 200));
        let handshake = Handshake::bearer(&Token::of("late").sign());
        assert!(Client::connect(host.address, &handshake).await.is_err(), "a new client was let in");

        for client in &mut clients {
            client.expect("draining").await;
            assert_eq!(client.expect_close().await, 1012);
        }
        assert!(host.ended().await.success());
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(!host.log().contains("cut off"), "{}", host.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_nothing() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let users = ["ana", "bo", "cy", "dee"];
        let room = host.group("lobby", &users).await;
        let mut crowd = Vec::new();
        for user in users {
            let plan = Plan::talker(user, &room, Duration::from_millis(2));
            crowd.push(Chatter::start(host.address, plan).await);
        }
        let said = |crowd: &[Chatter]| crowd.iter().map(Chatter::acknowledged).sum::<usize>();
        for _ in 0..2 {
            let before = said(&crowd);
            until("load", async || (said(&crowd) > before + 100).then_some(())).await;
            host.terminate();
            let status = host.ended().await;
            assert!(status.success(), "{status}");
            host.start().await;
        }
        let before = said(&crowd);
        until("load after the last start", async || (said(&crowd) > before + 100).then_some(())).await;
        for chatter in &mut crowd {
            chatter.hush().await;
        }
        let history = ledger::history(&host.rest("ana"), &room).await;
        let head = *history.last_key_value().unwrap().0;
        for chatter in &crowd {
            chatter.sees(&room, head).await;
        }
        let records: Vec<_> = crowd.iter().map(Chatter::record).collect();
        let audit = Audit::of(&[(room, history)].into(), &records);
        audit.expect_kept();
        let told = |why: &&String| why.contains("closed 1012") || why.contains("handshake");
        let untold: Vec<_> = audit.breaks.iter().filter(|why| !told(why)).collect();
        assert!(untold.is_empty(), "cut off without a word: {untold:?}");
        drop(crowd);
    })
    .await;
}
