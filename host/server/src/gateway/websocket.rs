//! `GET /ws`: checks the token and the bounds, and takes the connection over from hyper. `connection` does
//! everything after the handshake.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fastwebsockets::upgrade;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Version};
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::Gateway;
use super::bearer::bearer;
use super::connection::{self, ClientInfo, Handshake, Identity, Requests};
use super::origins::Origins;
use super::refusal::{Refusal, method_not_allowed};
use super::remote::Remote;
use super::socket::Socket;
use switchboard_contract::types::Problem;
use switchboard_core::ids::RequestId;
use switchboard_core::limits::{CONNECTION_RETRY_AFTER, USER_AGENT_CHARS_MAX};
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_http::answers::Answer;
use switchboard_http::http_server::{ErrorBodyStream, Stream};
use switchboard_protocol::wire::percent;
use switchboard_protocol::wire::problem::Code;

/// The only subprotocol. The other values that clients list carry tokens.
const SUBPROTOCOL: &str = "switchboard.v1";
const BEARER: &str = "bearer.";

pub(super) async fn handshake(
    gateway: &Arc<Gateway>,
    mut request: Request<Incoming>,
    id: &RequestId,
    remote: &Remote,
    guard: ShutdownGuard,
) -> Result<Answer, Refusal> {
    check(&request, &gateway.origins)?;
    let busy = |why: &'static str, detail: &str| {
        gateway.meters.refused(why);
        let wait = CONNECTION_RETRY_AFTER.mul_f32(1.0 + rand::random::<f32>());
        Code::Unavailable.problem(detail).retry_after(wait)
    };
    if guard.has_begun() {
        return Err(busy("draining", "the node is draining").into());
    }
    let permit = gateway
        .limits
        .take()
        // A connection without a signed-in user is closed for another one.
        .or_else(|| gateway.slots.drop_anonymous().then(|| gateway.limits.take())?)
        .ok_or_else(|| busy("full", "the node has its maximum number of connections"))?;
    let credentials = match token(&request)? {
        Some(Token::Jwt(token)) => Some(gateway.auth.verify(&token).await?),
        Some(Token::Ticket(ticket)) => {
            let who = gateway.tickets.redeem(&ticket).await?;
            if gateway.auth.is_revoked(&who) {
                return Err(Code::Unauthorized.problem("the token behind the ticket was revoked").into());
            }
            Some(who)
        }
        None => None,
    };
    let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    let identity = match credentials {
        Some(who) => Identity::SignedIn(who, Box::new(permit)),
        None => Identity::Anonymous(gateway.slots.anonymous(remote.address.ip(), Box::new(permit))),
    };
    let info = Handshake {
        requests: Box::new(Requests::of(id.clone(), super::http::tester(request.headers()))),
        client: Box::new(ClientInfo {
            remote: remote.address,
            user_agent: user_agent.map(|name| name.chars().take(USER_AGENT_CHARS_MAX).collect()),
        }),
        identity,
    };
    let offered = protocols(request.headers()).any(|protocol| protocol == SUBPROTOCOL);

    // Taken before fastwebsockets takes it: its future would create a read buffer that is never used.
    let upgraded = hyper::upgrade::on(&mut request);
    let (response, _) = upgrade::upgrade(&mut request)
        .map_err(|error| Code::Malformed.problem(format!("not a WebSocket handshake: {error}")))?;
    let mut answer = response.map(|_| Full::<Bytes>::default());
    if offered {
        let selected = HeaderValue::from_static(SUBPROTOCOL);
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, selected);
    }
    let gateway = gateway.clone();
    tokio::spawn(async move {
        match take_over(upgraded).await {
            Some(socket) => connection::run(gateway, socket, info, guard).await,
            None => debug!("a client disconnected during its handshake"),
        }
    });
    Ok(answer)
}

/// Returns the socket from before hyper took it, with the bytes that hyper has already read.
async fn take_over(upgraded: OnUpgrade) -> Option<Socket> {
    let parts = upgraded.await.ok()?.downcast::<TokioIo<ErrorBodyStream<Stream>>>().ok()?;
    let mut stream = parts.io.into_inner().into_inner();
    stream.release_slot();
    Some(Socket::new(stream, &parts.read_buf))
}

#[allow(clippy::result_large_err)] // returned at most once for each connection
fn check(request: &Request<Incoming>, origins: &Origins) -> Result<(), Refusal> {
    if request.method() != Method::GET {
        return Err(method_not_allowed(&["GET".to_owned()]));
    }
    let headers = request.headers();
    if request.version() < Version::HTTP_11 || !upgrade::is_upgrade_request(request) {
        let problem =
            Code::Malformed.problem("this path is for WebSockets: the request needs `Upgrade: websocket`");
        return Err(Refusal::with(problem, hyper::header::UPGRADE, "websocket"));
    }
    // A header that appears twice can be read in two ways, and so can bytes after the head (RFC 6455, 4.2.1).
    for name in [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION] {
        if headers.get_all(&name).iter().nth(1).is_some() {
            return Err(Code::Malformed
                .problem(format!("the handshake has more than one `{name}` header"))
                .into());
        }
    }
    if headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
    {
        return Err(Code::Malformed.problem("a WebSocket handshake must not have a body").into());
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let problem = Code::Malformed.problem("`Sec-WebSocket-Version` must be 13");
        return Err(Refusal::with(problem, SEC_WEBSOCKET_VERSION, "13"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map_or(b"".as_slice(), HeaderValue::as_bytes);
    if !BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        return Err(Code::Malformed.problem("`Sec-WebSocket-Key` must be 16 bytes in base64").into());
    }
    if let Some(origin) = headers.get(ORIGIN)
        && !origins.admit(origin)
    {
        return Err(Code::Forbidden.problem("this origin may not connect").into());
    }
    Ok(())
}

enum Token {
    Jwt(String),
    Ticket(String),
}

/// Finds the token. The first one counts, valid or not.
fn token(request: &Request<Incoming>) -> Result<Option<Token>, Problem> {
    if let Some(token) = bearer(request.headers())? {
        return Ok(Some(Token::Jwt(token.to_owned())));
    }
    let listed = protocols(request.headers()).find_map(|protocol| protocol.strip_prefix(BEARER));
    if let Some(token) = listed {
        return Ok(Some(Token::Jwt(token.to_owned())));
    }
    let query = percent::decode_query(request.uri().query().unwrap_or_default())
        .ok_or_else(|| Code::Malformed.problem("the query has an invalid percent escape"))?;
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    Ok(find("ticket").map(Token::Ticket).or_else(|| find("token").map(Token::Jwt)))
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let name: HeaderName = SEC_WEBSOCKET_PROTOCOL;
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}
