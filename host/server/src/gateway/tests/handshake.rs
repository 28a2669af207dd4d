//! Handshakes, sign-in, and the ways in which connections close.

use super::backend::{Client, ConnectionEvent, Rest, TestGateway, token, token_for, within};
use switchboard_core::config::Config;

#[tokio::test]
async fn every_form_of_a_token_opens_the_door() {
    let mut server = TestGateway::open().await;
    let (jwt, bearer) = (token("ana"), format!("Bearer {}", token("ana")));
    let listed = format!("switchboard.v1, bearer.{jwt}");
    let query = format!("/ws?token={jwt}");
    for (path, headers, selected) in [
        ("/ws", vec![("authorization", bearer.as_str()), ("user-agent", "a test")], None),
        ("/ws", vec![("sec-websocket-protocol", listed.as_str())], Some("switchboard.v1")),
        (query.as_str(), vec![], None),
    ] {
        let mut client = server.connect(path, &headers).await.unwrap();
        assert_eq!(
            client.response.headers().get("sec-websocket-protocol").map(|it| it.to_str().unwrap()),
            selected
        );
        let greeting = client.expect("auth.success").await;
        assert_eq!((&greeting["payload"]["user_id"], greeting.get("id")), (&"ana".into(), None));
        client.expect("message.new").await;
        client.expect("early.push").await;
        let ConnectionEvent::Opened { user, user_agent, remote } = server.next_event().await else {
            panic!()
        };
        assert_eq!((user.as_str(), remote.as_str()), ("ana", "127.0.0.1"));
        assert_eq!(user_agent.is_some(), headers.len() == 2);
        drop(client);
        assert_eq!(server.next_event().await, ConnectionEvent::Closed { user: "ana".into(), code: 1006 });
    }
}

