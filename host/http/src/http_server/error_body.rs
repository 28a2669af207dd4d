//! Replaces the error answers that hyper itself writes. When bytes are not a valid request, hyper answers
//! with two lines, and no code of the host is called. This stream is between hyper and the socket while the
//! connection uses HTTP. It replaces these lines with a complete answer: a problem with a request id, like
//! every other error.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use crate::answers::REQUEST_ID;
use switchboard_core::ids::RequestId;
use switchboard_core::limits::{REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX};
use switchboard_protocol::wire::problem::{self, Code};

/// Longer than any answer that hyper writes by itself.
const HYPER_ANSWER_BYTES_MAX: usize = 256;

pub struct ErrorBodyStream<S> {
    stream: S,
    /// The replacement that is being written, and how many bytes of hyper's answer it replaces.
    replacement: Option<(Bytes, usize)>,
    /// True when the last write was incomplete: the next bytes are the rest of it, whatever they look like.
    is_partial: bool,
}

impl<S> ErrorBodyStream<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, replacement: None, is_partial: false }
    }

    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Returns the replacement, only at the start of an answer.
    fn replacement_for(&self, bytes: &[u8]) -> Option<Bytes> {
        if self.is_partial { None } else { replacement_for(bytes) }
    }
}

impl<S: AsyncWrite + Unpin> ErrorBodyStream<S> {
    /// Writes the replacement. Hyper closes the connection after such an answer, so no bytes follow.
    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((ours, replaced_bytes)) = &mut self.replacement else { return Poll::Ready(Ok(0)) };
        while ours.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, ours))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            ours.advance(written);
        }
        let replaced_bytes = *replaced_bytes;
        self.replacement = None;
        Poll::Ready(Ok(replaced_bytes))
    }
}

/// Returns the replacement when these bytes are a head that hyper writes by itself: one of a few status
/// codes, and only headers that hyper adds.
fn replacement_for(bytes: &[u8]) -> Option<Bytes> {
    let head = bytes.strip_prefix(b"HTTP/1.1 ")?.strip_suffix(b"\r\n\r\n")?;
    if head.len() > HYPER_ANSWER_BYTES_MAX {
        return None;
    }
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let (status, reason) = lines.next()?.split_once(' ')?;
    let is_by_hyper = matches!(status, "400" | "414" | "431")
        && lines.all(|line| match line.split_once(": ") {
            Some(("connection", value)) => value == "close",
            Some(("content-length", value)) => value == "0",
            Some((name, _)) => name == "date",
            None => false,
        });
    if !is_by_hyper {
        return None;
    }
    let mut problem = match status {
        "431" | "414" => Code::TooLarge.problem(format!(
            "the head of the request has more than {REQUEST_HEADERS_MAX} headers or {REQUEST_HEAD_BYTES_MAX} bytes"
        )),
        _ => Code::Malformed.problem("this is not an HTTP request"),
    };
    problem.status = status.parse().ok()?;
    let id = RequestId::random();
    let body = problem::document(&problem, &id).to_string();
    debug!(request_id = %id, status, "answered bytes that are not a request");
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\n{REQUEST_ID}: {id}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Some(answer.into())
}

impl<S: AsyncRead + Unpin> AsyncRead for ErrorBodyStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ErrorBodyStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replacement.is_none() {
            match self.replacement_for(bytes) {
                Some(ours) => self.replacement = Some((ours, bytes.len())),
                None => {
                    let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
                    self.is_partial = written < bytes.len();
                    return Poll::Ready(Ok(written));
                }
            }
        }
        self.poll_replacement(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // An answer that hyper writes by itself is one slice; our own answers begin with their head.
        if self.replacement.is_some() || slices.len() == 1 && self.replacement_for(&slices[0]).is_some() {
            return self.poll_write(cx, &slices[0]);
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.is_partial = written < slices.iter().map(|slice| slice.len()).sum();
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
    async fn only_answers_of_hyper_are_replaced() {
        let say = async |text: &str| {
            let mut stream = ErrorBodyStream::new(Vec::new());
            stream.write_all(text.as_bytes()).await.unwrap();
            String::from_utf8(stream.into_inner()).unwrap()
        };
        let answer = say("HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(head.contains(&format!("x-request-id: {}", body["request_id"].as_str().unwrap())));
        let answer = say("HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n").await;
        assert!(answer.contains(r#""code":"too_large""#) && answer.contains(r#""status":431"#), "{answer}");

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
    /// `poll_write` need not take all bytes, and the rest of an answer may look like one of hyper's heads.
    #[tokio::test]
    async fn the_rest_of_an_answer_is_not_replaced() {
        let head = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let before = format!("HTTP/1.1 200 OK\r\ncontent-length: 168\r\n\r\n{}", "x".repeat(100));
        let ours = format!("{before}{head}");
        for is_vectored in [false, true] {
            // It holds the first part, then the bytes that look like a head.
            let (stream, mut client) = tokio::io::duplex(before.len());
            let (mut stream, mut rest, mut arrived) =
                (ErrorBodyStream::new(stream), ours.as_bytes(), Vec::new());
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
            // The next answer is checked again.
            let speaks = async {
                stream.write_all(head.as_bytes()).await.unwrap();
                drop(stream);
            };
            // More bytes than fit into the buffer between both ends.
            let mut answer = String::new();
            let (_, read) = tokio::join!(speaks, client.read_to_string(&mut answer));
            read.unwrap();
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
    }
}
