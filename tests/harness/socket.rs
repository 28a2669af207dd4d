//! A WebSocket as bytes: the handshake in every form, valid and invalid frames. It knows no message of the
//! protocol.

use std::fmt;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use crate::frames::{self, Frame};

/// An upgrade request, line by line.
#[derive(Clone, Debug)]
pub struct Handshake {
    target: String,
    headers: Vec<(String, String)>,
}

impl Handshake {
    /// No token at all: the first frame must be `auth`.
    pub fn bare() -> Self {
        Self { target: "/ws".into(), headers: Vec::new() }
    }

    pub fn bearer(token: &str) -> Self {
        Self::bare().header("authorization", format!("Bearer {token}"))
    }

    pub fn subprotocol(token: &str) -> Self {
        Self::bare().header("sec-websocket-protocol", format!("switchboard.v1, bearer.{token}"))
    }

    pub fn query(token: &str) -> Self {
        Self { target: format!("/ws?token={token}"), headers: Vec::new() }
    }

    pub fn ticket(ticket: &str) -> Self {
        Self { target: format!("/ws?ticket={ticket}"), headers: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn bytes(&self, host: SocketAddr) -> Vec<u8> {
        let mut request = format!(
            "GET {} HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            self.target
        );
        for (name, value) in &self.headers {
            request += &format!("{name}: {value}\r\n");
        }
        (request + "\r\n").into_bytes()
    }
}

/// The answer of the server to a handshake: its status, and its unchanged head.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub text: String,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The reason for a failed connect.
#[derive(Debug)]
pub enum NotOpened {
    /// An HTTP answer other than 101, and as much of its body as came with it.
    Refused(Head, String),
    Lost(String),
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(head, body) => write!(f, "refused with {}: {body}", head.status),
            Self::Lost(why) => write!(f, "lost: {why}"),
        }
    }
}

/// An event of the socket.
#[derive(Debug)]
pub enum Incoming {
    Json(Value),
    /// The server sent a close frame.
    Closed(u16, String),
    /// The connection ended without a close frame.
    Lost(String),
}

pub struct Socket {
    stream: TcpStream,
    unread: BytesMut,
}

/// The reading half, while another task writes.
pub struct Reader {
    stream: OwnedReadHalf,
    unread: BytesMut,
}

/// Size of one read, enough for many frames.
const READ_BYTES: usize = 16 * 1024;

impl Reader {
    /// As [`Socket::next_frame`].
    pub async fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        next_frame(&mut self.stream, &mut self.unread).await
    }
}

async fn next_frame(
    stream: &mut (impl AsyncRead + Unpin),
    unread: &mut BytesMut,
) -> Result<Option<Frame>, String> {
    loop {
        if let Some(frame) = frames::take(unread)? {
            return Ok(Some(frame));
        }
        unread.reserve(READ_BYTES);
        match stream.read_buf(unread).await {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

impl Socket {
    pub async fn open(host: SocketAddr, handshake: &Handshake) -> Result<(Self, Head), NotOpened> {
        Self::open_from(None, host, handshake).await
    }

    /// Connects from a source address of the loopback network, for loads that run out of ports.
    pub async fn open_from(
        source: Option<SocketAddr>,
        host: SocketAddr,
        handshake: &Handshake,
    ) -> Result<(Self, Head), NotOpened> {
        let lost = |error: std::io::Error| NotOpened::Lost(error.to_string());
        let socket = TcpSocket::new_v4().map_err(lost)?;
        if let Some(source) = source {
            socket.bind(source).map_err(lost)?;
        }
        let mut stream = socket.connect(host).await.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        stream.write_all(&handshake.bytes(host)).await.map_err(lost)?;
        let mut unread = BytesMut::with_capacity(1024);
        let end = loop {
            if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut unread).await.map_err(lost)? == 0 {
                return Err(NotOpened::Lost("closed during the handshake".into()));
            }
        };
        let text = String::from_utf8_lossy(&unread.split_to(end)).into_owned();
        unread.advance(4);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let head = Head { status: status.ok_or(NotOpened::Lost(text.clone()))?, text };
        if head.status == 101 {
            return Ok((Self { stream, unread }, head));
        }
        let length = head.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while unread.len() < length && stream.read_buf(&mut unread).await.map_err(lost)? > 0 {}
        Err(NotOpened::Refused(head, String::from_utf8_lossy(&unread).into_owned()))
    }

    pub async fn write_json(&mut self, json: &Value) -> std::io::Result<()> {
        self.write_text(&json.to_string()).await
    }

    pub async fn write_text(&mut self, text: &str) -> std::io::Result<()> {
        self.write_raw(&frames::encode(frames::TEXT, text.as_bytes())).await
    }

    /// Writes bytes unchanged; they need not be a frame.
    pub async fn write_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next frame, control frames included. `None`: the connection ended. Cancel safe.
    pub async fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        next_frame(&mut self.stream, &mut self.unread).await
    }

    /// Splits it for one task that reads and one that writes.
    pub fn into_split(self) -> (Reader, OwnedWriteHalf) {
        let (stream, writer) = self.stream.into_split();
        (Reader { stream, unread: self.unread }, writer)
    }

    /// The next event; it answers pings meanwhile. Cancel safe except for that answer, a few bytes.
    pub async fn next(&mut self) -> Incoming {
        loop {
            let frame = match self.next_frame().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Incoming::Lost("end of stream".into()),
                Err(error) => return Incoming::Lost(error),
            };
            match frame.opcode {
                frames::TEXT => match serde_json::from_slice(&frame.payload) {
                    Ok(json) => return Incoming::Json(json),
                    Err(error) => return Incoming::Lost(format!("the server sent no JSON: {error}")),
                },
                frames::PING => {
                    let pong = frames::encode(frames::PONG, &frame.payload);
                    if let Err(error) = self.write_raw(&pong).await {
                        return Incoming::Lost(error.to_string());
                    }
                }
                frames::PONG => {}
                frames::CLOSE => {
                    let (code, reason) = frames::close_of(&frame.payload);
                    // The echo may fail: the server may be gone already.
                    let _ = self.write_raw(&frames::encode(frames::CLOSE, &code.to_be_bytes())).await;
                    return Incoming::Closed(code, reason);
                }
                other => return Incoming::Lost(format!("the server sent opcode {other}")),
            }
        }
    }
}
