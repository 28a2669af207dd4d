//! Clients that hold connections: they read nothing, send nothing, or do not sign in. All other clients are
//! served.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use switchboard_tests::client::Client;
use switchboard_tests::frames;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::rest::Rest;
use switchboard_tests::socket::{Handshake, NotOpened};
use switchboard_tests::token::Token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("the listener accepts")
}

/// Sends `request` many times and never reads.
async fn pipelining(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = connect(address).await;
    let many = request.repeat(200);
    // The host reads no further request before it has answered.
    let _ = tokio::time::timeout(Duration::from_millis(100), stream.write_all(many.as_bytes())).await;
    stream
}

/// The sum of a counter of the host, over all labels that contain `label`.
async fn counted(host: &Host, name: &str, label: &str) -> u64 {
    let page = host.admin.rest().get("/metrics").await;
    let lines = String::from_utf8_lossy(&page.body).into_owned();
    lines
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

/// The status line of the response to these bytes.
async fn status_of(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address).await;
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let reading = async {
        while !answer.contains(&b'\n') && stream.read_buf(&mut answer).await.is_ok_and(|bytes| bytes > 0) {}
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("an answer");
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn clients_that_read_no_answer_lose_their_connections() {
    Host::test(Options::default().set("STALL_MS", 500), async |host| {
        let mut stalled = Vec::new();
        // The host answers each until the kernel's buffers are full: some megabytes.
        for _ in 0..8 {
            let request = "GET /api/v1/openapi.yaml HTTP/1.1\r\nhost: test\r\n\r\n";
            stalled.push(pipelining(host.address, request).await);
        }
        host.client("ana").await.expect_alive().await;
        until("the host to end them", async || {
            let stalled = counted(host, "switchboard_connections_dropped_total", "why=\"stalled\"").await;
            (stalled >= 8).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn health_is_answered_while_a_client_does_not_read_the_metrics() {
    Host::test(Options::default(), async |host| {
        let token = "authorization: Bearer wrong\r\n";
        let mut stalled = Vec::new();
        for number in 0..200 {
            let headers = if number % 2 == 0 { token } else { "" };
            let request = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
            stalled.push(pipelining(host.admin_address(), &request).await);
        }
        let operator = Rest::new(host.admin_address(), None);
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(operator.get(path).await.status, 200, "{path}");
        }
        drop(stalled);
    })
    .await;
}

#[tokio::test]
async fn unauthenticated_sockets_give_way_to_others() {
    Host::test(Options::default().set("CONNECTIONS_MAX", 3), async |host| {
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(Client::connect(host.address, &Handshake::bare()).await.unwrap().0);
        }
        // Connections of the same second are not closed.
        let handshake = Handshake::bearer(&Token::of("ana").sign());
        let mut ana = until("a place", async || match Client::connect(host.address, &handshake).await {
            Ok((client, _)) => Some(client),
            Err(NotOpened::Refused(head, _)) if head.status == 503 => None,
            Err(other) => panic!("{other}"),
        })
        .await;
        ana.expect("auth.success").await;
        assert_eq!(silent[0].expect_close().await, 1013);
        // A connection that signs in stays.
        let success = silent[1].request("auth", json!({"token": Token::of("bo").sign()})).await;
        success.expect("auth.success");
        until("the last one to give way", async || {
            Client::connect(host.address, &Handshake::bearer(&Token::of("cy").sign())).await.ok().map(drop)
        })
        .await;
        assert_eq!(silent[2].expect_close().await, 1013);
        silent[1].expect_alive().await;
    })
    .await;
}

#[tokio::test]
async fn unauthenticated_connections_of_one_address_are_limited() {
    Host::test(Options::default().set("ANONYMOUS_PER_ADDRESS_MAX", 4), async |host| {
        let mut ana = host.client("ana").await;
        let (mut first, _) = Client::connect(host.address, &Handshake::bare()).await.unwrap();
        let mut others = Vec::new();
        let more = async {
            loop {
                others.push(Client::connect(host.address, &Handshake::bare()).await.unwrap());
                if others.len() > 8 {
                    others.remove(0);
                }
            }
        };
        tokio::select! {
            code = first.expect_close() => assert_eq!(code, 1013),
            () = more => {}
        }
        ana.expect_alive().await;
        host.client("bo").await.expect_alive().await;
    })
    .await;
}

#[tokio::test]
async fn a_request_has_one_host_and_a_limited_number_of_headers() {
    Host::test(Options::default(), async |host| {
        for (address, path) in [(host.address, "/api/v1/openapi.yaml"), (host.admin_address(), "/healthz")] {
            let status = async |headers: &str| {
                status_of(address, &format!("GET {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n"))
                    .await
            };
            assert_eq!(status("host: localhost\r\n").await, "200");
            assert_eq!(status("").await, "400");
            assert_eq!(status("host: localhost\r\nhost: localhost\r\n").await, "400");
            let many = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
            assert_eq!(status(&format!("host: localhost\r\n{}", many(100))).await, "200");
            assert_eq!(status(&format!("host: localhost\r\n{}", many(200))).await, "431");
            let long = "y".repeat(40 * 1024);
            assert_eq!(status(&format!("host: localhost\r\nx: {long}\r\n")).await, "200");
            assert_eq!(status(&format!("host: localhost\r\nx: {long}{long}\r\n")).await, "431");
        }
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_can_be_read_in_two_ways_is_refused() {
    Host::test(Options::default(), async |host| {
        let bare = Handshake::bare;
        for (what, handshake) in [
            ("two keys", bare().header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")),
            ("two versions", bare().header("sec-websocket-version", "13")),
            ("another version beside", bare().header("sec-websocket-version", "8")),
            ("a body", bare().header("content-length", "5")),
            ("a body of unknown length", bare().header("transfer-encoding", "chunked")),
            ("two hosts", bare().header("host", "other")),
        ] {
            match Client::connect(host.address, &handshake).await {
                Err(NotOpened::Refused(head, body)) => assert_eq!(head.status, 400, "{what}: {body}"),
                Err(other) => panic!("{what}: {other}"),
                Ok(_) => panic!("{what}: it was opened"),
            }
        }
        Client::connect(host.address, &bare().header("content-length", "0")).await.unwrap();
    })
    .await;
}

/// As the cases 6.x and 7.5.1 of the Autobahn test suite.
#[tokio::test]
async fn text_that_is_not_utf8_closes_with_1007() {
    let fragments = |parts: &[&[u8]], is_complete: bool| -> Vec<u8> {
        let opcode = |at: usize| if at == 0 { frames::TEXT } else { frames::CONTINUATION };
        let last = |at: usize| is_complete && at + 1 == parts.len();
        let encoded =
            parts.iter().enumerate().map(|(at, part)| frames::encode_fragment(opcode(at), part, last(at)));
        // A control frame may come between two fragments.
        encoded.collect::<Vec<_>>().join(&frames::encode(frames::PING, b"between")[..])
    };
    let message = "{\"type\":\"ping\",\"id\":\"κόσμε 𝄞\"}";
    Host::test(Options::default(), async |host| {
        for bytes in [
            frames::encode(frames::TEXT, b"{\"type\":\"ping\xff\"}"),
            frames::encode(frames::TEXT, &[0xce]),
            // The last fragment need not be sent.
            frames::encode_fragment(frames::TEXT, &[0xf4, 0x90], false),
            // Each fragment alone could be part of a text, and together they are none.
            fragments(&[b"{\"type\":\"\xce", b"(\"}"], false),
            fragments(&[b"{\"a\":\"\xed", b"\xa0", b"\x80\"}"], false),
            fragments(&[message.as_bytes(), &[0xe2, 0x82]], true),
            // The reason of a close is text too.
            frames::encode(frames::CLOSE, b"\x03\xe8\xff"),
            frames::encode(frames::CLOSE, b"\x03\xe8bye \xce"),
            [&fragments(&[b"{\"type\""], false)[..], &frames::encode(frames::CLOSE, b"\x03\xe8\xc0\xaf")]
                .concat(),
        ] {
            let mut eve = host.client("eve").await;
            eve.write_raw(&bytes).await.unwrap();
            assert_eq!(eve.expect_close().await, 1007, "{bytes:x?}");
        }
        // A text may be cut within a character, and is answered.
        let mut ana = host.client("ana").await;
        let each: Vec<&[u8]> = message.as_bytes().chunks(3).collect();
        ana.write_raw(&fragments(&each, true)).await.unwrap();
        ana.reply_to(&json!("κόσμε 𝄞")).await;
        let mut bo = host.client("bo").await;
        bo.write_raw(&frames::encode(frames::CLOSE, &[b"\x03\xe8", "κόσμε".as_bytes()].concat()))
            .await
            .unwrap();
        assert_eq!(bo.expect_close().await, 1000);
    })
    .await;
}

#[tokio::test]
async fn a_web_page_with_a_name_of_its_own_reads_nothing_of_the_admin_listener() {
    Host::test(Options::default().set("ADMIN_HOSTS", "ops.chat.example"), async |host| {
        for (name, status) in
            [("evil.example", "421"), ("127.0.0.1.evil.example:9090", "421"), ("ops.chat.example", "200")]
        {
            for path in ["/metrics", "/healthz", "/"] {
                let request = format!("GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
                assert_eq!(status_of(host.admin_address(), &request).await, status, "{name} {path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_admin_tokens_are_counted_and_logged() {
    Host::test(Options::default(), async |host| {
        let began = std::time::Instant::now();
        let eve = Rest::new(host.admin_address(), "guess-number-one-of-many".to_owned());
        for _ in 0..4 {
            eve.get("/admin/v1/nodes").await.expect_problem(401, "unauthorized");
        }
        // The waits are 50, 100, 200 and 400 ms.
        assert!(began.elapsed() >= Duration::from_millis(750));
        assert_eq!(counted(host, "switchboard_admin_tokens_refused_total", "why=\"wrong\"").await, 4);
        assert!(host.log().contains("its token is not an admin token"));
        assert!(!host.log().contains("guess-number"));
        host.admin.rest().get("/admin/v1/nodes").await.expect(200);
    })
    .await;
}
