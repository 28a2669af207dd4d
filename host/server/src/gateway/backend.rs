//! The traits through which the gateway uses the layers below it: calls of handlers ([`ClientCalls`]) and
//! connections in the hub ([`Connections`]). `Triggers` and `Hub` implement them. The tests of the gateway
//! implement them too, so that they need neither WebAssembly nor Redis.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::triggers::{FrameIn, HttpIn, Reach, Triggers};
use switchboard_contract::connection::{Closed, Opened};
use switchboard_contract::frame::{Reply, Subscription};
use switchboard_contract::http::Response;
use switchboard_contract::types::{Problem, Push};
use switchboard_core::ids::{ConnectionId, RequestId, UserId};
use switchboard_fanout::{ConnectionInfo, Hub, Outlet};

/// The calls of handlers for clients. The futures are boxed, because an idle connection must not carry the
/// memory of a call.
pub trait ClientCalls: Send + Sync + 'static {
    fn reach(&self, method: &str, path: &str) -> Reach;
    fn http(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>>;
    /// `request` is the id of the connection's handshake, here and in `closed`.
    fn opened(
        &self,
        connection: ConnectionId,
        opened: Opened,
        request: RequestId,
    ) -> BoxFuture<'_, Vec<Push>>;
    /// The payload of a reply is JSON.
    fn frame<'a>(&'a self, frame: FrameIn<'a>) -> BoxFuture<'a, Result<Option<Reply>, Problem>>;
    fn closed(&self, connection: ConnectionId, closed: Closed, request: RequestId) -> BoxFuture<'_, ()>;
    fn touch(&self, connection: ConnectionId, user: &UserId, active: bool);
}

/// The connections of this node in the hub.
pub trait Connections: Send + Sync + 'static {
    /// Registers a connection. From then on, pushes to its user's address go into the outlet.
    fn open_connection(&self, info: ConnectionInfo) -> BoxFuture<'_, Arc<Outlet>>;
    fn close_connection(&self, connection: ConnectionId);

    /// Confirms these subscriptions of a call, after its reply was queued. Other subscriptions of the call
    /// end.
    fn open_gates(&self, connection: ConnectionId, subscriptions: &[Subscription]);
    /// Ends the new subscriptions of a call that failed.
    fn undo_gates(&self, connection: ConnectionId);
}

impl ClientCalls for Triggers {
    fn reach(&self, method: &str, path: &str) -> Reach {
        Triggers::reach(self, method, path)
    }

    fn http(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>> {
        Box::pin(Triggers::http(self, request))
    }

    fn opened(
        &self,
        connection: ConnectionId,
        opened: Opened,
        request: RequestId,
    ) -> BoxFuture<'_, Vec<Push>> {
        Box::pin(Triggers::opened(self, connection, opened, request))
    }

    fn frame<'a>(&'a self, frame: FrameIn<'a>) -> BoxFuture<'a, Result<Option<Reply>, Problem>> {
        Box::pin(Triggers::frame(self, frame))
    }

    fn closed(&self, connection: ConnectionId, closed: Closed, request: RequestId) -> BoxFuture<'_, ()> {
        Box::pin(Triggers::closed(self, connection, closed, request))
    }

    fn touch(&self, connection: ConnectionId, user: &UserId, active: bool) {
        Triggers::touch(self, connection, user, active);
    }
}

impl Connections for Hub {
    fn open_connection(&self, info: ConnectionInfo) -> BoxFuture<'_, Arc<Outlet>> {
        Box::pin(Hub::open_connection(self, info))
    }

    fn close_connection(&self, connection: ConnectionId) {
        Hub::close_connection(self, connection);
    }

    fn open_gates(&self, connection: ConnectionId, subscriptions: &[Subscription]) {
        Hub::open_gates(self, connection, subscriptions);
    }

    fn undo_gates(&self, connection: ConnectionId) {
        Hub::undo_gates(self, connection);
    }
}
