//! Authentication: every form of a token, good and bad, at the handshake, in a frame, over REST, and while
//! connected.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::socket::{Handshake, NotOpened};
use switchboard_tests::token::{Token, now_s};

const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/it/keys");

async fn refused(host: &Host, handshake: &Handshake) -> (u16, String) {
    match Client::connect(host.address, handshake).await {
        Err(NotOpened::Refused(head, body)) => (head.status, body),
        Err(NotOpened::Lost(why)) => panic!("lost instead of refused: {why}"),
        Ok(_) => panic!("let in: {handshake:?}"),
    }
}

#[tokio::test]
async fn every_form_of_handshake_signs_in() {
    Host::test(Options::default(), async |host| {
        let token = Token::of("ana").sign();
        for handshake in [Handshake::bearer(&token), Handshake::subprotocol(&token), Handshake::query(&token)]
        {
            let client = Client::open(host.address, "ana", &handshake).await;
            for member in ["session_id", "expires_at", "server_time"] {
                assert!(client.session[member].is_string(), "{member} in {}", client.session);
            }
            assert!(client.session["heartbeat_ms"].is_u64());
        }

        let (_, head) = Client::connect(host.address, &Handshake::subprotocol(&token)).await.unwrap();
        assert_eq!(head.header("sec-websocket-protocol"), Some("switchboard.v1"));

        let ticket = host.rest("ana").post("/api/v1/ws-tickets", json!({})).await;
        assert!(matches!(ticket.status, 200 | 201), "{ticket}");
        let ticket = ticket.json()["ticket"].as_str().expect("a ticket").to_owned();
        Client::open(host.address, "ana", &Handshake::ticket(&ticket)).await;
        // A ticket is valid for one connection, once.
        assert_eq!(refused(host, &Handshake::ticket(&ticket)).await.0, 401);
        assert_eq!(refused(host, &Handshake::ticket("invented")).await.0, 401);
    })
    .await;
}

/// A token like those of a large identity provider.
#[tokio::test]
async fn a_token_with_200_groups_signs_in_in_every_form() {
    Host::test(Options::default(), async |host| {
        let groups: Vec<_> =
            (0..200).map(|n| format!("cn=group {n:03},ou=groups,{}", "dc=example,".repeat(7))).collect();
        let token = Token::of("ana").claim("groups", json!(groups)).claim("roles", json!(null)).sign();
        assert!(token.len() > 24 * 1024);
        for handshake in [Handshake::bearer(&token), Handshake::subprotocol(&token), Handshake::query(&token)]
        {
            Client::open(host.address, "ana", &handshake).await;
        }
        let (mut ana, _) = Client::connect(host.address, &Handshake::bare()).await.unwrap();
        ana.request("auth", json!({"token": token})).await.expect("auth.success");
        let ticket = host.rest_with(token).post("/api/v1/ws-tickets", json!({})).await.expect(200);
        Client::open(host.address, "ana", &Handshake::ticket(ticket["ticket"].as_str().unwrap())).await;

        let longer = Token::of("ana").claim("groups", json!("x".repeat(32 * 1024))).sign();
        let (status, body) = refused(host, &Handshake::bearer(&longer)).await;
        assert!(status == 401 && body.contains("longer than 32768 bytes"), "{body}");
    })
    .await;
}

#[tokio::test]
async fn the_first_frame_may_carry_the_token() {
    Host::test(Options::default(), async |host| {
        let (mut ana, _) = Client::connect(host.address, &Handshake::bare()).await.unwrap();
        let success = ana.request("auth", json!({"token": Token::of("ana").sign()})).await;
        assert_eq!(success.expect("auth.success")["user_id"], "ana");
        ana.expect_alive().await;

        let (mut eve, _) = Client::connect(host.address, &Handshake::bare()).await.unwrap();
        eve.request("auth", json!({"token": "nonsense"})).await.expect_error("unauthorized");
        assert_eq!(eve.expect_close().await, 4001);

        // The host answers nothing else before.
        let (mut eve, _) = Client::connect(host.address, &Handshake::bare()).await.unwrap();
        eve.write(json!({"type": "subscribe", "id": 1, "payload": {"conversation_ids": []}})).await;
        eve.reply_to(&json!(1)).await.expect_error("unauthorized");
    })
    .await;
}

/// The test waits for the real time-out: ten seconds.
#[tokio::test]
async fn a_client_that_does_not_authenticate_is_disconnected() {
    Host::test(Options::default(), async |host| {
        let (mut eve, _) = Client::connect(host.address, &Handshake::bare()).await.unwrap();
        assert_eq!(eve.expect_close().await, 4001);
    })
    .await;
}

