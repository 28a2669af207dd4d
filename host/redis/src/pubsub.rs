//! What the bus hears. A connection of its own with a codec of its own: the driver's queue of messages has no bound, and
//! a payload here is a slice of what was read. It comes back by itself and says so; subscribing again is the bus's
//! business, because only the bus knows what it still wants.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use redis::{ConnectionAddr, ConnectionInfo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::place::Place;
use super::{BACKOFF_MAX, BACKOFF_MIN, SILENCE_MAX};
use crate::limits;

/// Between two questions whether the connection still lives.
const PULSE: Duration = Duration::from_millis(1000);
/// The connection for commands may find the primary so much later than this one.
const AGREE_WITHIN: Duration = Duration::from_secs(2);
/// Orders to subscribe that wait for the connection's task; one more waits outside.
const ORDERS_MAX: usize = 1024;

/// One thing that happened, in order.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// Connected, for the first time or again. Nothing is subscribed.
    Up,
    Message {
        channel: Bytes,
        payload: Bytes,
    },
    /// The connection is gone, and with it every subscription. Messages may have been missed from here to `Up` and on to
    /// the confirmation of each channel.
    Down,
}

/// The events. Dropping it ends the connection.
pub struct Heard {
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Heard {
    /// The next one. Cancel safe. None only if the task panicked.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Not connected, or the connection was lost before the confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

#[derive(Clone)]
pub struct Subscriber {
    orders: mpsc::Sender<Order>,
}

impl Subscriber {
    /// Resolves once Redis confirmed every channel: what is published from then on is heard.
    pub async fn subscribe(&self, channels: &[impl AsRef<[u8]>]) -> Result<(), Away> {
        self.order("SUBSCRIBE", channels).await
    }

    /// Resolves once Redis confirmed it.
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
        self.orders.send(Order { text, channels: channels.len(), done }).await.map_err(|_| Away)?;
        confirmed.await.map_err(|_| Away)
    }
}

/// A command that is confirmed channel by channel. Dropped unconfirmed it tells the asker that the connection is away.
struct Order {
    text: Vec<u8>,
    channels: usize,
    done: oneshot::Sender<()>,
}

/// The run id of the server that takes publications. None: any server will do.
pub(super) type Primary = Option<watch::Receiver<Option<Arc<str>>>>;

pub(super) fn listen(place: Place, primary: Primary) -> (Subscriber, Heard) {
    let (orders, ordered) = mpsc::channel(ORDERS_MAX);
    let (event, events) = mpsc::channel(limits::REDIS_HEARD_MAX);
    let task = tokio::spawn(keep(place, primary, ordered, event));
    (Subscriber { orders }, Heard { events, task })
}

async fn keep(
    place: Place,
    primary: Primary,
    mut orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<Event>,
) {
    let mut backoff = BACKOFF_MIN;
    loop {
        if let Ok(server) = place.find().await
            && let Ok(Ok((stream, run_id))) =
                timeout(SILENCE_MAX, connect_to_primary(&server, &primary)).await
        {
            backoff = BACKOFF_MIN;
            if events.send(Event::Up).await.is_err() {
                return;
            }
            let ended = Line::new(stream).run(&mut orders, &events, moved(primary.clone(), run_id)).await;
            tracing::warn!("the bus lost its connection to Redis: {ended}");
            if events.send(Event::Down).await.is_err() {
                return;
            }
        }
        // Who orders while it is away is told so by the drop.
        let again = Instant::now() + backoff;
        while let Ok(Some(order)) = timeout_at(again, orders.recv()).await {
            drop(order);
        }
        tokio::time::sleep_until(again).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to a server that is no replica, and its run id. Behind one address there may be another server each time.
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

/// The text of a bulk reply.
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
        // After a restart this connection may know the server before the other one does.
        let _ = timeout(AGREE_WITHIN, primary.wait_for(|now| !is_another(now))).await;
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
            match Said::take(&mut buffer)? {
                Some(Said::Simple(_)) => break,
                Some(_) => return Err(broken("AUTH was refused")),
                None if stream.read_buf(&mut buffer).await? == 0 => return Err(broken("closed")),
                None => {}
            }
        }
    }
    Ok(stream)
}

