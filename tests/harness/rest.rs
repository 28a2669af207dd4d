//! REST for tests: one connection for each request, so that a test never depends on another request.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderMap;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Longer than any deadline of the host.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A caller with or without a token.
#[derive(Clone)]
pub struct Rest {
    host: SocketAddr,
    token: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    request: String,
}

impl Rest {
    pub fn new(host: SocketAddr, token: impl Into<Option<String>>) -> Self {
        Self { host, token: token.into() }
    }

    /// The same address without a token.
    pub fn anonymous(&self) -> Self {
        Self { host: self.host, token: None }
    }

    pub fn with_token(&self, token: &str) -> Self {
        Self { host: self.host, token: Some(token.to_owned()) }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let headers: &[(&str, &str)] =
            if body.is_some() { &[("content-type", "application/json")] } else { &[] };
        let bytes = body.map(|json| json.to_string()).unwrap_or_default();
        self.send(method, path, headers, bytes).await
    }

    /// Sends any bytes with any headers.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(method.clone(), path, headers, body)
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: no answer: {error}"))
    }

    /// `Err`: there is no answer, because the host could not be reached or ended.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method.clone()).uri(path).header("host", "test");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            // As bytes, because text beyond ASCII is allowed too.
            request = request.header(*name, value.as_bytes());
        }
        let request = request.body(Full::new(body.into())).map_err(|error| error.to_string())?;
        let exchange = async {
            let stream = TcpStream::connect(self.host).await.map_err(|error| error.to_string())?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            let driver = tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            driver.abort();
            let request = format!("{method} {path}");
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, request })
        };
        tokio::time::timeout(ANSWER_WITHIN, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {ANSWER_WITHIN:?}")))
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self}: not JSON"))
    }

    /// Checks the status and returns the answer.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// Checks for a problem document with this status and code, complete and consistent.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        let content_type = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        assert_eq!(content_type, Some("application/problem+json"), "{self}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self}");
        assert_eq!(problem["status"], status, "{self}");
        for member in ["type", "title", "detail", "request_id"] {
            assert!(problem[member].is_string(), "{self}: no {member}");
        }
        let request_id = self.headers.get("x-request-id").and_then(|value| value.to_str().ok());
        assert_eq!(problem["request_id"].as_str(), request_id, "{self}");
        if matches!(status, 429 | 503) {
            assert!(self.headers.contains_key("retry-after"), "{self}: no Retry-After");
        }
        problem
    }

    /// Checks for 422 `invalid` with this field.
    #[track_caller]
    pub fn expect_invalid(&self, field: &str) {
        let problem = self.expect_problem(422, "invalid");
        assert_eq!(problem["field"], field, "{self}");
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} → {} {}", self.request, self.status, String::from_utf8_lossy(&self.body))
    }
}
