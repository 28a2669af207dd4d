//! The bytes of one accepted connection: TCP, or TLS over TCP. A connection ends when its peer takes no bytes
//! for too long.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::Slot;
use switchboard_core::limits::STALL_BYTES_MIN;

pub struct Stream {
    transport: Transport,
    stall: Stall,
    /// The slot of an HTTP connection, whose phase changes when bytes arrive or were taken. A WebSocket has
    /// none.
    slot: Option<Arc<Slot>>,
}

pub enum Transport {
    Tcp(TcpStream),
    /// Boxed, because a connection without TLS must not carry the memory of one with TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Measures how long a write has waited for the peer.
struct Stall {
    wait_ms: u32,
    /// Bytes that the transport took while the timer runs.
    taken: u32,
    /// Set while the transport refuses bytes.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The error of a write when the peer took fewer than `limits::STALL_BYTES_MIN` bytes in its time.
#[derive(Debug, thiserror::Error)]
#[error("the peer did not read the answer in time, so the connection was closed")]
pub struct Stalled;

impl Stalled {
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|source| source.is::<Self>())
    }
}

impl Stream {
    /// A write that stalls for `stall_wait` fails with [`Stalled`].
    pub fn new(transport: Transport, stall_wait: Duration) -> Self {
        let wait_ms = u32::try_from(stall_wait.as_millis()).unwrap_or(u32::MAX);
        Self { transport, stall: Stall { wait_ms, taken: 0, timer: None }, slot: None }
    }

    pub(super) fn watched_by(self, slot: Arc<Slot>) -> Self {
        Self { slot: Some(slot), ..self }
    }

    /// The connection is not an HTTP connection any more, so its slot becomes free.
    pub fn release_slot(&mut self) {
        self.slot = None;
    }
}

impl Stall {
    /// Passes `outcome` on, or fails when the peer has stalled.
    fn check<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_pending() {
            let wait = Duration::from_millis(self.wait_ms.into());
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
            if timer.as_mut().poll(cx).is_ready() {
                self.end();
                metrics::counter!("switchboard_connections_dropped_total", "why" => "stalled").increment(1);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, Stalled)));
            }
        }
        outcome
    }

    /// The transport took bytes. A few bytes do not end a stall: a client that reads one byte now and then
    /// does not read.
    fn took(&mut self, bytes: usize) {
        if self.timer.is_some() {
            self.taken = self.taken.saturating_add(bytes.try_into().unwrap_or(u32::MAX));
            if self.taken >= STALL_BYTES_MIN {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.timer = None;
        self.taken = 0;
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let before = into.filled().len();
        let outcome = match &mut stream.transport {
            Transport::Tcp(transport) => Pin::new(transport).poll_read(cx, into),
            Transport::Tls(transport) => Pin::new(transport).poll_read(cx, into),
        };
        if let Some(slot) = &stream.slot
            && into.filled().len() > before
        {
            slot.received_bytes();
        }
        outcome
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let outcome = match &mut stream.transport {
            Transport::Tcp(transport) => Pin::new(transport).poll_write(cx, bytes),
            Transport::Tls(transport) => Pin::new(transport).poll_write(cx, bytes),
        };
        if let Poll::Ready(Ok(bytes)) = outcome {
            stream.stall.took(bytes);
        }
        stream.stall.check(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let outcome = match &mut stream.transport {
            Transport::Tcp(transport) => Pin::new(transport).poll_write_vectored(cx, slices),
            Transport::Tls(transport) => Pin::new(transport).poll_write_vectored(cx, slices),
        };
        if let Poll::Ready(Ok(bytes)) = outcome {
            stream.stall.took(bytes);
        }
        stream.stall.check(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Tcp(transport) => transport.is_write_vectored(),
            Transport::Tls(transport) => transport.is_write_vectored(),
        }
    }

    /// With TLS, encrypted bytes may still wait for the socket, so only a flush shows that the peer took all
    /// of them.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let outcome = match &mut stream.transport {
            Transport::Tcp(transport) => Pin::new(transport).poll_flush(cx),
            Transport::Tls(transport) => Pin::new(transport).poll_flush(cx),
        };
        if let Poll::Ready(Ok(())) = outcome {
            stream.stall.end();
            if let Some(slot) = &stream.slot {
                slot.written();
            }
        }
        stream.stall.check(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let outcome = match &mut stream.transport {
            Transport::Tcp(transport) => Pin::new(transport).poll_shutdown(cx),
            Transport::Tls(transport) => Pin::new(transport).poll_shutdown(cx),
        };
        stream.stall.check(cx, outcome)
    }
}
