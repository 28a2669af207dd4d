//! Every bound of the wire: one beyond it, and exactly at it.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::frames;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::socket::{Handshake, NotOpened};
use switchboard_tests::token::Token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const FRAME_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A ping of exactly this many bytes.
fn ping_of(bytes: usize) -> String {
    let bare = r#"{"type":"ping","id":"big","payload":{"pad":""}}"#;
    bare.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - bare.len())))
}

#[tokio::test]
async fn a_frame_of_64_kib_is_accepted_and_one_more_byte_closes() {
    Host::test(Options::default(), async |host| {
        let mut ana = host.client("ana").await;
        ana.write_text(&ping_of(FRAME_BYTES_MAX)).await;
        ana.reply_to(&json!("big")).await.expect("pong");
        // The header alone is enough: the bytes need not come.
        ana.write_raw(&frames::encode_header(frames::TEXT, FRAME_BYTES_MAX + 1)).await.unwrap();
        assert_eq!(ana.expect_close().await, 1009);
    })
    .await;
}

#[tokio::test]
async fn fragments_are_put_together_and_counted_together() {
    Host::test(Options::default(), async |host| {
        let mut ana = host.client("ana").await;
        let text = ping_of(1000);
        let (first, second) = text.as_bytes().split_at(400);
        ana.write_raw(&frames::encode_fragment(frames::TEXT, first, false)).await.unwrap();
        // A control frame may come between fragments.
        ana.write_raw(&frames::encode(frames::PING, b"still there?")).await.unwrap();
        ana.write_raw(&frames::encode_fragment(frames::CONTINUATION, second, true)).await.unwrap();
        ana.reply_to(&json!("big")).await.expect("pong");

        let half = vec![b'x'; FRAME_BYTES_MAX / 2];
        ana.write_raw(&frames::encode_fragment(frames::TEXT, &half, false)).await.unwrap();
        ana.write_raw(&frames::encode_fragment(frames::CONTINUATION, &half, false)).await.unwrap();
        ana.write_raw(&frames::encode_fragment(frames::CONTINUATION, b"x", true)).await.unwrap();
        assert_eq!(ana.expect_close().await, 1009);
    })
    .await;
}

#[tokio::test]
async fn an_invalid_websocket_frame_closes_with_its_reason() {
    Host::test(Options::default(), async |host| {
        let ping = br#"{"type":"ping"}"#;
        for (what, bytes, code) in [
            ("not masked", frames::encode_unmasked(frames::TEXT, ping), 1002),
            ("a reserved bit", frames::encode_as(0xc1, ping), 1002),
            ("an unknown opcode", frames::encode_as(0x83, ping), 1002),
            ("a continuation of nothing", frames::encode(frames::CONTINUATION, ping), 1002),
            ("a fragmented control frame", frames::encode_as(0x09, b"x"), 1002),
            ("a control frame of 126 bytes", frames::encode(frames::PING, &[b'x'; 126]), 1002),
            (
                "a close code that must not be sent",
                frames::encode(frames::CLOSE, &1005u16.to_be_bytes()),
                1002,
            ),
        ] {
            let mut eve = host.client("eve").await;
            eve.write_raw(&bytes).await.unwrap();
            assert_eq!(eve.expect_close().await, code, "{what}");
        }
        let mut ana = host.client("ana").await;
        ana.write_raw(&frames::encode(frames::CLOSE, &1000u16.to_be_bytes())).await.unwrap();
        assert_eq!(ana.expect_close().await, 1000);
    })
    .await;
}

