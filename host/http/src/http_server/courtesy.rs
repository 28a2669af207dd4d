//! What is too broken to be a request never reaches us: hyper answers it by itself, in two lines. This stands under hyper
//! while it speaks HTTP and puts a whole answer in place of those lines: a problem, with a request id, like every other.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;
use uuid::Uuid;

use crate::limits::{REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};
use crate::wire::http::REQUEST_ID;
use crate::wire::problem::{self, Code};

/// Longer than what hyper makes up.
const MADE_UP_BYTES_MAX: usize = 256;

pub struct Courtesy<S> {
    stream: S,
    /// An answer of ours on its way, and how many bytes of hyper's it stands for.
    instead: Option<(Bytes, usize)>,
    /// The last write was not taken whole: what comes next is the rest of it, whatever it looks like.
    is_within: bool,
}

impl<S> Courtesy<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, instead: None, is_within: false }
    }

    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Only at the start of an answer.
    fn instead_of(&self, bytes: &[u8]) -> Option<Bytes> {
        if self.is_within { None } else { instead_of(bytes) }
    }
}

impl<S: AsyncWrite + Unpin> Courtesy<S> {
    /// Hyper closes the connection behind such an answer, so nothing comes after it.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((ours, stands_for)) = &mut self.instead else { return Poll::Ready(Ok(0)) };
        while ours.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, ours))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            ours.advance(written);
        }
        let stands_for = *stands_for;
        self.instead = None;
        Poll::Ready(Ok(stands_for))
    }
}

/// The answer to be given in place of these bytes, where they are one of the heads that hyper makes up: a status of a few,
/// and no header but those that it adds by itself.
fn instead_of(bytes: &[u8]) -> Option<Bytes> {
    let head = bytes.strip_prefix(b"HTTP/1.1 ")?.strip_suffix(b"\r\n\r\n")?;
    if head.len() > MADE_UP_BYTES_MAX {
        return None;
    }
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let (status, reason) = lines.next()?.split_once(' ')?;
    let is_made_up = matches!(status, "400" | "414" | "431")
        && lines.all(|line| match line.split_once(": ") {
            Some(("connection", value)) => value == "close",
            Some(("content-length", value)) => value == "0",
            Some((name, _)) => name == "date",
            None => false,
        });
    if !is_made_up {
        return None;
    }
    let mut problem = match status {
        "431" | "414" => Code::TooLarge.problem(format!(
            "the head of the request has more than {REQUEST_HEADERS_MAX} headers or {REQUEST_HEAD_BYTES_MAX} bytes"
        )),
        _ => Code::Malformed.problem("this is no HTTP request"),
    };
    problem.status = status.parse().ok()?;
    let id = Uuid::now_v7();
    let body = problem::document(&problem, &id.to_string()).to_string();
    debug!(request.id = %id, status, "answered what is no request");
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\n{REQUEST_ID}: {id}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Some(answer.into())
}

impl<S: AsyncRead + Unpin> AsyncRead for Courtesy<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Courtesy<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_none() {
            match self.instead_of(bytes) {
                Some(ours) => self.instead = Some((ours, bytes.len())),
                None => {
                    let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
                    self.is_within = written < bytes.len();
                    return Poll::Ready(Ok(written));
                }
            }
        }
        self.poll_instead(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // What hyper makes up is one slice; an answer of ours begins with its head.
        if self.instead.is_some() || slices.len() == 1 && self.instead_of(&slices[0]).is_some() {
            return self.poll_write(cx, &slices[0]);
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.is_within = written < slices.iter().map(|slice| slice.len()).sum();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn only_what_hyper_made_up_is_replaced() {
        let say = async |text: &str| {
            let mut stream = Courtesy::new(Vec::new());
            stream.write_all(text.as_bytes()).await.unwrap();
            String::from_utf8(stream.into_inner()).unwrap()
        };
        let said = say("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(head.contains(&format!("x-request-id: {}", body["request_id"].as_str().unwrap())));
        let said = say("HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n").await;
        assert!(said.contains(r#""code":"too_large""#) && said.contains(r#""status":431"#), "{said}");

        for ours in [
            "HTTP/1.1 400 Bad Request\r\nx-request-id: r\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nno!",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "\u{1}\u{2} 400",
        ] {
            assert_eq!(say(ours).await, ours);
        }
    }
    /// Nobody's `poll_write` has to take everything: the rest of an answer may look like a head of hyper's.
    #[tokio::test]
    async fn what_goes_on_within_an_answer_is_left_as_it_is() {
        let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let before = format!("HTTP/1.1 200 OK\r\ncontent-length: 168\r\n\r\n{}", "x".repeat(100));
        let ours = format!("{before}{head}");
        for is_vectored in [false, true] {
            // It holds what comes before, then what looks like a head.
            let (stream, mut client) = tokio::io::duplex(before.len());
            let (mut stream, mut rest, mut arrived) = (Courtesy::new(stream), ours.as_bytes(), Vec::new());
            while !rest.is_empty() {
                let written = match is_vectored {
                    true => stream.write_vectored(&[IoSlice::new(rest)]).await.unwrap(),
                    false => stream.write(rest).await.unwrap(),
                };
                rest = &rest[written..];
                while arrived.len() < ours.len() - rest.len() {
                    client.read_buf(&mut arrived).await.unwrap();
                }
            }
            assert_eq!(String::from_utf8(arrived).unwrap(), ours);
            // The next answer is one of its own again.
            let speaks = async {
                stream.write_all(head.as_bytes()).await.unwrap();
                drop(stream);
            };
            // More than fits into what is between them.
            let mut said = String::new();
            let (_, heard) = tokio::join!(speaks, client.read_to_string(&mut said));
            heard.unwrap();
            assert!(said.contains("application/problem+json"), "{said}");
        }
    }
}
