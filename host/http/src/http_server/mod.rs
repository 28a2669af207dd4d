//! The common parts of the listeners for clients and operators: accepting TCP connections, slots, time-outs
//! of HTTP/1.1, and rules for the head of a request. It knows no routes and no tokens.

mod error_body;
mod head;
pub mod slots;
mod stream;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

pub use error_body::ErrorBodyStream;
pub use slots::{Slot, Slots};
pub use stream::{Stalled, Stream, Transport};

use crate::answers::{self, Answer};
use switchboard_contract::types::Problem;
use switchboard_core::ids::RequestId;
use switchboard_core::limits::{
    ACCEPT_AGAIN_AFTER, BACKLOG, CLOSE_WAIT, REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX, RETRY_AFTER,
    UNSENT_BYTES_MAX,
};
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_protocol::wire::problem::Code;

/// Opens a listener. Its backlog holds the clients that reconnect at the same time after another node has
/// drained.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it. Without it, the kernel buffers megabytes for a peer that does not read,
    // and the bounds on unread bytes would count only what the kernel refuses.
    SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until the shutdown begins. Each connection takes a slot and runs in its own task.
pub async fn accept<F>(
    listener: TcpListener,
    slots: Arc<Slots>,
    mut guard: ShutdownGuard,
    serve_connection: impl Fn(TcpStream, SocketAddr, Arc<Slot>, ShutdownGuard) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let next = async {
            let (stream, remote) = listener.accept().await?;
            // While no slot can be freed, further connections wait in the kernel's backlog.
            Ok::<_, io::Error>((stream, remote, slots.admit(remote.ip()).await))
        };
        let accepted = tokio::select! {
            () = guard.begun() => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, remote, slot)) => {
                // A frame is written whole. Waiting for more bytes would only delay the packet.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve_connection(stream, remote, Arc::new(slot), guard.clone()));
            }
            Err(error) => {
                // Most likely the process has no file descriptors left, so other connections must end first.
                warn!(%error, "cannot accept a connection, probably for lack of file descriptors; trying again");
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// Answers the requests of one connection until it ends, becomes a WebSocket, overruns a time-out, or its
/// slot is given to another connection.
pub async fn serve_connection<A, F>(
    stream: Stream,
    slot: Arc<Slot>,
    keep_alive: Duration,
    mut guard: ShutdownGuard,
    answer: A,
) where
    A: Fn(Request<Incoming>, RequestId) -> F,
    F: Future<Output = Answer>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let slot = slot.clone();
        // Checked and answered only after the client has read the previous answer: a client that pipelines
        // without reading costs one answer.
        let checked = head::check(&request);
        let id = answers::request_id(request.headers());
        let answering = checked.is_ok().then(|| answer(request, id.clone()));
        async move {
            slot.until_written().await;
            slot.handling();
            let answer = match (answering, checked) {
                (Some(answering), _) => answering.await,
                (None, Err(problem)) => {
                    let mut answer = answers::problem(&problem, &id);
                    // The client's next bytes may be part of another client's request.
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    answer
                }
                (None, Ok(())) => answers::problem(&busy(), &id),
            };
            if slot.answered(body_bytes(&answer)) {
                return Ok::<_, Infallible>(answer);
            }
            let refusal = answers::problem(&busy(), &id);
            slot.answered(body_bytes(&refusal));
            Ok(refusal)
        }
    });
    let connection = http1::Builder::new()
        // The time-outs are enforced below, because hyper has one for both the head and the idle time.
        .header_read_timeout(None)
        .max_headers(REQUEST_HEADERS_MAX)
        .max_header_size(REQUEST_HEAD_BYTES_MAX)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(ErrorBodyStream::new(stream.watched_by(slot.clone()))), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep_until(Instant::now() + keep_alive));
    let mut begun = pin!(guard.begun());
    let mut is_ending = false;
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Outcome::Ended(ended));
        }
        if slot.poll_dropped(cx).is_ready() {
            return Poll::Ready(Outcome::Dropped);
        }
        if !is_ending && begun.as_mut().poll(cx).is_ready() {
            is_ending = true;
            connection.as_mut().graceful_shutdown();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let due = slot.due(keep_alive);
            // Moved only to an earlier time: a connection must not reset its timer with every request.
            if let Some(due) = due
                && due < timer.deadline()
            {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                return Poll::Ready(Outcome::Overdue);
            }
            timer.as_mut().reset(due.unwrap_or(now + keep_alive));
        }
    })
    .await;
    match outcome {
        Outcome::Ended(Ok(())) => {}
        Outcome::Ended(Err(error)) => debug!(%error, "an HTTP connection ended early"),
        Outcome::Dropped => debug!("an HTTP connection was closed; its slot was needed for another one"),
        Outcome::Overdue => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(CLOSE_WAIT, connection).await;
        }
    }
}

enum Outcome {
    Ended(hyper::Result<()>),
    /// The slot was given to another connection.
    Dropped,
    /// No request came in time.
    Overdue,
}

fn body_bytes(answer: &Answer) -> usize {
    answer.body().size_hint().exact().unwrap_or(0) as usize
}

fn busy() -> Problem {
    Code::Unavailable
        .problem("too many large answers wait to be read by other clients")
        .retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests;