/// One connection from its beginning to its end.
struct Line {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    /// Confirmations come in the order of the commands.
    unconfirmed: VecDeque<Order>,
}

impl Line {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(16 * 1024), unconfirmed: VecDeque::new() }
    }

    /// Why it ended.
    async fn run(
        mut self,
        orders: &mut mpsc::Receiver<Order>,
        events: &mpsc::Sender<Event>,
        moved: impl Future<Output = ()>,
    ) -> std::io::Error {
        let mut moved = pin!(moved);
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard_at = Instant::now();
        loop {
            let done = tokio::select! {
                read = self.stream.read_buf(&mut self.buffer) => match read {
                    Ok(0) => Err(broken("Redis closed it")),
                    Ok(_) => {
                        let heard = self.hear(events).await;
                        // After it: while the bus did not keep up, the silence was ours.
                        heard_at = Instant::now();
                        heard
                    }
                    Err(error) => Err(error),
                },
                order = orders.recv() => match order {
                    Some(order) => self.say(order).await,
                    // Nobody will subscribe any more, but what is subscribed is still heard.
                    None => std::future::pending().await,
                },
                () = &mut moved => Err(broken("the primary is another server now")),
                _ = pulse.tick() => {
                    if heard_at.elapsed() > SILENCE_MAX {
                        Err(broken("Redis was silent for too long"))
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

    async fn say(&mut self, order: Order) -> std::io::Result<()> {
        let written = write(&mut self.stream, &order.text).await;
        self.unconfirmed.push_back(order);
        written
    }

    /// Everything that is whole in the buffer. Waits where the bus does not keep up, and then nothing more is read.
    async fn hear(&mut self, events: &mpsc::Sender<Event>) -> std::io::Result<()> {
        while let Some(said) = Said::take(&mut self.buffer)? {
            match said {
                Said::Message { channel, payload } => {
                    let heard = Event::Message { channel, payload };
                    events.send(heard).await.map_err(|_| broken("nobody listens"))?;
                }
                Said::Confirmation => self.confirm(),
                Said::Simple(_) | Said::Pong => {}
                Said::Error(reason) => return Err(broken(&reason)),
            }
        }
        Ok(())
    }

    fn confirm(&mut self) {
        let Some(order) = self.unconfirmed.front_mut() else { return };
        order.channels -= 1;
        if order.channels == 0
            && let Some(order) = self.unconfirmed.pop_front()
        {
            // Who ordered may have gone.
            let _ = order.done.send(());
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    match timeout(SILENCE_MAX, stream.write_all(bytes)).await {
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

/// What Redis says to a subscriber: a narrow part of RESP2.
#[derive(Debug, PartialEq)]
enum Said {
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

impl Said {
    /// The next whole one, taken off the buffer; None while its end has not come.
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

/// A line without its end, and where the next begins.
fn line(buffer: &[u8], from: usize) -> std::io::Result<Option<(&[u8], usize)>> {
    /// An error of Redis is longer than any number.
    const LINE_BYTES_MAX: usize = 1024;
    let rest = &buffer[from..];
    match rest.windows(2).take(LINE_BYTES_MAX).position(|pair| pair == b"\r\n") {
        Some(length) => Ok(Some((&rest[..length], from + length + 2))),
        None if rest.len() > LINE_BYTES_MAX => Err(broken("a line without an end")),
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

    fn all(text: &[u8], cut: usize) -> std::io::Result<Vec<Said>> {
        let (mut buffer, mut said) = (BytesMut::new(), Vec::new());
        for chunk in text.chunks(cut) {
            buffer.extend_from_slice(chunk);
            while let Some(one) = Said::take(&mut buffer)? {
                said.push(one);
            }
        }
        assert!(buffer.is_empty(), "{buffer:?}");
        Ok(said)
    }

    #[test]
    fn what_redis_says_is_understood_however_it_is_cut() {
        let text = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n\
            *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$6\r\na\r\nb\r\n\r\n\
            *3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n-ERR no\r\n";
        for cut in 1..text.len() {
            let expected = vec![
                Said::Confirmation,
                Said::Message { channel: Bytes::from("c"), payload: Bytes::from("a\r\nb\r\n") },
                Said::Confirmation,
                Said::Pong,
                Said::Simple(Bytes::from("PONG")),
                Said::Error("ERR no".into()),
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
