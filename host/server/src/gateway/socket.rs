//! The bytes of one WebSocket connection. It owns no buffer: it reads into the thread's buffer, and keeps
//! only what could not be handled or written at once. It knows messages, but not what they mean.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use switchboard_core::limits::{READ_BYTES_MAX, UNWRITTEN_FRAMES_MAX, WRITE_BYTES_MAX};
use switchboard_fanout::{Outlet, Taken};
use switchboard_http::http_server::Stream;
use switchboard_protocol::wire::close::Close;
use switchboard_protocol::wire::websocket::{Decoder, Message, Violation, encode_close};

pub(super) struct Socket {
    stream: Stream,
    decoder: Decoder,
    /// Bytes that were read but not handled, because a call was in progress. At most the bytes of one read.
    unread: Vec<u8>,
    /// Written before anything else: the bytes that the socket did not take, and what the host sends before
    /// there is an outlet.
    unwritten: Vec<Bytes>,
}

/// Buffers of a thread, because a connection needs them only while it is polled.
struct Scratch {
    input: Box<[u8]>,
    output: Vec<Bytes>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { input: vec![0; READ_BYTES_MAX].into(), output: Vec::new() });
}

/// Whether the receiver of messages wants more.
pub(super) enum Next {
    Go,
    /// Keep the rest until the next call.
    Stop,
}

impl Socket {
    /// `early` holds the bytes that the client sent right after its handshake.
    pub(super) fn new(stream: Stream, early: &[u8]) -> Self {
        Self { stream, decoder: Decoder::default(), unread: early.to_vec(), unwritten: Vec::new() }
    }

    /// Passes every available message to `receive`. Ready after some bytes were handled; an error when no
    /// more bytes will come.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut(Result<Message<'_>, Violation>) -> Next,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let mut unread = std::mem::take(&mut self.unread);
            self.unread = decode(&mut self.decoder, &mut unread, &mut receive);
            return Poll::Ready(Ok(()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut input = ReadBuf::new(&mut scratch.input);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut input))?;
            if input.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.unread = decode(&mut self.decoder, input.filled_mut(), &mut receive);
            Poll::Ready(Ok(()))
        })
    }

    /// Queues a frame before anything of the outlet.
    pub(super) fn queue(&mut self, frame: Bytes) {
        self.unwritten.push(frame);
    }

    /// True when the peer does not read what is sent.
    pub(super) fn is_backed_up(&self) -> bool {
        self.unwritten.len() > UNWRITTEN_FRAMES_MAX
    }

    /// Writes what is queued. Ready when all of it is written, with the close frame that ended the outlet;
    /// pending when the socket takes no more bytes.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        outlet: Option<&Outlet>,
    ) -> Poll<io::Result<Option<Close>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let output = &mut scratch.output;
            output.clear();
            output.append(&mut self.unwritten);
            let mut close = None;
            loop {
                match self.poll_write_all(cx, output) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.unwritten.append(output);
                        return Poll::Pending;
                    }
                }
                if close.is_some() {
                    break;
                }
                match outlet.map(|outlet| outlet.take(output, WRITE_BYTES_MAX)) {
                    Some(Taken::Close(ending)) => close = Some(ending),
                    _ if output.is_empty() => break,
                    _ => {}
                }
            }
            if self.unwritten.capacity() > 0 {
                self.unwritten = Vec::new();
            }
            Poll::Ready(Ok(close))
        })
    }

    /// Queues the close frame. Nothing is sent after it.
    pub(super) fn queue_close(&mut self, close: &Close) {
        self.unwritten.push(encode_close(close));
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Reads and discards bytes until the peer has closed too. Dropping a socket with unread bytes resets the
    /// connection, and the peer might never get the close frame.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.unread = Vec::new();
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut input = ReadBuf::new(&mut scratch.input);
                match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut input)) {
                    Ok(()) if !input.filled().is_empty() => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>, frames: &mut Vec<Bytes>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let outcome = loop {
            if written == frames.len() {
                break Pin::new(&mut self.stream).poll_flush(cx);
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            for (slice, frame) in slices.iter_mut().zip(&frames[written..]) {
                *slice = IoSlice::new(frame);
            }
            let count = (frames.len() - written).min(SLICES_MAX);
            match Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]) {
                Poll::Ready(Ok(mut bytes)) => {
                    while let Some(frame) = frames.get_mut(written)
                        && bytes >= frame.len()
                    {
                        bytes -= frame.len();
                        written += 1;
                    }
                    if bytes > 0 {
                        frames[written].advance(bytes);
                    }
                }
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        frames.drain(..written);
        outcome
    }
}

/// The maximum number of frames in one system call.
const SLICES_MAX: usize = 64;

/// Decodes messages. Returns the bytes that were not decoded because the receiver stopped.
fn decode(
    decoder: &mut Decoder,
    bytes: &mut [u8],
    receive: &mut impl FnMut(Result<Message<'_>, Violation>) -> Next,
) -> Vec<u8> {
    let mut input = bytes;
    let rest = loop {
        let next = match decoder.decode(&mut input) {
            Ok(Some(message)) => receive(Ok(message)),
            Ok(None) => break Vec::new(),
            Err(violation) => {
                receive(Err(violation));
                break Vec::new();
            }
        };
        if matches!(next, Next::Stop) {
            break input.to_vec();
        }
    };
    decoder.release();
    rest
}
