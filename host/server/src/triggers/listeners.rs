//! The triggers as the listeners see them: the traits of [`calls`](crate::calls). Each future is boxed here;
//! the trigger of its kind has the code.

use futures_util::future::BoxFuture;

use super::state::Triggers;
use crate::calls::{ClientCalls, FrameIn, HandshakeIn, HttpIn, OperatorCalls, Reach};
use switchboard_contract::connection::{Closed, Opened};
use switchboard_contract::frame::Reply;
use switchboard_contract::http::Response;
use switchboard_contract::types::{Problem, Push};
use switchboard_core::ids::{ConnectionId, UserId};

impl ClientCalls for Triggers {
    fn reach(&self, method: &str, path: &str) -> Reach {
        self.client_reach(method, path)
    }

    fn http(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>> {
        Box::pin(self.answer_client(request))
    }

    fn opened(
        &self,
        connection: ConnectionId,
        opened: Opened,
        handshake: HandshakeIn,
    ) -> BoxFuture<'_, Vec<Push>> {
        Box::pin(self.call_open_handlers(connection, opened, handshake))
    }

    fn frame<'a>(&'a self, frame: FrameIn<'a>) -> BoxFuture<'a, Result<Option<Reply>, Problem>> {
        Box::pin(self.answer_frame(frame))
    }

    fn closed(&self, connection: ConnectionId, closed: Closed, handshake: HandshakeIn) -> BoxFuture<'_, ()> {
        Box::pin(self.call_close_handlers(connection, closed, handshake))
    }

    fn touch(&self, connection: ConnectionId, user: &UserId, active: bool) {
        self.touches.add(connection, user, active);
    }
}

impl OperatorCalls for Triggers {
    fn operator(&self, request: HttpIn) -> BoxFuture<'_, Result<Response, Problem>> {
        Box::pin(self.answer_operator(request))
    }
}
