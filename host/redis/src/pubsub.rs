//! The connection on which the bus receives messages. It has its own codec, because the driver's queue of
//! messages has no bound, and because a payload here is a slice of the read buffer. The connection is opened
//! again by itself, with an event. The bus subscribes again, because only the bus knows which channels it
//! still needs.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use redis::{ConnectionAddr, ConnectionInfo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::endpoint::RedisEndpoint;
use switchboard_core::limits;

/// An event of the connection. Events come in the order in which they happened.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// Connected, for the first time or again. No channel is subscribed.
    Up,
    Message {
        channel: Bytes,
        payload: Bytes,
    },
    /// The connection was lost, and with it every subscription. Messages may have been missed from here to
    /// `Up`, and until each channel is confirmed.
    Down,
}

/// The events of the connection. Dropping it ends the connection.
pub struct Messages {
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Messages {
    /// Returns the next event. Cancel safe. None only if the task panicked.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The error of a request: not connected, or the connection was lost before the confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

#[derive(Clone)]
pub struct Subscriber {
    requests: mpsc::Sender<Request>,
}

impl Subscriber {
    /// Subscribes to channels. Resolves after Redis confirmed every channel: from then on the connection
    /// receives what is published.
    pub async fn subscribe(&self, channels: &[impl AsRef<[u8]>]) -> Result<(), Away> {
        self.order("SUBSCRIBE", channels).await
    }

    /// Unsubscribes from channels. Resolves after Redis confirmed it.
    pub async fn unsubscribe(&self, channels: &[impl AsRef<[u8]>]) -> Result<(), Away> {
        self.order("UNSUBSCRIBE", channels).await
    }

    async fn order(&self, command: &'static str, channels: &[impl AsRef<[u8]>]) -> Result<(), Away> {
        if channels.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        array(&mut text, channels.len() + 1);
        bulk(&mut text, command.as_bytes());
        channels.iter().for_each(|channel| bulk(&mut text, channel.as_ref()));
        let (done, confirmed) = oneshot::channel();
        self.requests.send(Request { text, channels: channels.len(), done }).await.map_err(|_| Away)?;
        confirmed.await.map_err(|_| Away)
    }
}

/// A request that Redis confirms channel by channel. When it is dropped unconfirmed, the caller gets
/// [`Away`].
struct Request {
    text: Vec<u8>,
    channels: usize,
    done: oneshot::Sender<()>,
}

/// The run id of the server that takes publications. None: any server will do.
pub(super) type Primary = Option<watch::Receiver<Option<Arc<str>>>>;

pub(super) fn listen(endpoint: RedisEndpoint, primary: Primary) -> (Subscriber, Messages) {
    let (requests, requested) = mpsc::channel(limits::REDIS_SUBSCRIBE_REQUESTS_MAX);
    let (event, events) = mpsc::channel(limits::REDIS_RECEIVED_MAX);
    let task = tokio::spawn(keep(endpoint, primary, requested, event));
    (Subscriber { requests }, Messages { events, task })
}

async fn keep(
    endpoint: RedisEndpoint,
    primary: Primary,
    mut requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<Event>,
) {
    let mut backoff = limits::REDIS_BACKOFF_MIN;
    loop {
        if let Ok(server) = endpoint.find().await
            && let Ok(Ok((stream, run_id))) =
                timeout(limits::REDIS_SILENCE_MAX, connect_to_primary(&server, &primary)).await
        {
            backoff = limits::REDIS_BACKOFF_MIN;
            if events.send(Event::Up).await.is_err() {
                return;
            }
            let ended =
                Subscription::new(stream).run(&mut requests, &events, moved(primary.clone(), run_id)).await;
            tracing::warn!("the bus lost its connection to Redis; it reconnects and fills the gaps: {ended}");
            if events.send(Event::Down).await.is_err() {
                return;
            }
        }
        // Requests while the connection is down are dropped, which tells their callers.
        let again = Instant::now() + backoff;
        while let Ok(Some(request)) = timeout_at(again, requests.recv()).await {
            drop(request);
        }
        tokio::time::sleep_until(again).await;
        backoff = (backoff * 2).min(limits::REDIS_BACKOFF_MAX);
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a server that is not a replica, and returns its run id. The server behind one address may
/// change.
async fn connect_to_primary(
    server: &ConnectionInfo,
    primary: &Primary,
) -> std::io::Result<(Box<dyn Stream>, String)> {
    let mut stream = connect(server).await?;
    if primary.is_none() {
        return Ok((stream, String::new()));
    }
    let mut info = String::new();
    for section in ["server", "replication"] {
        let mut text = Vec::new();
        array(&mut text, 2);
        bulk(&mut text, b"INFO");
        bulk(&mut text, section.as_bytes());
        stream.write_all(&text).await?;
        info.push_str(&read_bulk(&mut stream).await?);
    }
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    if field("role") == Some("slave") {
        return Err(broken("the server is a replica"));
    }
    let run_id = field("run_id").unwrap_or("-").to_owned();
    Ok((stream, run_id))
}

/// Reads the text of a bulk reply.
async fn read_bulk(stream: &mut Box<dyn Stream>) -> std::io::Result<String> {
    let mut buffer = BytesMut::new();
    loop {
        if let Some((head, begin)) = line(&buffer, 0)? {
            let length = number(head.strip_prefix(b"$").ok_or_else(|| broken("INFO was refused"))?)?;
            if buffer.len() >= begin + length + 2 {
                return Ok(String::from_utf8_lossy(&buffer[begin..begin + length]).into_owned());
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(broken("closed"));
        }
    }
}

/// Resolves when publications go to another server than this one.
async fn moved(primary: Primary, run_id: String) {
    if let Some(mut primary) = primary {
        let is_another = |now: &Option<Arc<str>>| now.as_deref().is_some_and(|now| now != run_id.as_str());
        // After a restart this connection may know the new server before the other connection does.
        let _ = timeout(limits::REDIS_PRIMARY_AGREE_WAIT, primary.wait_for(|now| !is_another(now))).await;
        if primary.wait_for(is_another).await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

pub(super) async fn connect(server: &ConnectionInfo) -> std::io::Result<Box<dyn Stream>> {
    let unsupported =
        || std::io::Error::new(std::io::ErrorKind::Unsupported, "an address that is neither TCP nor a path");
    let mut stream: Box<dyn Stream> = match server.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        ConnectionAddr::Unix(path) => Box::new(UnixStream::connect(path).await?),
        _ => return Err(unsupported()),
    };
    if let Some(password) = server.redis_settings().password() {
        let mut text = Vec::new();
        let user = server.redis_settings().username();
        array(&mut text, if user.is_some() { 3 } else { 2 });
        bulk(&mut text, b"AUTH");
        user.into_iter().for_each(|user| bulk(&mut text, user.as_bytes()));
        bulk(&mut text, password.as_bytes());
        stream.write_all(&text).await?;
        let mut buffer = BytesMut::new();
        loop {
            match Reply::take(&mut buffer)? {
                Some(Reply::Simple(_)) => break,
                Some(_) => return Err(broken("AUTH was refused")),
                None if stream.read_buf(&mut buffer).await? == 0 => return Err(broken("closed")),
                None => {}
            }
        }
    }
    Ok(stream)
}

/// One connection from its beginning to its end.
struct Subscription {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    /// The requests without a confirmation. Redis confirms in the order of the commands.
    unconfirmed: VecDeque<Request>,
}

impl Subscription {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(16 * 1024), unconfirmed: VecDeque::new() }
    }

    /// Runs until the connection ends, and returns the reason.
    async fn run(
        mut self,
        requests: &mut mpsc::Receiver<Request>,
        events: &mpsc::Sender<Event>,
        moved: impl Future<Output = ()>,
    ) -> std::io::Error {
        let mut moved = pin!(moved);
        let mut ping = tokio::time::interval(limits::REDIS_PING_EVERY);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_reply_at = Instant::now();
        loop {
            let done = tokio::select! {
                read = self.stream.read_buf(&mut self.buffer) => match read {
                    Ok(0) => Err(broken("Redis closed it")),
                    Ok(_) => {
                        let received = self.receive(events).await;
                        // Set after the events were passed on: while the bus was slow, the silence was not
                        // the server's.
                        last_reply_at = Instant::now();
                        received
                    }
                    Err(error) => Err(error),
                },
                request = requests.recv() => match request {
                    Some(request) => self.send(request).await,
                    // No caller can subscribe any more, but messages of the subscribed channels still arrive.
                    None => std::future::pending().await,
                },
                () = &mut moved => Err(broken("the primary is another server now")),
                _ = ping.tick() => {
                    let silence = last_reply_at.elapsed();
                    if silence > limits::REDIS_SILENCE_MAX {
                        Err(broken("Redis was silent for too long"))
                    } else if silence < limits::REDIS_PING_EVERY * 3 / 2 {
                        // A message shows as well that the server is there, and one comes every second.
                        Ok(())
                    } else {
                        write(&mut self.stream, b"*1\r\n$4\r\nPING\r\n").await
                    }
                }
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    async fn send(&mut self, request: Request) -> std::io::Result<()> {
        let written = write(&mut self.stream, &request.text).await;
        self.unconfirmed.push_back(request);
        written
    }

    /// Passes on every complete reply in the buffer. Waits when the bus is slow, and then reads nothing more.
    async fn receive(&mut self, events: &mpsc::Sender<Event>) -> std::io::Result<()> {
        while let Some(reply) = Reply::take(&mut self.buffer)? {
            match reply {
                Reply::Message { channel, payload } => {
                    let received = Event::Message { channel, payload };
                    events.send(received).await.map_err(|_| broken("the bus stopped listening"))?;
                }
                Reply::Confirmation => self.confirm(),
                Reply::Simple(_) | Reply::Pong => {}
                Reply::Error(reason) => return Err(broken(&reason)),
            }
        }
        Ok(())
    }

    fn confirm(&mut self) {
        let Some(request) = self.unconfirmed.front_mut() else { return };
        request.channels -= 1;
        if request.channels == 0
            && let Some(request) = self.unconfirmed.pop_front()
        {
            // The caller may have gone.
            let _ = request.done.send(());
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    match timeout(limits::REDIS_SILENCE_MAX, stream.write_all(bytes)).await {
        Ok(written) => written,
        Err(_) => Err(broken("Redis takes no commands")),
    }
}

fn array(text: &mut Vec<u8>, length: usize) {
    text.extend_from_slice(format!("*{length}\r\n").as_bytes());
}

fn bulk(text: &mut Vec<u8>, bytes: &[u8]) {
    text.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    text.extend_from_slice(bytes);
    text.extend_from_slice(b"\r\n");
}

fn broken(why: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned())
}

/// A reply of Redis to a subscriber: a small part of RESP2.
#[derive(Debug, PartialEq)]
enum Reply {
    Message {
        channel: Bytes,
        payload: Bytes,
    },
    /// One channel subscribed or unsubscribed.
    Confirmation,
    Pong,
    Simple(Bytes),
    Error(String),
}

impl Reply {
    /// Takes the next complete reply off the buffer; None while its end has not arrived.
    fn take(buffer: &mut BytesMut) -> std::io::Result<Option<Self>> {
        let Some((head, mut at)) = line(buffer, 0)? else { return Ok(None) };
        let (kind, rest) = head.split_first().ok_or_else(|| broken("an empty line"))?;
        match kind {
            b'+' => {
                let length = rest.len();
                let text = buffer.split_to(at).freeze().slice(1..1 + length);
                return Ok(Some(Self::Simple(text)));
            }
            b'-' => {
                let reason = String::from_utf8_lossy(rest).into_owned();
                buffer.advance(at);
                return Ok(Some(Self::Error(reason)));
            }
            b'*' => {}
            _ => return Err(broken("not a reply to a subscriber")),
        }
        let count = number(rest)?;
        if !(2..=4).contains(&count) {
            return Err(broken("not a reply to a subscriber"));
        }
        let mut parts = [(0, 0); 4];
        for part in &mut parts[..count] {
            let Some((head, after)) = line(buffer, at)? else { return Ok(None) };
            (*part, at) = match head.split_first() {
                Some((b'$', b"-1")) | Some((b':', _)) => ((after, after), after),
                Some((b'$', length)) => {
                    let end = after + number(length)?;
                    if buffer.len() < end + 2 {
                        return Ok(None);
                    }
                    ((after, end), end + 2)
                }
                _ => return Err(broken("not a reply to a subscriber")),
            };
        }
        let whole = buffer.split_to(at).freeze();
        let part = |index: usize| whole.slice(parts[index].0..parts[index].1);
        match (&part(0)[..], count) {
            (b"message", 3) => Ok(Some(Self::Message { channel: part(1), payload: part(2) })),
            (b"subscribe" | b"unsubscribe", 3) => Ok(Some(Self::Confirmation)),
            (b"pong", 2) => Ok(Some(Self::Pong)),
            _ => Err(broken("not a reply to a subscriber")),
        }
    }
}

/// Returns a line without its end, and the position of the next line.
fn line(buffer: &[u8], from: usize) -> std::io::Result<Option<(&[u8], usize)>> {
    let rest = &buffer[from..];
    match rest.windows(2).take(limits::REDIS_LINE_BYTES_MAX).position(|pair| pair == b"\r\n") {
        Some(length) => Ok(Some((&rest[..length], from + length + 2))),
        None if rest.len() > limits::REDIS_LINE_BYTES_MAX => Err(broken("a line without an end")),
        None => Ok(None),
    }
}

fn number(digits: &[u8]) -> std::io::Result<usize> {
    let number: Option<usize> = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number
        .filter(|&number| number <= limits::REDIS_MESSAGE_BYTES_MAX)
        .ok_or_else(|| broken("a length out of bounds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], cut: usize) -> std::io::Result<Vec<Reply>> {
        let (mut buffer, mut replies) = (BytesMut::new(), Vec::new());
        for chunk in text.chunks(cut) {
            buffer.extend_from_slice(chunk);
            while let Some(one) = Reply::take(&mut buffer)? {
                replies.push(one);
            }
        }
        assert!(buffer.is_empty(), "{buffer:?}");
        Ok(replies)
    }

    #[test]
    fn replies_are_parsed_however_they_are_cut() {
        let text = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n\
            *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$6\r\na\r\nb\r\n\r\n\
            *3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n-ERR no\r\n";
        for cut in 1..text.len() {
            let expected = vec![
                Reply::Confirmation,
                Reply::Message { channel: Bytes::from("c"), payload: Bytes::from("a\r\nb\r\n") },
                Reply::Confirmation,
                Reply::Pong,
                Reply::Simple(Bytes::from("PONG")),
                Reply::Error("ERR no".into()),
            ];
            assert_eq!(all(text, cut).unwrap(), expected, "cut {cut}");
        }
    }

    #[test]
    fn nonsense_ends_the_connection() {
        let long = format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${}\r\n", limits::REDIS_MESSAGE_BYTES_MAX + 1);
        for bad in [
            "?\r\n",
            "*9\r\n",
            "*3\r\n$x\r\n",
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
            &long,
            &"+".repeat(2000),
            "\r\n",
        ] {
            assert!(all(bad.as_bytes(), 7).is_err(), "{bad}");
        }
    }
}