#[tokio::test]
async fn a_bad_token_is_refused_everywhere() {
    Host::test(Options::default(), async |host| {
        let of_another = EncodingKey::from_secret(b"another secret, as long as the right one is");
        let good = Token::of("ana");
        let (head, claims_and_signature) =
            good.sign().split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        for (what, token) in [
            ("not a token", "nonsense".to_owned()),
            ("empty", String::new()),
            ("unsigned", good.unsigned()),
            ("signed by another", good.sign_with(Algorithm::HS256, &of_another)),
            (
                "another HMAC than configured",
                good.sign_with(
                    Algorithm::HS512,
                    &EncodingKey::from_secret(switchboard_tests::token::JWT_SECRET.as_bytes()),
                ),
            ),
            ("cut short", format!("{head}.{}", &claims_and_signature[..claims_and_signature.len() - 4])),
            ("expired beyond the skew", good.clone().expires_in_s(-31).sign()),
            ("without exp", good.clone().without("exp").sign()),
            ("exp as text", good.clone().claim("exp", json!("tomorrow")).sign()),
            ("not yet valid", good.clone().claim("nbf", json!(now_s() + 120)).sign()),
            ("without sub", good.clone().without("sub").sign()),
            ("sub as a number", good.clone().claim("sub", json!(7)).sign()),
            ("empty sub", Token::of("").sign()),
            ("sub of 65 characters", Token::of(&"ü".repeat(65)).sign()),
            ("sub with a control character", Token::of("a\u{0}b").sign()),
        ] {
            let handshake = if token.is_empty() {
                Handshake::bare().header("authorization", "Bearer ")
            } else {
                Handshake::bearer(&token)
            };
            let (status, body) = refused(host, &handshake).await;
            assert_eq!(status, 401, "{what}");
            assert!(body.contains("unauthorized"), "{what}: {body}");
            let answer = host.rest_with(token).get("/api/v1/conversations").await;
            assert_eq!(answer.status, 401, "{what}: {answer}");
            answer.expect_problem(401, "unauthorized");
        }
        assert!(!host.log().contains(&claims_and_signature), "a token stands in the log");
        // Within the clock skew the token is not expired yet.
        let late = good.expires_in_s(-15).sign();
        host.rest_with(late).get("/api/v1/conversations").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn public_keys_of_every_kind_verify_tokens() {
    let keys = ["rsa.pem", "ec.pem", "ed.pem"].map(|name| format!("{KEYS}/{name}")).join(",");
    let options = Options::default().set("JWT_KEYS", keys);
    Host::test(options, async |host| {
        let pem = |name: &str| std::fs::read(format!("{KEYS}/{name}.private.pem")).unwrap();
        let signers = [
            (Algorithm::RS256, EncodingKey::from_rsa_pem(&pem("rsa")).unwrap()),
            (Algorithm::ES256, EncodingKey::from_ec_pem(&pem("ec")).unwrap()),
            (Algorithm::EdDSA, EncodingKey::from_ed_pem(&pem("ed")).unwrap()),
        ];
        for (algorithm, key) in &signers {
            let token = Token::of("ana").sign_with(*algorithm, key);
            Client::open(host.address, "ana", &Handshake::bearer(&token)).await;
        }
        // The public key must not serve as a secret for HS256.
        let public = std::fs::read(format!("{KEYS}/rsa.pem")).unwrap();
        let confused = Token::of("ana").sign_with(Algorithm::HS256, &EncodingKey::from_secret(&public));
        assert_eq!(refused(host, &Handshake::bearer(&confused)).await.0, 401);
        let unlisted = Token::of("ana").sign_with(Algorithm::RS512, &signers[0].1);
        assert_eq!(refused(host, &Handshake::bearer(&unlisted)).await.0, 401);
    })
    .await;
}

#[tokio::test]
async fn issuer_and_audience_are_checked_when_set() {
    let options = Options::default().set("JWT_ISSUER", "https://id.test").set("JWT_AUDIENCE", "chat");
    Host::test(options, async |host| {
        let right = Token::of("ana").claim("iss", json!("https://id.test")).claim("aud", json!("chat"));
        host.rest_with(right.sign()).get("/api/v1/conversations").await.expect(200);
        for wrong in [
            right.clone().without("iss"),
            right.clone().without("aud"),
            right.clone().claim("iss", json!("https://evil.test")),
            right.claim("aud", json!("mail")),
        ] {
            let answer = host.rest_with(wrong.sign()).get("/api/v1/conversations").await;
            answer.expect_problem(401, "unauthorized");
        }
    })
    .await;
}

#[tokio::test]
async fn an_expiring_token_is_announced_and_then_closes_the_connection() {
    Host::test(Options::default().set("JWT_LEEWAY_S", 0), async |host| {
        let short = Handshake::bearer(&Token::of("ana").expires_in_s(3).sign());
        let mut ana = Client::open(host.address, "ana", &short).await;
        // The token has less than 60 s left, so the warning is due at once.
        assert!(ana.expect("auth.expiring").await["expires_at"].is_string());
        assert_eq!(ana.expect_close().await, 4001);
    })
    .await;
}

#[tokio::test]
async fn a_fresh_token_renews_the_connection_in_place() {
    Host::test(Options::default().set("JWT_LEEWAY_S", 0), async |host| {
        let short = Handshake::bearer(&Token::of("ana").expires_in_s(3).sign());
        let mut ana = Client::open(host.address, "ana", &short).await;
        ana.expect("auth.expiring").await;
        let of_another = json!({"token": Token::of("eve").sign()});
        ana.request("auth.refresh", of_another).await.expect_error("forbidden");
        let renewed = ana.request("auth.refresh", json!({"token": Token::of("ana").sign()})).await;
        let renewed = renewed.expect("auth.success");
        assert_eq!(renewed["user_id"], "ana");
        assert_ne!(renewed["expires_at"], ana.session["expires_at"]);
        // A second connection with the short token shows when the time is over for clients that did not
        // renew.
        let mut other = Client::open(host.address, "ana", &short).await;
        assert_eq!(other.expect_close().await, 4001);
        ana.expect_alive().await;
    })
    .await;
}

/// The test enables every log line of this process and its crates.
#[tokio::test]
async fn no_token_is_ever_in_the_log() {
    Host::test(Options::default().set("LOG", "trace"), async |host| {
        let mut secrets = Vec::new();
        let mut sign = |token: Token| {
            let text = token.sign();
            secrets.push(text.rsplit_once('.').expect("a signature").1.to_owned());
            text
        };
        for handshake in [
            Handshake::bearer(&sign(Token::of("ana").claim("n", json!(1)))),
            Handshake::subprotocol(&sign(Token::of("ana").claim("n", json!(2)))),
            Handshake::query(&sign(Token::of("ana").claim("n", json!(3)))),
        ] {
            Client::open(host.address, "ana", &handshake).await;
        }
        let bad = Token::of("ana").expires_in_s(-100);
        for handshake in
            [Handshake::bearer(&sign(bad.clone())), Handshake::query(&sign(bad.claim("n", json!(4))))]
        {
            assert_eq!(refused(host, &handshake).await.0, 401);
        }
        let (mut ana, _) = Client::connect(host.address, &Handshake::bare()).await.unwrap();
        let frame = json!({"token": sign(Token::of("ana").claim("n", json!(5)))});
        ana.request("auth", frame).await.expect("auth.success");
        let frame = json!({"token": sign(Token::of("ana").claim("n", json!(6)))});
        ana.request("auth.refresh", frame).await.expect("auth.success");
        let frame = json!({"token": sign(Token::of("bo").claim("n", json!(7)))});
        ana.request("auth.refresh", frame).await.expect_error("forbidden");
        let rest = host.rest_with(sign(Token::of("ana").claim("n", json!(8))));
        let ticket = rest.post("/api/v1/ws-tickets", json!({})).await.expect(200);
        secrets.push(ticket["ticket"].as_str().unwrap().to_owned());
        Client::open(host.address, "ana", &Handshake::ticket(secrets.last().unwrap())).await;

        let log = host.log();
        assert!(log.contains("DEBUG") && log.contains("/ws"), "the log says little");
        for (place, secret) in secrets.iter().enumerate() {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "secret {place}");
        }
    })
    .await;
}

#[tokio::test]
async fn pages_of_unlisted_origins_are_refused() {
    let listed = "https://chat.example,http://localhost:3000";
    Host::test(Options::default().set("ORIGINS", listed), async |host| {
        let token = Token::of("ana").sign();
        for (origin, is_admitted) in
            [("https://chat.example", true), ("https://evil.example", false), ("null", false)]
        {
            let handshake = Handshake::bearer(&token).header("origin", origin);
            match Client::connect(host.address, &handshake).await {
                Ok((mut client, _)) => {
                    assert!(is_admitted, "{origin}");
                    client.expect("auth.success").await;
                }
                Err(NotOpened::Refused(head, body)) => {
                    assert!(!is_admitted && head.status == 403, "{origin}: {body}");
                }
                Err(lost) => panic!("{origin}: {lost}"),
            }
            let headers = [("origin", origin), ("access-control-request-method", "POST")];
            let allowed = |answer: &switchboard_tests::rest::Answer, name: &str| {
                answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
            };
            // Whether the user is signed in does not matter: the browser asks without the token.
            let asked = host
                .rest_with(None)
                .send(hyper::Method::OPTIONS, "/api/v1/conversations", &headers, "")
                .await;
            assert_eq!(asked.status, 204, "{asked}");
            let expected = is_admitted.then(|| origin.to_owned());
            assert_eq!(allowed(&asked, "access-control-allow-origin"), expected);
            let methods = allowed(&asked, "access-control-allow-methods");
            assert_eq!(methods.is_some_and(|methods| methods.contains("POST")), is_admitted);
            let answer =
                host.rest("ana").send(hyper::Method::GET, "/api/v1/conversations", &headers, "").await;
            assert_eq!(allowed(&answer, "access-control-allow-origin"), expected);
            assert_eq!(allowed(&answer, "vary").as_deref(), Some("origin"));
        }
        // A client that is not a browser sends none.
        Client::open(host.address, "ana", &Handshake::bearer(&token)).await;
    })
    .await;
}
