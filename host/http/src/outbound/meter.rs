//! Counts what a connection reads for one answer. The bounds of the head and of the body do not count what
//! HTTP leaves out of both: informational answers (1xx), and the sizes of chunks, which may have any number
//! of zeros. A hostile service could send these until the deadline.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::fetch::Stream;
use switchboard_core::limits;

/// The bytes that a connection may still read. Clones share them.
#[derive(Clone)]
pub(super) struct Meter(Arc<Inner>);

struct Inner {
    left: AtomicU64,
    is_over: AtomicBool,
}

/// Maximum bytes of an answer on its connection, whose body has at most `bytes_max`.
pub(super) fn answer_bytes_max(bytes_max: u64) -> u64 {
    bytes_max.saturating_mul(limits::FETCH_FRAMING_FACTOR).saturating_add(limits::FETCH_FRAMING_BYTES_MAX)
}

impl Meter {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            left: AtomicU64::new(limits::FETCH_FRAMING_BYTES_MAX),
            is_over: AtomicBool::new(false),
        }))
    }

    /// Begins an answer.
    pub(super) fn begin(&self, bytes_max: u64) {
        self.0.left.store(answer_bytes_max(bytes_max), Relaxed);
    }

    /// Whether the connection was ended because its server sent too much.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_over.load(Relaxed)
    }

    /// Only the task of the connection calls this, so nothing comes between load and store but `begin`.
    fn count(&self, bytes: u64) -> io::Result<()> {
        match self.0.left.load(Relaxed).checked_sub(bytes) {
            Some(left) => {
                self.0.left.store(left, Relaxed);
                Ok(())
            }
            None => {
                self.0.is_over.store(true, Relaxed);
                Err(io::Error::other("the server sends more than an answer may have"))
            }
        }
    }
}

/// A stream whose reads are counted.
pub(super) struct Metered {
    pub stream: Box<dyn Stream>,
    pub meter: Meter,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.meter.count((buffer.filled().len() - before) as u64))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
