//! The calls of handlers that the two listeners ask for: clients' on the gateway, operators' on the admin
//! listener. [`Triggers`](crate::triggers::Triggers) implements both traits. The tests of the listeners
//! implement them too, so they need no WebAssembly. The futures are boxed, because an idle connection must
//! not carry the memory of a call.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::header::HeaderName;

use switchboard_contract::connection::{Closed, Opened};
use switchboard_contract::frame::Reply;
use switchboard_contract::http::Response;
use switchboard_contract::types::{Principal, Problem, Push};
use switchboard_core::ids::{ConnectionId, RequestId, UserId};
use switchboard_postgres::Rank;

/// The header by which testers ask for a canary, in a request or in the handshake of a connection. No handler
/// gets it. A deploy says which value selects the canary (`Selection`).
pub const TESTER: HeaderName = HeaderName::from_static("x-switchboard-tester");

/// The calls for clients.
pub trait ClientCalls: Send + Sync + 'static {
    /// Returns whether a handler answers a client's request.
    fn reach(&self, method: &str, path: &str) -> Reach;
    /// Answers a client's request.
    fn http(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>>;
    /// Calls the `open` handlers of a new connection, and returns the pushes that the client gets first.
    fn opened(
        &self,
        connection: ConnectionId,
        opened: Opened,
        handshake: HandshakeIn,
    ) -> BoxFuture<'_, Vec<Push>>;
    /// Answers a frame. The payload of a reply is JSON.
    fn frame<'a>(&'a self, frame: FrameIn<'a>) -> BoxFuture<'a, Result<Option<Reply>, Problem>>;
    /// Calls the `close` handlers of a connection.
    fn closed(&self, connection: ConnectionId, closed: Closed, handshake: HandshakeIn) -> BoxFuture<'_, ()>;
    /// Adds a connection to the next report of touched connections, which has at most one entry for each.
    fn touch(&self, connection: ConnectionId, user: &UserId, active: bool);
}

/// The calls for operators: the routes that handlers bind under `/admin/v1/`.
pub trait OperatorCalls: Send + Sync + 'static {
    /// Answers an operator's request. The admin listener has checked the operator's token.
    fn operator(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>>;
}

/// A request from a listener. Its size is checked, its caller is verified, and its query is decoded.
pub struct HttpIn {
    pub id: RequestId,
    pub method: String,
    /// Still percent-encoded, so that an encoded slash stays inside its segment.
    pub path: String,
    pub query: Vec<(String, String)>,
    /// Lower-case names, without credentials.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub caller: Option<Principal>,
    /// The caller's groups (`Credentials::groups`). No handler gets them.
    pub groups: Box<[u64]>,
    /// The value of [`TESTER`], which is not among the headers.
    pub tester: Option<Arc<str>>,
}

/// The facts of a handshake that the calls about its connection need.
pub struct HandshakeIn {
    pub id: RequestId,
    /// The roles of the user, in the present token.
    pub roles: Vec<String>,
    pub groups: Box<[u64]>,
    pub tester: Option<Arc<str>>,
}

/// Whether a handler answers a request; known before the body is read and the token checked.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    Bound { public: bool },
    MethodNotAllowed { allow: Vec<String> },
    Nothing,
}

/// A frame from the gateway. Its envelope is parsed, and its caller has signed in.
pub struct FrameIn<'a> {
    pub id: &'a RequestId,
    pub frame_type: &'a str,
    pub payload: String,
    pub caller: &'a Principal,
    pub groups: &'a [u64],
    /// The value of [`TESTER`] in the handshake of the connection.
    pub tester: Option<&'a str>,
    pub connection: ConnectionId,
    /// The place of the call among the calls of its connection.
    pub rank: Rank,
}
