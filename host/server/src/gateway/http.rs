//! REST: turns a request into a handler's answer, with all steps that are the same for every route. It
//! answers one route itself, `POST /api/v1/ws-tickets`, because handlers know no sockets, and passes `/ws` to
//! `websocket`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::bearer::bearer;
use super::refusal::{Refusal, method_not_allowed};
use super::remote::Remote;
use super::{Gateway, websocket};
use crate::calls::{HttpIn, Reach, TESTER};
use switchboard_contract::http as contract;
use switchboard_contract::types::Problem;
use switchboard_core::ids::RequestId;
use switchboard_core::limits::{BODY_BYTES_MAX, BODY_WAIT, SELECTION_TESTER_BYTES_MAX, TICKET_VALID_FOR};
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_http::answers::{self, Answer, REQUEST_ID};
use switchboard_protocol::session::Credentials;
use switchboard_protocol::wire::percent;
use switchboard_protocol::wire::problem::Code;

/// Answers a request. Every answer leaves through this function.
pub(super) async fn answer(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
    id: RequestId,
    remote: Remote,
    guard: ShutdownGuard,
) -> Answer {
    let began = Instant::now();
    let method = request.method().clone();
    // Never the query, which may hold a token.
    let path = request.uri().path().to_owned();
    let origin = request.headers().get(ORIGIN).cloned();
    let outcome = match path.as_str() {
        "/ws" => websocket::handshake(&gateway, request, &id, &remote, guard).await,
        "/api/v1/ws-tickets" => ticket(&gateway, &remote, &request, &id).await,
        _ => handled(&gateway, &remote, request, &id).await,
    };
    let mut answer = outcome.unwrap_or_else(|refusal| refusal.answer(&id));
    answers::name(&mut answer, &id);
    gateway.origins.add_headers(origin.as_ref(), method == Method::OPTIONS, &mut answer);
    let (status, took) = (answer.status().as_u16(), began.elapsed());
    gateway.meters.answered(label(&method), status, took);
    debug!(request_id = %id, %method, path, status, took_us = took.as_micros() as u64, "answered");
    answer
}

async fn caller(
    gateway: &Gateway,
    remote: &Remote,
    headers: &HeaderMap,
) -> Result<Option<Arc<Credentials>>, Problem> {
    let Some(token) = bearer(headers)? else { return Ok(None) };
    let credentials = gateway.auth.verify(token).await?;
    remote.slot.sign_in();
    Ok(Some(credentials))
}

async fn handled(
    gateway: &Gateway,
    remote: &Remote,
    request: Request<Incoming>,
    id: &RequestId,
) -> Result<Answer, Refusal> {
    let path = request.uri().path();
    let asked = request.method().as_str();
    let (method, public) = match (gateway.calls.reach(asked, path), request.method()) {
        (Reach::Bound { public }, _) => (asked, public),
        // A handler that answers GET also answers HEAD; hyper leaves the body out.
        (Reach::MethodNotAllowed { .. }, &Method::HEAD) => match gateway.calls.reach("GET", path) {
            Reach::Bound { public } => ("GET", public),
            Reach::MethodNotAllowed { allow } => return Err(method_not_allowed(&allow)),
            Reach::Nothing => return Err(not_found()),
        },
        (Reach::MethodNotAllowed { allow }, &Method::OPTIONS) => return Ok(options(&allow)),
        (Reach::MethodNotAllowed { allow }, _) => return Err(method_not_allowed(&allow)),
        (Reach::Nothing, _) => return Err(not_found()),
    };
    let caller = caller(gateway, remote, request.headers()).await?;
    if caller.is_none() && !public {
        return Err(Code::Unauthorized.problem("this request needs a token").into());
    }
    let query = percent::decode_query(request.uri().query().unwrap_or_default())
        .ok_or_else(|| Code::Malformed.problem("the query has an invalid percent escape"))?;
    let (headers, tester) = (forwarded(request.headers()), tester(request.headers()));
    let (method, path) = (method.to_owned(), path.to_owned());
    remote.slot.reading_body();
    let body = body(request).await;
    remote.slot.handling();
    let body = body?;
    let request = HttpIn {
        id: id.clone(),
        method,
        path,
        query,
        headers,
        body,
        groups: caller.as_ref().map(|caller| caller.groups.clone()).unwrap_or_default(),
        caller: caller.map(|caller| caller.principal.clone()),
        tester,
    };
    let response = gateway.calls.http(request).await?;
    Ok(rendered(response, id))
}

