//! REST, from valid requests to hostile ones.

use super::backend::{Rest, TestGateway, token};
use switchboard_core::limits::BODY_BYTES_MAX;

fn bearer() -> String {
    format!("Bearer {}", token("ana"))
}

#[tokio::test]
async fn a_request_reaches_its_handler_without_its_credentials() {
    let server = TestGateway::open().await;
    let bearer = bearer();
    let headers = [
        ("authorization", bearer.as_str()),
        ("cookie", "a=b"),
        ("content-type", "Application/JSON; charset=utf-8"),
        ("x-request-id", "mine-1"),
        ("idempotency-key", "k"),
        ("x-switchboard-tester", "correct-horse"),
    ];
    let answer = server.rest("POST", "/api/v1/echo?q=con+duong&q=%C4%91", &headers, r#"{"a":1}"#).await;
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/json"));
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    let seen = answer.json();
    assert_eq!((&seen["id"], &seen["method"]), (&"mine-1".into(), &"POST".into()));
    assert_eq!(seen["query"], serde_json::json!([["q", "con duong"], ["q", "đ"]]));
    assert_eq!((&seen["body"], &seen["caller"]), (&r#"{"a":1}"#.into(), &"ana".into()));
    let names = seen["headers"].to_string();
    assert!(
        names.contains("idempotency-key") && !names.contains("authorization") && !names.contains("cookie")
    );
    assert!(!names.contains("tester"), "no recording of the call may have the value: {names}");
    assert_eq!(seen["tester"], "correct-horse");
    let value = "x".repeat(65);
    let long = [("x-switchboard-tester", value.as_str()), headers[0]];
    let answer = server.rest("POST", "/api/v1/echo", &long, "").await;
    assert!(answer.json()["tester"].is_null(), "a longer value selects nothing");
}

#[tokio::test]
async fn what_cannot_be_answered_is_a_problem_with_a_request_id() {
    let server = TestGateway::open().await;
    let bearer = bearer();
    let signed = ("authorization", bearer.as_str());
    let json = ("content-type", "application/json");
    for (method, path, headers, body, status, code) in [
        ("GET", "/nothing", vec![], "", 404, "not_found"),
        ("GET", "/api/v1/echo", vec![], "", 401, "unauthorized"),
        ("GET", "/api/v1/echo", vec![("authorization", "Bearer nonsense")], "", 401, "unauthorized"),
        ("GET", "/api/v1/echo", vec![("authorization", "nonsense")], "", 401, "unauthorized"),
        ("GET", "/public", vec![("authorization", "Bearer nonsense")], "", 401, "unauthorized"),
        ("DELETE", "/api/v1/echo", vec![signed], "", 405, "malformed"),
        (
            "POST",
            "/api/v1/echo",
            vec![signed, ("content-type", "text/plain")],
            "{}",
            415,
            "unsupported_media_type",
        ),
        ("POST", "/api/v1/echo", vec![signed], "{}", 415, "unsupported_media_type"),
        (
            "POST",
            "/api/v1/echo",
            vec![signed, json, ("content-encoding", "gzip")],
            "x",
            415,
            "unsupported_media_type",
        ),
        ("GET", "/api/v1/echo?a=%zz", vec![signed], "", 400, "malformed"),
        ("GET", "/api/v1/echo?a=%ff", vec![signed], "", 400, "malformed"),
        ("GET", "/api/v1/echo?limited", vec![signed], "", 429, "rate_limited"),
    ] {
        let answer = server.rest(method, path, &headers, body).await;
        let problem = answer.problem();
        assert_eq!((answer.status, problem["code"].as_str().unwrap()), (status, code), "{method} {path}");
        match status {
            405 => assert_eq!(answer.headers["allow"], "GET, POST"),
            429 => assert_eq!(answer.headers["retry-after"], "3"),
            401 => assert_eq!(answer.headers["www-authenticate"], "Bearer"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_body_may_have_64_kib_and_a_larger_one_is_refused_unread() {
    let server = TestGateway::open().await;
    let bearer = bearer();
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let largest = "x".repeat(BODY_BYTES_MAX);
    assert_eq!(server.rest("POST", "/api/v1/echo", &headers, &largest).await.status, 200);

    let head = format!(
        "POST /api/v1/echo HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\ncontent-type: application/json\r\n"
    );
    // A body that is announced but never sent: the host does not wait for it.
    let announced = server.raw(format!("{head}content-length: {}\r\n\r\n", BODY_BYTES_MAX + 1)).await;
    let announced = Rest::parse(&announced);
    assert_eq!((announced.status, &announced.problem()["code"]), (413, &"too_large".into()));
    assert_eq!(announced.headers["connection"], "close");

    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}1\r\nx\r\n");
    assert!(server.raw(chunked).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn head_and_options_follow_from_get() {
    let server = TestGateway::open().await;
    let head = server.rest("HEAD", "/public", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let options = server.rest("OPTIONS", "/public", &[], "").await;
    assert_eq!((options.status, options.headers["allow"].as_str()), (204, "GET"));
    assert!(options.headers.contains_key("x-request-id"));
    assert_eq!(server.rest("OPTIONS", "/nothing", &[], "").await.status, 404);
    assert_eq!(server.rest("HEAD", "/nothing", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_handler_does_not_decide_how_its_bytes_travel() {
    let server = TestGateway::open().await;
    let answer = server.rest("GET", "/odd", &[], "").await;
    assert_eq!((answer.status, answer.body.as_str()), (201, "{}"));
    assert_eq!(answer.headers["content-length"], "2");
    assert_eq!(answer.headers["x-own"], "yes");
    assert!(!answer.headers.contains_key("x-bad"));
}

#[tokio::test]
async fn broken_requests_cost_their_own_connection() {
    let server = TestGateway::open().await;
    for broken in [
        "\0\x01\x02\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ] {
        let answer = server.raw(broken).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{broken:?}: {answer}");
        // Bytes that are not a request get an answer too.
        assert!(answer.is_empty() || is_problem(&answer), "{broken:?}: {answer}");
    }
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = server.raw(format!("GET /public HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431") && is_problem(&answer), "{answer}");
    let long = "x".repeat(100_000);
    let answer = server.raw(format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 4") && is_problem(&answer), "{answer}");
    assert_eq!(server.rest("GET", "/public", &[], "").await.status, 200);
}

/// With one request id in its head and its body.
fn is_problem(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    head.contains("application/problem+json") && id.is_some() && body["request_id"].as_str() == id
}
