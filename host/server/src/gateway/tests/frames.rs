//! One connection: order, answers, pushes, bounds and closes.

use std::time::Duration;

use fastwebsockets::{Frame, OpCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::backend::{ConnectionEvent, LARGE_REPLY_BYTES, TestGateway, token, within};
use switchboard_core::config::Config;
use switchboard_core::limits::{
    CALLS_OF_CONNECTION_BYTES_MAX, FRAME_BYTES_MAX, QUEUE_BYTES_HARD, QUEUE_BYTES_MAX,
};

#[tokio::test]
async fn every_frame_gets_the_answer_it_asked_for() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    for (frame, answer, code) in [
        (r#"{"type":"echo","id":1,"payload":{"a":"ü"}}"#, "echoed", Value::Null),
        (r#"{"type":"ping","id":2}"#, "pong", Value::Null),
        (r#"{"type":"refuse","id":3}"#, "error", "forbidden".into()),
        (r#"{"type":"unheard-of","id":5}"#, "error", "malformed".into()),
        (r#"{"type":"silent","id":6}"#, "", Value::Null),
        (r#"{"type":"echo","id":7.5}"#, "error", "invalid".into()),
        ("{", "error", "malformed".into()),
    ] {
        ana.send(frame).await;
        if !answer.is_empty() {
            let reply = ana.expect(answer).await;
            assert_eq!(reply["payload"]["code"], code, "{frame}");
            let sent: Option<Value> =
                serde_json::from_str::<Value>(frame).ok().map(|frame| frame["id"].clone());
            assert_eq!(reply["id"], sent.filter(Value::is_i64).unwrap_or_default());
        }
    }
    ana.send(r#"{"type":"ping","id":2}"#).await;
    ana.expect("pong").await;
    // Her own address, and the one that the reply to `echo` confirmed.
    assert_eq!(server.hub.addresses(), 2);
    let touches = server.rooms.touches.lock().unwrap();
    assert!(touches.contains(&("ana".into(), true)) && touches.contains(&("ana".into(), false)));
}

#[tokio::test]
async fn frames_wait_for_the_call_before_them_and_pushes_do_not() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    ana.send(r#"{"type":"slow","id":1}"#).await;
    for id in 2..30 {
        ana.send(&format!(r#"{{"type":"echo","id":{id}}}"#)).await;
    }
    assert_eq!(server.next_event().await, ConnectionEvent::Called("slow".into()));
    server.push("ana", r#"{"type":"message.new","payload":{}}"#).await;
    ana.expect("message.new").await;
    server.rooms.gate.0.add_permits(1);
    for id in 1..30 {
        assert_eq!(ana.expect("echoed").await["id"], id);
    }
}

/// All calls end at the same time, and their replies together are larger than the queue. The client reads.
#[tokio::test]
async fn the_replies_of_many_calls_do_not_overflow_the_queue_of_a_client_that_reads() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    let calls = QUEUE_BYTES_HARD / LARGE_REPLY_BYTES + 2;
    for id in 0..calls {
        ana.send(&format!(r#"{{"type":"overlaps-large","id":{id}}}"#)).await;
    }
    for _ in 0..calls {
        assert_eq!(server.next_event().await, ConnectionEvent::Called("overlaps-large".into()));
    }
    server.rooms.gate.0.add_permits(calls);
    for id in 0..calls {
        assert_eq!(ana.expect("echoed").await["id"], id);
    }
}

/// Frames that are larger than the queue together, as fast as the client can send them.
#[tokio::test]
async fn large_frames_that_overlap_are_all_answered_in_order() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(FRAME_BYTES_MAX - 100));
    let calls = 2 * QUEUE_BYTES_HARD / payload.len();
    let frames: Vec<_> =
        (0..calls).map(|id| format!(r#"{{"type":"overlaps","id":{id},"payload":{payload}}}"#)).collect();
    for frame in &frames {
        ana.send(frame).await;
    }
    // The calls end at the same time.
    let at_once = CALLS_OF_CONNECTION_BYTES_MAX.div_ceil(payload.len());
    for _ in 0..at_once {
        assert_eq!(server.next_event().await, ConnectionEvent::Called("overlaps".into()));
    }
    server.rooms.gate.0.add_permits(calls);
    for id in 0..calls {
        assert_eq!(ana.expect("echoed").await["id"], id);
    }
}

#[tokio::test]
async fn fragments_control_frames_and_large_messages_are_understood() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    let part = |last, opcode, text: &'static str| Frame::new(last, opcode, None, text.as_bytes().into());
    ana.socket.write_frame(part(false, OpCode::Text, r#"{"type":"ec"#)).await.unwrap();
    ana.socket.write_frame(part(true, OpCode::Ping, "there?")).await.unwrap();
    let pong = within(ana.socket.read_frame()).await.unwrap();
    assert_eq!((pong.opcode, &*pong.payload), (OpCode::Pong, b"there?".as_slice()));
    ana.socket.write_frame(part(true, OpCode::Continuation, r#"ho","id":1}"#)).await.unwrap();
    assert_eq!(ana.expect("echoed").await["id"], 1);

    let envelope = r#"{"type":"echo","id":2,"payload":{"a":""}}"#.len();
    let largest = "x".repeat(FRAME_BYTES_MAX - envelope);
    ana.send(&format!(r#"{{"type":"echo","id":2,"payload":{{"a":"{largest}"}}}}"#)).await;
    assert_eq!(ana.expect("echoed").await["payload"]["a"].as_str().unwrap().len(), largest.len());
    ana.send(&format!(r#"{{"type":"echo","id":3,"payload":{{"a":"{largest}x"}}}}"#)).await;
    ana.expect_close(1009).await;
}

#[tokio::test]
async fn a_few_bad_frames_are_answered_and_too_many_end_it() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    for bad in 0..11 {
        match bad % 2 {
            0 => ana.send("nonsense").await,
            _ => ana.socket.write_frame(Frame::binary(b"\0".as_slice().into())).await.unwrap(),
        }
        assert_eq!(ana.expect("error").await["payload"]["code"], "malformed");
    }
    ana.expect_close(4002).await;
    assert_eq!(server.next_event().await, ConnectionEvent::Closed { user: "ana".into(), code: 4002 });
}

#[tokio::test]
async fn text_that_is_not_utf8_closes_with_1007() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    let not_utf8 = Frame::new(false, OpCode::Text, None, b"{\xff".as_slice().into());
    ana.socket.write_frame(not_utf8).await.unwrap();
    ana.expect_close(1007).await;
    assert_eq!(server.next_event().await, ConnectionEvent::Closed { user: "ana".into(), code: 1007 });
}

#[tokio::test]
async fn a_connection_ends_with_the_code_of_whoever_ended_it() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    server.push("ana", r#"{"type":"last.words","payload":{}}"#).await;
    server.disconnect("ana").await;
    ana.expect("last.words").await;
    ana.expect_close(4003).await;
    assert_eq!(server.next_event().await, ConnectionEvent::Closed { user: "ana".into(), code: 4003 });

    let mut bo = server.client("bo").await;
    bo.send(r#"{"type":"silent"}"#).await;
    bo.socket.write_frame(Frame::close(1001, b"bye")).await.unwrap();
    bo.expect_close(1001).await;
    assert_eq!(server.next_event().await, ConnectionEvent::Called("silent".into()));
    assert_eq!(server.next_event().await, ConnectionEvent::Closed { user: "bo".into(), code: 1001 });
}

#[tokio::test]
async fn a_call_outlives_the_connection_that_asked_for_it() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    ana.send(r#"{"type":"slow","id":1}"#).await;
    assert_eq!(server.next_event().await, ConnectionEvent::Called("slow".into()));
    server.disconnect("ana").await;
    ana.expect_close(4003).await;
    drop(ana);
    assert_eq!(server.gateway.connections(), 1);
    server.rooms.gate.0.add_permits(1);
    assert_eq!(server.next_event().await, ConnectionEvent::Closed { user: "ana".into(), code: 4003 });
}

#[tokio::test]
async fn a_reader_that_reads_slowly_gets_everything_in_order() {
    let mut server = TestGateway::open().await;
    let mut ana = server.client("ana").await;
    let filler = "x".repeat(4000);
    let (mut pushed, mut received) = (0, 0);
    // More than the buffers of both sockets hold, as fast as the queue takes it.
    let unread_max = QUEUE_BYTES_HARD / (filler.len() + 100);
    while received < 3000 {
        if pushed < 3000 && pushed - received < unread_max {
            server.push("ana", &format!(r#"{{"type":"n","payload":{{"n":{pushed},"x":"{filler}"}}}}"#)).await;
            pushed += 1;
        } else {
            assert_eq!(ana.expect("n").await["payload"]["n"], received);
            received += 1;
        }
    }
}

#[tokio::test]
async fn a_reader_that_reads_nothing_is_closed_and_costs_a_bounded_queue() {
    let mut server = TestGateway::open().await;
    let ana = server.client("ana").await;
    let frame = format!(r#"{{"type":"n","payload":"{}"}}"#, "x".repeat(60_000));
    within(async {
        // Part of it is in the kernels' buffers by then.
        loop {
            for _ in 0..2 * QUEUE_BYTES_MAX / frame.len() + 2 {
                server.push("ana", &frame).await;
            }
            tokio::task::yield_now().await;
            if let Ok(event) = server.try_next_event() {
                assert_eq!(event, ConnectionEvent::Closed { user: "ana".into(), code: 4008 });
                break;
            }
        }
    })
    .await;
    drop(ana);
}

#[tokio::test]
async fn a_reader_that_reads_nothing_can_be_sent_away() {
    let config = Config { frames_per_second: 1 << 30, frames_burst: 1 << 30, ..Config::default() };
    let mut server = TestGateway::open_with(config).await;
    let mut ana = server.client("ana").await;
    let frame = format!(r#"{{"type":"echo","payload":"{}"}}"#, "x".repeat(60_000));
    // The gateway reads no more frames once the client leaves too many answers unread.
    let mut answered = 0;
    while let Ok(event) = timeout(Duration::from_millis(500), async {
        ana.send(&frame).await;
        server.next_event().await
    })
    .await
    {
        assert_eq!(event, ConnectionEvent::Called("echo".into()));
        answered += frame.len();
    }
    // The kernels hold part of the answers, but not the megabytes that they could.
    assert!(answered < 4 * QUEUE_BYTES_MAX, "{answered} bytes");
    server.disconnect("ana").await;
    assert_eq!(server.next_event().await, ConnectionEvent::Closed { user: "ana".into(), code: 4003 });
    drop(ana);
}

/// The outlet's queue is empty: the unread bytes are answers of the host itself.
#[tokio::test]
async fn a_client_that_pings_and_reads_nothing_is_closed() {
    let config =
        Config { stall_ms: 300, frames_per_second: 1 << 30, frames_burst: 1 << 30, ..Config::default() };
    let mut server = TestGateway::open_with(config).await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {}\r\n\r\n",
        token("ana")
    );
    stream.write_all(handshake.as_bytes()).await.unwrap();
    assert!(matches!(server.next_event().await, ConnectionEvent::Opened { .. }));
    let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[b'x'; 125]].concat().repeat(100);
    let pings = async { while stream.write_all(&ping).await.is_ok() {} };
    let ends = async {
        assert_eq!(server.next_event().await, ConnectionEvent::Closed { user: "ana".into(), code: 4008 });
    };
    tokio::join!(pings, ends);
}

/// Bytes of a hostile or broken peer after a valid handshake; some in the same packet.
#[tokio::test]
async fn bytes_behind_the_handshake_are_frames_and_broken_ones_end_it() {
    let server = TestGateway::open().await;
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {}\r\n\r\n",
        token("ana")
    );
    let ping = |mask: u8| {
        let text = br#"{"type":"ping","id":"early"}"#;
        let mut frame = vec![0x81, 0x80 | text.len() as u8, mask, mask, mask, mask];
        frame.extend(text.iter().map(|byte| byte ^ mask));
        frame
    };
    for (broken, code) in [(vec![0x81, 0x05, b'h'], 1002u16), (vec![0xf1, 0x80, 0, 0, 0, 0], 1002)] {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let bytes = [handshake.as_bytes(), &ping(0x2a), &broken].concat();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the accept key of RFC 6455");
        assert!(text.find("auth.success").unwrap() < text.find(r#""id":"early""#).unwrap());
        let close = code.to_be_bytes();
        assert!(answer.windows(2).any(|pair| pair == close), "{text}");
    }
}

#[tokio::test]
async fn frames_beyond_the_rate_are_refused_and_the_connection_stays() {
    let config =
        switchboard_core::config::Config { frames_per_second: 1, frames_burst: 3, ..Default::default() };
    let mut server = TestGateway::open_with(config).await;
    let mut ana = server.client("ana").await;
    for id in 1..=6 {
        ana.send(&format!(r#"{{"type":"echo","id":{id}}}"#)).await;
    }
    for id in 1..=3 {
        assert_eq!(ana.expect("echoed").await["id"], id);
    }
    for id in 4..=6 {
        let refused = ana.expect("error").await;
        assert_eq!((&refused["id"], &refused["payload"]["code"]), (&id.into(), &"rate_limited".into()));
        assert_eq!(refused["payload"]["retry_after_ms"], 1000);
    }
}