fn not_found() -> Refusal {
    Code::NotFound.problem("no handler answers on this path").into()
}

fn options(allow: &[String]) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::from_str(&allow.join(", ")) {
        answer.headers_mut().insert(ALLOW, allow);
    }
    answer
}

/// Reads the body: complete and JSON, or empty.
async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let (head, body) = request.into_parts();
    let takes_one = matches!(head.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    if !takes_one {
        return Ok(Bytes::new());
    }
    if let Some(encoding) = head.headers.get(CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(Code::UnsupportedMediaType
            .problem("a request body must not have a content encoding")
            .into());
    }
    let bytes = timeout(BODY_WAIT, answers::read_body(&head.headers, body, BODY_BYTES_MAX))
        .await
        .map_err(|_| Code::Malformed.problem("the body did not arrive in time"))??;
    if !bytes.is_empty() && !is_json(&head.headers) {
        return Err(Code::UnsupportedMediaType.problem("a body is `application/json`").into());
    }
    Ok(bytes)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else { return false };
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
        || (kind.len() > 17 && kind[..12].eq_ignore_ascii_case("application/") && kind.ends_with("+json"))
}

/// The headers that a handler gets: as text, and without credentials.
fn forwarded(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| **name != AUTHORIZATION && **name != COOKIE && **name != TESTER)
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

/// The value of the header of testers. One that is too long to select a canary is dropped.
pub(super) fn tester(headers: &HeaderMap) -> Option<Arc<str>> {
    let value = headers.get(TESTER)?.to_str().ok()?;
    (value.len() <= SELECTION_TESTER_BYTES_MAX).then(|| value.into())
}

/// Converts a header to text: UTF-8, or else Latin-1 with one character for each byte. No header is left out:
/// if a handler did not see an idempotency key, a retry would be a second message.
fn text(value: &HeaderValue) -> String {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Converts a handler's answer. The runtime has checked its status, body and headers. The host decides how
/// the bytes are sent, so headers about that are left out.
fn rendered(response: contract::Response, request_id: &str) -> Answer {
    const SET_BY_HOST: [HeaderName; 7] =
        [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, TE, TRAILER, UPGRADE, REQUEST_ID];
    let has_body = !response.body.is_empty();
    let mut answer = Response::new(Full::from(response.body));
    *answer.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            (Ok(name), Ok(value)) if !SET_BY_HOST.contains(&name) => {
                answer.headers_mut().append(name, value);
            }
            _ => {
                warn!(request_id, header = name, "a header of a handler's answer is invalid and was left out")
            }
        }
    }
    if has_body && !answer.headers().contains_key(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    answer
}

/// `POST /api/v1/ws-tickets`: issues a ticket for one connection, for clients that can put credentials only
/// into a URL.
async fn ticket(
    gateway: &Gateway,
    remote: &Remote,
    request: &Request<Incoming>,
    id: &str,
) -> Result<Answer, Refusal> {
    if request.method() == Method::OPTIONS {
        return Ok(options(&["POST".to_owned()]));
    }
    if request.method() != Method::POST {
        return Err(method_not_allowed(&["POST".to_owned()]));
    }
    let caller = caller(gateway, remote, request.headers())
        .await?
        .ok_or_else(|| Code::Unauthorized.problem("this request needs a token"))?;
    let ticket = gateway.tickets.issue(&caller).await?;
    Ok(answers::json(200, &json!({ "ticket": ticket, "expires_in": TICKET_VALID_FOR.as_secs() }), id))
}

/// Unknown methods share one label, or clients could create any number of labels.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