#[tokio::test]
async fn ten_unreadable_frames_are_tolerated_and_the_eleventh_closes() {
    Host::test(Options::default(), async |host| {
        let mut eve = host.client("eve").await;
        let senseless: [Vec<u8>; 10] = [
            frames::encode(frames::TEXT, b"null"),
            frames::encode(frames::TEXT, b""),
            frames::encode(frames::TEXT, b"hello"),
            frames::encode(frames::TEXT, b"[1,2]"),
            frames::encode(frames::TEXT, b"{}"),
            frames::encode(frames::TEXT, br#"{"type":7}"#),
            frames::encode(frames::TEXT, br#"{"type":"ping""#),
            frames::encode(frames::TEXT, "[".repeat(10_000).as_bytes()),
            frames::encode(frames::TEXT, br#"{"type":"ping"} and more"#),
            frames::encode(frames::BINARY, br#"{"type":"ping"}"#),
        ];
        for bytes in &senseless {
            eve.write_raw(bytes).await.unwrap();
            eve.expect_error("malformed").await;
        }
        eve.expect_alive().await;
        eve.write_text("eleven").await;
        assert_eq!(eve.expect_close().await, 4002);
    })
    .await;
}

#[tokio::test]
async fn replies_repeat_the_id_and_bad_ids_are_refused() {
    Host::test(Options::default(), async |host| {
        let mut ana = host.client("ana").await;
        for id in [json!("x".repeat(64)), json!(""), json!(0), json!(-5), json!(9_007_199_254_740_993_u64)] {
            ana.write(json!({"type": "ping", "id": id})).await;
            ana.reply_to(&id).await.expect("pong");
        }
        for id in [json!("x".repeat(65)), json!(1.5), json!([1]), json!({"a": 1}), json!(true)] {
            ana.write(json!({"type": "ping", "id": id})).await;
            let error = ana.expect("error").await;
            assert!(matches!(error["code"].as_str(), Some("malformed" | "invalid")), "{error}");
        }
        ana.expect_alive().await;
    })
    .await;
}

#[tokio::test]
async fn unknown_types_and_wrong_payloads_get_errors() {
    Host::test(Options::default(), async |host| {
        let mut ana = host.client("ana").await;
        for unknown in ["nonsense", "message.explode", "", "auth.success", "message.new"] {
            let error = ana.request(unknown, json!({})).await.expect("error");
            assert!(matches!(error["code"].as_str(), Some("not_found" | "malformed" | "invalid")), "{error}");
        }
        for payload in [json!([]), json!("text"), json!(7)] {
            let error = ana.request("subscribe", payload).await.expect("error");
            assert!(matches!(error["code"].as_str(), Some("malformed" | "invalid")), "{error}");
        }
        // A frame without an id gets an error without an id.
        ana.write(json!({"type": "nonsense", "payload": {}})).await;
        ana.expect("error").await;
        ana.expect_alive().await;
    })
    .await;
}

#[tokio::test]
async fn the_connections_of_one_user_are_limited() {
    Host::test(Options::default().set("CONNECTIONS_PER_USER_MAX", 3), async |host| {
        let mut standing = Vec::new();
        for _ in 0..3 {
            standing.push(host.client("ana").await);
        }
        let handshake = Handshake::bearer(&Token::of("ana").sign());
        let (mut fourth, _) = Client::connect(host.address, &handshake).await.unwrap();
        assert_eq!(fourth.expect_close().await, 4009);
        for client in &mut standing {
            client.expect_alive().await;
        }
        host.client("bo").await.expect_alive().await;
        // The end of another connection makes room.
        drop(standing.pop());
        until("a place to be free", async || {
            let (mut client, _) = Client::connect(host.address, &handshake).await.ok()?;
            client.next_or_close().await.is_ok_and(|frame| frame["type"] == "auth.success").then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_full_node_refuses_connections_with_a_reason() {
    Host::test(Options::default().set("CONNECTIONS_MAX", 2), async |host| {
        let (mut ana, _bo) = (host.client("ana").await, host.client("bo").await);
        let handshake = Handshake::bearer(&Token::of("cy").sign());
        match Client::connect(host.address, &handshake).await {
            Err(NotOpened::Refused(head, body)) => {
                assert_eq!(head.status, 503, "{body}");
                assert!(head.header("retry-after").is_some());
                let problem: Value = serde_json::from_str(&body).expect("a problem document");
                assert_eq!(problem["code"], "unavailable");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("one too many was let in"),
        }
        ana.expect_alive().await;
        host.rest("cy").get("/api/v1/conversations").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_flooding_client_is_warned_twice_and_then_closed() {
    let options = Options::default().set("FRAMES_PER_SECOND", 1).set("FRAMES_BURST", 5);
    Host::test(options, async |host| {
        let mut eve = host.client("eve").await;
        // Goes on whatever it receives: refusals within a second belong to one overflow.
        let (mut warnings, mut pongs) = (0, 0);
        let code = loop {
            eve.write(json!({"type": "ping", "id": warnings})).await;
            match eve.next_or_close().await {
                Ok(frame) if frame["type"] == "error" => {
                    assert_eq!(frame["payload"]["code"], "rate_limited", "{frame}");
                    assert!(frame["payload"]["retry_after_ms"].is_u64(), "{frame}");
                    warnings += 1;
                }
                Ok(_) => pongs += 1,
                Err(code) => break code,
            }
        };
        assert_eq!(code, 4029);
        assert!(warnings >= 3 && pongs >= 5, "{warnings} warnings, {pongs} pongs");
    })
    .await;
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused_before_it_is_read() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana"]).await;
        let path = format!("/api/v1/conversations/{room}/messages");
        // At the bound the host reads it and judges its content.
        let json = [("content-type", "application/json")];
        let pad = |bytes: usize| {
            let bare = r#"{"content":"fits","pad":""}"#;
            bare.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - bare.len())))
        };
        let ana = host.rest("ana");
        ana.send(Method::POST, &path, &json, pad(BODY_BYTES_MAX)).await.expect(201);
        ana.send(Method::POST, &path, &json, pad(BODY_BYTES_MAX + 1)).await.expect_problem(413, "too_large");

        // The body is announced and never sent: the answer does not wait for it.
        let head = |length: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{length}\r\n\r\n",
                Token::of("ana").sign()
            )
        };
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream.write_all(head("content-length: 1000000000").as_bytes()).await.unwrap();
        assert!(first_line(&mut stream).await.contains(" 413 "));

        // A body of unknown length is counted while it arrives.
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream.write_all(head("transfer-encoding: chunked").as_bytes()).await.unwrap();
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        for _ in 0..5 {
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        assert!(first_line(&mut stream).await.contains(" 413 "));
    })
    .await;
}

async fn first_line(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.contains(&b'\n') && stream.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {}
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("an answer");
    String::from_utf8_lossy(&read).lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn requests_for_no_route_get_their_errors() {
    Host::test(Options::default(), async |host| {
        let ana = host.rest("ana");
        ana.get("/api/v1/nonsense").await.expect_problem(404, "not_found");
        ana.get("/").await.expect_problem(404, "not_found");
        let wrong_method = ana.put("/api/v1/conversations", json!({})).await;
        assert_eq!(wrong_method.status, 405, "{wrong_method}");
        assert!(wrong_method.headers.contains_key("allow"));
        let answer =
            ana.send(Method::POST, "/api/v1/conversations", &[("content-type", "text/plain")], "{}").await;
        answer.expect_problem(415, "unsupported_media_type");
        let plain = host.rest("ana").get("/ws").await;
        assert!(matches!(plain.status, 400 | 426), "{plain}");
        // The answer contains the id of the request.
        assert!(ana.get("/api/v1/conversations").await.headers.contains_key("x-request-id"));
    })
    .await;
}

#[tokio::test]
async fn the_subscriptions_of_one_connection_are_limited() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let mut ana = host.client("ana").await;
        let many: Vec<_> = (0..1500).map(|n| format!("0199aaaa-0000-7000-8000-{n:012}")).collect();
        let reply = ana.request("subscribe", json!({"conversation_ids": many})).await;
        // Refused one by one or as a whole, never with a 500 or a lost connection.
        match reply.0["type"].as_str() {
            Some("subscribed") => {
                assert_eq!(reply.0["payload"]["refused"].as_array().map(Vec::len), Some(1500))
            }
            _ => reply.expect_invalid("conversation_ids"),
        }
        ana.expect_alive().await;
    })
    .await;
}
