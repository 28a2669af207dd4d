//! The stream under a connection to Postgres: TCP or a Unix socket, with one guard. The driver reads a whole
//! message before it passes it on. So a message that is too long is refused here, when its header arrives and
//! before its body is held in memory.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::Host;

use switchboard_core::limits;

/// The address of a server.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Endpoint {
    /// The servers of the URL in their order. The first one that answers is used.
    pub(crate) fn of(config: &tokio_postgres::Config) -> Vec<Self> {
        let ports = config.get_ports();
        let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let hosts = config.get_hosts();
        if hosts.is_empty() {
            let addresses = config.get_hostaddrs().iter().enumerate();
            return addresses.map(|(index, ip)| Self::Tcp(ip.to_string(), port(index))).collect();
        }
        hosts
            .iter()
            .enumerate()
            .map(|(index, host)| match host {
                Host::Tcp(name) => Self::Tcp(name.clone(), port(index)),
                Host::Unix(directory) => Self::Unix(directory.join(format!(".s.PGSQL.{}", port(index)))),
            })
            .collect()
    }

    pub(crate) async fn connect(&self) -> io::Result<(Socket, Oversize)> {
        let inner = match self {
            Self::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Inner::Tcp(stream)
            }
            Self::Unix(path) => Inner::Unix(UnixStream::connect(path).await?),
        };
        let oversize = Oversize::default();
        Ok((Socket { inner, messages: Messages::default(), oversize: oversize.clone() }, oversize))
    }
}

/// Says, after a connection ended, whether it ended because a message was too long.
#[derive(Clone, Default)]
pub(super) struct Oversize(Arc<AtomicBool>);

impl Oversize {
    pub(crate) fn happened(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

pub(super) struct Socket {
    inner: Inner,
    messages: Messages,
    oversize: Oversize,
}

enum Inner {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Finds where messages begin in the bytes that pass: a tag, a length that includes itself, the body.
#[derive(Default)]
struct Messages {
    header: [u8; 5],
    header_filled: usize,
    body_left: usize,
}

impl Messages {
    /// Returns false when a header announces a message that is too long.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.body_left.min(bytes.len());
            self.body_left -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(5 - self.header_filled);
            self.header[self.header_filled..self.header_filled + taken].copy_from_slice(&bytes[..taken]);
            self.header_filled += taken;
            bytes = &bytes[taken..];
            if self.header_filled == 5 {
                let [_, length @ ..] = self.header;
                let length = u32::from_be_bytes(length) as usize;
                if length > limits::POSTGRES_MESSAGE_BYTES_MAX {
                    return false;
                }
                self.header_filled = 0;
                self.body_left = length.saturating_sub(4);
            }
        }
        true
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        })?;
        if self.messages.pass(&buf.filled()[before..]) {
            Poll::Ready(Ok(()))
        } else {
            self.oversize.0.store(true, Ordering::Release);
            Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message from Postgres exceeds the size limit",
            )))
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Inner::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![b'D'];
        bytes.extend_from_slice(&(length as u32).to_be_bytes());
        bytes.resize(1 + length, 0xff);
        bytes
    }

    #[test]
    fn a_long_message_is_seen_by_its_header_however_the_bytes_are_cut() {
        let good = [message(4), message(300), message(4), message(5)].concat();
        let longest = (limits::POSTGRES_MESSAGE_BYTES_MAX as u32).to_be_bytes();
        let too_long = (limits::POSTGRES_MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes();
        for cut in 1..12 {
            let mut messages = Messages::default();
            assert!(good.chunks(cut).all(|chunk| messages.pass(chunk)), "cut {cut}");
            assert!(messages.pass(b"D") && messages.pass(&longest));

            let mut messages = Messages::default();
            let bad = [&good[..], b"D", &too_long].concat();
            assert!(!bad.chunks(cut).all(|chunk| messages.pass(chunk)), "cut {cut}");
        }
    }
}
