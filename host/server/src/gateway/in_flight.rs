//! The frame calls of one connection that are in flight. They begin and are answered in the order of the
//! frames; between, they overlap.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::sync::oneshot;

use switchboard_contract::frame::Reply;
use switchboard_contract::types::Problem;
use switchboard_postgres::{CallOrder, Rank};
use switchboard_protocol::wire::frames::FrameId;

/// The answer to a frame.
pub(super) struct Answered {
    pub id: Option<FrameId>,
    pub answer: Result<Option<Reply>, Problem>,
}

#[derive(Default)]
pub(super) struct InFlight {
    order: CallOrder,
    calls: FuturesOrdered<BoxFuture<'static, Answered>>,
    /// Tells when the latest call has reached its ordered point.
    ordered: Option<oneshot::Receiver<()>>,
}

pub(super) enum Progress {
    /// The oldest call has ended.
    Answered(Answered),
    /// The latest call has reached its ordered point.
    Ordered,
}

impl InFlight {
    /// Begins a call. It gets the rank with its place.
    pub(super) fn begin(&mut self, call: impl FnOnce(Rank) -> BoxFuture<'static, Answered>) {
        let (rank, ordered) = self.order.begin();
        self.ordered = Some(ordered);
        self.calls.push_back(call(rank));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        if let Poll::Ready(Some(answered)) = self.calls.poll_next_unpin(cx) {
            return Poll::Ready(Progress::Answered(answered));
        }
        let Some(ordered) = &mut self.ordered else { return Poll::Pending };
        let reached = ready!(Pin::new(ordered).poll(cx));
        self.ordered = None;
        // A call that ends without a write has no ordered point. Its answer says that it has ended.
        if reached.is_ok() { Poll::Ready(Progress::Ordered) } else { Poll::Pending }
    }

    /// Waits for all calls, whose answers nobody gets: each of them may commit.
    pub(super) async fn end(&mut self) {
        while self.calls.next().await.is_some() {}
    }
}