#[tokio::test]
async fn a_first_frame_opens_it_too_and_frames_before_it_are_refused() {
    let mut server = TestGateway::open().await;
    let mut client = server.connect("/ws", &[]).await.unwrap();
    client.send(r#"{"type":"echo","id":1}"#).await;
    assert_eq!(client.expect("error").await["payload"]["code"], "unauthorized");
    client.send(&format!(r#"{{"type":"auth","id":"a","payload":{{"token":"{}"}}}}"#, token("ana"))).await;
    // Sent right behind the handshake, and handled after everything that comes first.
    client.send(r#"{"type":"echo","id":2,"payload":{"n":1}}"#).await;
    assert_eq!(client.expect("auth.success").await["id"], "a");
    client.expect("message.new").await;
    client.expect("early.push").await;
    assert_eq!(client.expect("echoed").await["payload"]["n"], 1);
    assert!(matches!(server.next_event().await, ConnectionEvent::Opened { .. }));
}

#[tokio::test]
async fn a_bad_token_is_401_at_the_door_and_4001_inside() {
    let server = TestGateway::open().await;
    let expired = token_for("ana", -31);
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    for header in [
        format!("authorization: Bearer {expired}"),
        "authorization: Basic YTpi".to_owned(),
        "sec-websocket-protocol: switchboard.v1, bearer.nonsense".to_owned(),
    ] {
        let answer = server
            .raw(format!(
                "GET /ws?token={} HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n{header}\r\n\r\n",
                token("ana")
            ))
            .await;
        let answer = Rest::parse(&answer);
        assert_eq!((answer.status, &answer.problem()["code"]), (401, &"unauthorized".into()), "{header}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let mut client = server.connect("/ws", &[]).await.unwrap();
    client.send(&format!(r#"{{"type":"auth","id":1,"payload":{{"token":"{expired}"}}}}"#)).await;
    assert_eq!(client.expect("error").await["payload"]["code"], "unauthorized");
    client.expect_close(4001).await;
}

#[tokio::test]
async fn invalid_handshakes_get_a_reason() {
    let server =
        TestGateway::open_with(Config { origins: vec!["https://ours.example".into()], ..Config::default() })
            .await;
    let good = [
        ("connection", "upgrade, close"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (method, wrong, status) in [
        ("POST", ("x", "y"), 405),
        ("GET", ("upgrade", "h2c"), 400),
        ("GET", ("sec-websocket-version", "8"), 400),
        ("GET", ("sec-websocket-key", "short"), 400),
        ("GET", ("origin", "https://theirs.example"), 403),
    ] {
        let mut request = format!("{method} /ws HTTP/1.1\r\nhost: x\r\n");
        for (name, value) in good.iter().filter(|(name, _)| *name != wrong.0).chain([&wrong]) {
            request += &format!("{name}: {value}\r\n");
        }
        // A request that is not an upgrade keeps the connection; a second request ends it.
        request += "\r\nGET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = server.raw(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{wrong:?}: {answer}");
        assert!(answer.contains("x-request-id"));
    }
    assert!(server.connect("/ws", &[("origin", "https://ours.example")]).await.is_ok());
    assert!(server.connect("/ws", &[]).await.is_ok(), "no browser, no origin");
}

#[tokio::test]
async fn a_full_node_refuses_and_has_room_again_when_somebody_left() {
    let mut server = TestGateway::open_with(Config { connections_max: 1, ..Config::default() }).await;
    let ana = server.client("ana").await;
    let refused = server
        .raw(
            "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
             GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: "), "{refused}");
    assert_eq!(server.gateway.connections(), 1);
    drop(ana);
    while server.next_event().await != (ConnectionEvent::Closed { user: "ana".into(), code: 1006 }) {}
    within(async {
        while server.gateway.connections() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.client("bo").await;
}

#[tokio::test]
async fn one_connection_too_many_of_a_user_is_closed() {
    let mut server =
        TestGateway::open_with(Config { connections_per_user_max: 1, ..Config::default() }).await;
    let mut first = server.client("ana").await;
    let bearer = format!("Bearer {}", token("ana"));
    let mut second = server.connect("/ws", &[("authorization", &bearer)]).await.unwrap();
    second.expect_close(4009).await;
    server.client("bo").await;
    first.send(r#"{"type":"ping"}"#).await;
    first.expect("pong").await;
}

#[tokio::test]
async fn a_drain_tells_everybody_when_to_come_back_and_finishes_what_was_asked() {
    let mut server = TestGateway::open_with(Config { drain_ms: 300, ..Config::default() }).await;
    let mut ana = server.client("ana").await;
    let mut nobody = server.connect("/ws", &[]).await.unwrap();
    let address = server.address;
    let slow = tokio::spawn(async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        answer
    });
    ana.send(r#"{"type":"slow","id":1}"#).await;
    let mut called = [server.next_event().await, server.next_event().await];
    called.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(called, [ConnectionEvent::Called("/slow".into()), ConnectionEvent::Called("slow".into())]);

    let shutdown = server.shutdown.take().unwrap();
    shutdown.begin();
    for client in [&mut ana, &mut nobody] {
        let wait = client.expect("draining").await["payload"]["reconnect_after_ms"].as_u64().unwrap();
        assert!(wait <= 300);
    }
    nobody.expect_close(1012).await;
    within(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;

    server.rooms.gate.0.add_permits(2);
    assert!(slow.await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(ana.expect("echoed").await["id"], 1);
    ana.expect_close(1012).await;
    drop((ana, nobody));
    assert!(shutdown.finished(std::time::Duration::from_secs(10)).await);
    assert_eq!(server.next_event().await, ConnectionEvent::Closed { user: "ana".into(), code: 1012 });
}

#[tokio::test]
async fn a_ticket_opens_the_door_once() {
    let server = TestGateway::open().await;
    let bearer = format!("Bearer {}", token("ana"));
    // Redis may still be connecting.
    let ticket = within(async {
        loop {
            let answer = server.rest("POST", "/api/v1/ws-tickets", &[("authorization", &bearer)], "").await;
            match answer.status {
                503 => tokio::task::yield_now().await,
                _ => break answer.json(),
            }
        }
    })
    .await;
    assert_eq!(ticket["expires_in"], 30);
    let path = format!("/ws?ticket={}", ticket["ticket"].as_str().unwrap());
    let mut client = server.connect(&path, &[]).await.unwrap();
    assert_eq!(client.expect("auth.success").await["payload"]["user_id"], "ana");
    assert!(server.connect(&path, &[]).await.is_err(), "used");
    assert!(server.connect("/ws?ticket=invented", &[]).await.is_err());
}

#[tokio::test]
async fn tickets_need_redis_and_say_so() {
    // No server listens there.
    let redis_url = Some("redis://127.0.0.1:1".to_owned());
    let server = TestGateway::open_with(Config { redis_url, ..Config::default() }).await;
    let bearer = format!("Bearer {}", token("ana"));
    let answer = server.rest("POST", "/api/v1/ws-tickets", &[("authorization", &bearer)], "").await;
    assert_eq!((answer.status, &answer.problem()["code"]), (503, &"unavailable".into()));
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(server.rest("POST", "/api/v1/ws-tickets", &[], "").await.status, 401);
    assert_eq!(server.rest("GET", "/api/v1/ws-tickets", &[], "").await.status, 405);
    let refused: Result<Client, String> = server.connect("/ws?ticket=x", &[]).await;
    assert!(refused.is_err());
}
