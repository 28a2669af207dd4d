//! Revoked tokens: refused on every node within a second, for requests, sockets and tickets, until they
//! expire.

use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::socket::{Handshake, NotOpened};
use switchboard_tests::token::{Token, now_s};

fn token(user: &str, jti: &str) -> Token {
    Token::of(user).claim("jti", json!(jti)).claim("iat", json!(now_s() - 60))
}

async fn revoke(host: &Host, what: Value) -> Value {
    host.admin.rest().post("/admin/v1/revocations", what).await.expect(201)["revocation"].take()
}

async fn judged(host: &Host, token: &Token) -> u16 {
    host.rest_with(token.sign()).get("/api/v1/conversations").await.status
}

#[tokio::test]
async fn a_revoked_token_ends_on_every_node() {
    Host::test(Options::default(), async |host| {
        let mut other = host.another_node().await;
        let (stolen, good) = (token("ana", "stolen"), token("ana", "good"));
        let mut here = Client::open(host.address, "ana", &Handshake::bearer(&stolen.sign())).await;
        let mut there = Client::open(other.address, "ana", &Handshake::bearer(&stolen.sign())).await;
        let mut spared = Client::open(other.address, "ana", &Handshake::bearer(&good.sign())).await;
        let ticket = host.rest_with(stolen.sign()).post("/api/v1/ws-tickets", json!({})).await.expect(200);
        assert_eq!((judged(host, &stolen).await, judged(&other, &stolen).await), (200, 200));

        let answer = revoke(host, json!({"jti": "stolen"})).await;
        assert_eq!(answer["jti"], "stolen");
        assert_eq!((here.expect_close().await, there.expect_close().await), (4001, 4001));
        assert_eq!((judged(host, &stolen).await, judged(&other, &stolen).await), (401, 401));
        for handshake in
            [Handshake::bearer(&stolen.sign()), Handshake::ticket(ticket["ticket"].as_str().unwrap())]
        {
            match Client::connect(host.address, &handshake).await {
                Err(NotOpened::Refused(head, body)) => {
                    assert_eq!(head.status, 401);
                    assert!(body.contains("revoked"), "{body}");
                }
                _ => panic!("let in by a revoked token"),
            }
        }
        spared.expect_alive().await;
        drop(spared);
        other.terminate();
        other.ended().await;
    })
    .await;
}

#[tokio::test]
async fn older_tokens_of_a_user_are_revoked_also_after_a_restart() {
    Host::test(Options::default(), async |host| {
        let (old, fresh) = (token("ana", "old"), token("ana", "fresh").claim("iat", json!(now_s())));
        let without_iat = token("ana", "ageless").without("iat");
        let of_another = token("bo", "old-too");
        let mut socket = Client::open(host.address, "ana", &Handshake::bearer(&old.sign())).await;
        revoke(host, json!({"user_id": "ana", "before": now_s() - 30})).await;
        assert_eq!(socket.expect_close().await, 4001);
        let verdicts = async |host: &Host| {
            let mut verdicts = Vec::new();
            for token in [&old, &without_iat, &fresh, &of_another] {
                verdicts.push(judged(host, token).await);
            }
            verdicts
        };
        assert_eq!(verdicts(host).await, [401, 401, 200, 200]);
        host.kill().await;
        host.start().await;
        assert_eq!(verdicts(host).await, [401, 401, 200, 200]);
    })
    .await;
}

#[tokio::test]
async fn a_renewed_connection_depends_on_its_new_token() {
    Host::test(Options::default(), async |host| {
        let (first, second) = (token("ana", "first"), token("ana", "second"));
        let mut ana = Client::open(host.address, "ana", &Handshake::bearer(&first.sign())).await;
        ana.request("auth.refresh", json!({"token": second.sign()})).await.expect("auth.success");
        revoke(host, json!({"jti": "second"})).await;
        assert_eq!(ana.expect_close().await, 4001);
        // A revoked token cannot renew a connection.
        let mut ana = Client::open(host.address, "ana", &Handshake::bearer(&first.sign())).await;
        let refused = ana.request("auth.refresh", json!({"token": second.sign()})).await;
        refused.expect_error("unauthorized");
        assert_eq!(ana.expect_close().await, 4001);
    })
    .await;
}

#[tokio::test]
async fn a_revocation_is_deleted_after_its_token_expires() {
    Host::test(Options::default(), async |host| {
        // Expired for longer than the allowed difference of clocks.
        revoke(host, json!({"jti": "over", "expires_at": now_s() - 7200})).await;
        let kept = revoke(host, json!({"jti": "kept", "expires_at": now_s() + 3600})).await;
        assert!(kept["forgotten_at"].is_string());
        host.kill().await;
        host.start().await;
        until("the rows of what is over to be gone", async || {
            let database = host.database.connect().await;
            let rows = database.rows("select jti from switchboard.revocations").await;
            let kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            (kept == ["kept"]).then_some(())
        })
        .await;
        assert_eq!(judged(host, &token("ana", "kept")).await, 401);
    })
    .await;
}

#[tokio::test]
async fn an_invalid_revocation_names_its_field() {
    Host::test(Options::default(), async |host| {
        for (what, field) in [
            (json!({}), "jti"),
            (json!({"jti": "a", "user_id": "b"}), "jti"),
            (json!({"user_id": ""}), "user_id"),
            (json!({"user_id": "ana", "before": "then"}), "before"),
        ] {
            host.admin.rest().post("/admin/v1/revocations", what).await.expect_invalid(field);
        }
        let answer = host.rest_with(token("ana", "a").sign()).post("/admin/v1/revocations", json!({})).await;
        answer.expect_problem(404, "not_found");
    })
    .await;
}
