//! What stands behind the door: the handlers and the fan-out, as the gateway sees them. `Inside` is the product; the tests
//! of the gateway keep house themselves, so that they need neither WebAssembly nor Redis.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::triggers::{HttpIn, Reach, Triggers};
use switchboard_contract::connection::{Closed, Opened};
use switchboard_contract::frame::{Reply, Subscription};
use switchboard_contract::http::Response;
use switchboard_contract::types::{Principal, Problem, Push};
use switchboard_core::ids::{ConnectionId, UserId};
use switchboard_fanout::{ConnectionInfo, Hub, Outlet};

/// The futures are boxed because calls are rare beside connections: an idle connection must not carry the room for one.
pub trait House: Send + Sync + 'static {
    fn reach(&self, method: &str, path: &str) -> Reach;
    fn http(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>>;

    /// From now on pushes to the user's address go into the outlet.
    fn join(&self, info: ConnectionInfo) -> BoxFuture<'_, Arc<Outlet>>;
    fn leave(&self, connection: ConnectionId);

    fn opened(&self, opened: Opened) -> BoxFuture<'_, Vec<Push>>;
    fn frame<'a>(
        &'a self,
        info: &'a ConnectionInfo,
        caller: &'a Principal,
        frame_type: &'a str,
        payload: &'a str,
    ) -> BoxFuture<'a, Result<Option<Reply>, Problem>>;
    fn closed(&self, closed: Closed) -> BoxFuture<'_, ()>;
    fn touch(&self, connection: ConnectionId, user: &UserId, active: bool);

    /// The call answered and its reply is queued: these subscriptions stay, whatever else it gated is taken back.
    fn open(&self, connection: ConnectionId, subscriptions: &[Subscription]);
    /// The call failed: what it gated is taken back.
    fn take_back(&self, connection: ConnectionId);
}

/// The product: handlers behind their triggers, connections in the hub.
pub struct Inside {
    triggers: Arc<Triggers>,
    hub: Hub,
}

impl Inside {
    pub fn new(triggers: Arc<Triggers>, hub: Hub) -> Arc<Self> {
        Arc::new(Self { triggers, hub })
    }
}

impl House for Inside {
    fn reach(&self, method: &str, path: &str) -> Reach {
        self.triggers.reach(method, path)
    }

    fn http(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>> {
        Box::pin(self.triggers.http(request))
    }

    fn join(&self, info: ConnectionInfo) -> BoxFuture<'_, Arc<Outlet>> {
        Box::pin(self.hub.open_connection(info))
    }

    fn leave(&self, connection: ConnectionId) {
        self.hub.close_connection(connection);
    }

    fn opened(&self, opened: Opened) -> BoxFuture<'_, Vec<Push>> {
        Box::pin(self.triggers.opened(opened))
    }

    fn frame<'a>(
        &'a self,
        info: &'a ConnectionInfo,
        caller: &'a Principal,
        frame_type: &'a str,
        payload: &'a str,
    ) -> BoxFuture<'a, Result<Option<Reply>, Problem>> {
        Box::pin(self.triggers.frame(info, caller, frame_type, payload))
    }

    fn closed(&self, closed: Closed) -> BoxFuture<'_, ()> {
        Box::pin(self.triggers.closed(closed))
    }

    fn touch(&self, connection: ConnectionId, user: &UserId, active: bool) {
        self.triggers.touch(connection, user, active);
    }

    fn open(&self, connection: ConnectionId, subscriptions: &[Subscription]) {
        self.hub.open_gates(connection, subscriptions);
    }

    fn take_back(&self, connection: ConnectionId) {
        self.hub.undo_gates(connection);
    }
}
