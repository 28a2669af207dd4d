//! Delivery: one sender at a fixed rate, a room of 100, every message stored. Measures the time to the
//! acknowledgement, and to the last receiver. Meanwhile some clients disconnect and resume. The control is
//! publish and subscribe on raw Redis: nothing stored, nothing checked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use switchboard_tests::checker::{Books, SeenMessage, Wrong};
use switchboard_tests::frames;
use switchboard_tests::services::Redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::fanout::FRAME_BYTES;
use crate::figures::{By, Figures, Latencies, Row};
use crate::rig::{self, Rig};
use crate::server::{Server, Turns, in_turn, quiet};

pub(crate) const ROOM: usize = 100;
/// Further clients, which the measurement does not wait for: they disconnect after this many messages, and
/// resume from their positions.
const VISITORS: usize = 3;
const VISIT_MESSAGES: usize = 50;
/// After the last message, a client that receives nothing for this time is assumed to receive nothing more.
const SILENCE: Duration = Duration::from_secs(5);

/// `time` is that of one round of one server, and of the control.
pub(crate) async fn rows(rig: &Rig, per_second: u32, time: Duration) -> io::Result<Vec<Row>> {
    let [acknowledged, delivered] =
        in_turn(rig, async |server| Ok(measured(server, per_second, time).await?)).await?;
    quiet(rig).await;
    rig.is("publish and subscribe on raw Redis");
    let control = redis(per_second, ROOM, time).await;
    let row = |name: &str, turns: Turns, to_reach| Row {
        name: format!("{name}, room of {ROOM}, {per_second}/s"),
        figures: turns.node,
        control_name: "raw Redis publish → last subscriber".into(),
        control: control.clone(),
        peers: Some(turns.peers),
        by: By::P50,
        to_reach,
    };
    Ok(vec![
        row("send → commit and acknowledgement", acknowledged, "p50 ≤ 1 ms"),
        row("send → last receiver", delivered, "p50 ≤ 2, p99 ≤ 10 ms"),
    ])
}

/// The time of each message, and the number of clients that have it.
struct Clock {
    messages: Mutex<Vec<(Instant, usize)>>,
    latencies: Mutex<Latencies>,
}

impl Clock {
    fn new() -> Arc<Self> {
        Arc::new(Self { messages: Mutex::default(), latencies: Mutex::default() })
    }

    fn sends(&self) {
        self.messages.lock().push((Instant::now(), 0));
    }

    /// A client has the n-th message; the last client stops its clock.
    fn arrives(&self, number: usize, of: usize) {
        let mut messages = self.messages.lock();
        if let Some((sent, arrived)) = messages.get_mut(number) {
            *arrived += 1;
            if *arrived == of {
                let took = sent.elapsed();
                self.latencies.lock().add(took);
            }
        }
    }

    fn complete(&self) -> usize {
        self.latencies.lock().count()
    }

    async fn all_arrived(&self, sent: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.complete() < sent && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn figures(&self, sent: usize, wrong: u64) -> Figures {
        let latencies = self.latencies.lock().clone();
        let missing = sent.saturating_sub(latencies.count()) as u64;
        Figures { spread: latencies.spread(), wrong: wrong + missing, ..Figures::default() }
    }
}

/// The acknowledgements and the deliveries.
async fn measured(server: Server<'_>, per_second: u32, time: Duration) -> Result<[Figures; 2], Wrong> {
    // The peers cannot resume.
    let visitors = if server.is_node() { VISITORS } else { 0 };
    let users: Vec<_> = (0..ROOM + visitors).map(|n| format!("near-{n}")).collect();
    let room = server.room(&users).await;
    let (users, visitors) = users.split_at(ROOM);
    let (acknowledged, delivered) = (Clock::new(), Clock::new());
    // The seq of the last message, once it is known; zero until then.
    let (last, ending) = watch::channel(0);
    let mut tasks = Vec::new();
    // Keep all halves: a dropped half would close its connection.
    let mut writers = Vec::new();
    let mut head = 0;
    for (socket, from) in server.all_subscribed(users, &room).await {
        let (mut reader, half) = socket.into_split();
        let (acknowledged, delivered) = (acknowledged.clone(), delivered.clone());
        writers.push(half);
        head = from;
        let mut ending = ending.clone();
        tasks.push(tokio::spawn(async move {
            let (mut pushed, mut replies) = (Vec::new(), Vec::new());
            loop {
                let frame = tokio::select! {
                    frame = reader.next_frame() => frame,
                    _ = ending.changed() => break,
                };
                let Ok(Some(frame)) = frame else { break };
                let Some(number) = rig::number_of(&frame.payload) else { continue };
                if rig::is(&frame.payload, b"message.new") {
                    delivered.arrives(number, ROOM);
                    pushed.extend(SeenMessage::of(&frame.payload));
                } else if rig::is(&frame.payload, b"message.sent") {
                    acknowledged.arrives(number, 1);
                    replies.extend(SeenMessage::of(&frame.payload));
                }
            }
            (from, pushed, replies)
        }));
    }
    let visits = join_all(visitors.iter().map(|user| visit(server, user, &room, ending.clone())));
    let writer = writers.first_mut().expect("a room has members");
    let meter = server.meter();
    server.is(format!("{per_second} messages a second for {time:?}"));
    let talk = at_rate(per_second, time, async |n| {
        let frame = rig::message(n, &room, &format!("{n} is the number of a message of about this length"));
        acknowledged.sends();
        delivered.sends();
        writer.write_all(&frames::encode(frames::TEXT, frame.as_bytes())).await.expect("a frame is taken");
    });
    let talk = async {
        let sent = talk.await;
        delivered.all_arrived(sent).await;
        let cpu = meter.read();
        last.send_replace(head + sent as u64);
        (sent, cpu)
    };
    let ((sent, cpu), visits) = tokio::join!(talk, visits);
    let mut books = Books::default();
    for (user, task) in users.iter().zip(tasks) {
        let (from, pushed, replies) = task.await.expect("a reader ends");
        // A peer promises no order, so only its store is compared.
        if server.is_node() {
            books.received(&room, user, from, pushed);
        }
        books.acknowledged(&room, replies);
    }
    for (user, (from, seen)) in visitors.iter().zip(visits) {
        books.received(&room, user, from, seen);
    }
    let again = server.check(&books, |_| users[0].clone()).await?;
    Ok([
        acknowledged.figures(sent, 0).with_cpu(cpu, sent as f64),
        delivered.figures(sent, again).with_cpu(cpu, (sent * ROOM) as f64),
    ])
}

/// A client that disconnects and resumes until it has the last message. Returns its first position and
/// everything that it received.
async fn visit(
    server: Server<'_>,
    user: &str,
    room: &str,
    mut last: watch::Receiver<u64>,
) -> (u64, Vec<SeenMessage>) {
    let (mut socket, from) = server.subscribed(user, room, None).await;
    let (mut seen, mut received): (Vec<SeenMessage>, usize) = (Vec::new(), 0);
    loop {
        let (has, end) = (seen.last().map_or(from, |seen| seen.seq), *last.borrow_and_update());
        if end != 0 && has >= end {
            return (from, seen);
        }
        if received == VISIT_MESSAGES {
            drop(socket);
            socket = server.subscribed(user, room, Some(has)).await.0;
            received = 0;
        }
        tokio::select! {
            frame = socket.next_frame() => match frame {
                Ok(Some(frame)) if rig::is(&frame.payload, b"message.new") => {
                    seen.extend(SeenMessage::of(&frame.payload));
                    received += 1;
                }
                Ok(Some(_)) => {}
                _ => return (from, seen),
            },
            Ok(()) = last.changed() => {}
            () = tokio::time::sleep(SILENCE), if end != 0 => return (from, seen),
        }
    }
}

/// Sends this many a second, whatever the answers are. Returns the number.
pub(crate) async fn at_rate(per_second: u32, time: Duration, mut say: impl AsyncFnMut(u64)) -> usize {
    let mut beat = tokio::time::interval(Duration::from_secs(1) / per_second);
    let messages = u64::from(per_second) * time.as_secs();
    for n in 0..messages {
        beat.tick().await;
        say(n).await;
    }
    messages as usize
}

/// A publication for each message, which reaches so many subscribers.
pub(crate) async fn redis(per_second: u32, subscribers: usize, time: Duration) -> Figures {
    let redis = Redis::start().await;
    let payload = "x".repeat(FRAME_BYTES);
    // The message of Redis to a subscriber for every publication.
    let pushed = format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${FRAME_BYTES}\r\n{payload}\r\n").len();
    let clock = Clock::new();
    let mut tasks = Vec::new();
    for _ in 0..subscribers {
        let mut stream = connect(redis.address()).await;
        stream.write_all(b"SUBSCRIBE c\r\n").await.expect("Redis listens");
        let confirmed = "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n".len();
        let mut confirmation = vec![0; confirmed];
        stream.read_exact(&mut confirmation).await.expect("Redis confirms");
        let clock = clock.clone();
        tasks.push(tokio::spawn(async move {
            let (mut buffer, mut bytes, mut number) = (vec![0; 64 * 1024], 0, 0);
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                bytes += read;
                while bytes >= (number + 1) * pushed {
                    clock.arrives(number, subscribers);
                    number += 1;
                }
            }
        }));
    }
    let mut publisher = connect(redis.address()).await;
    let publish = format!("PUBLISH c {payload}\r\n");
    let sent = at_rate(per_second, time, async |_| {
        clock.sends();
        publisher.write_all(publish.as_bytes()).await.expect("Redis listens");
        // Answers are small; they are read so that they do not pile up.
        let mut answer = [0; 64];
        let _ = publisher.read(&mut answer).await;
    })
    .await;
    clock.all_arrived(sent).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    clock.figures(sent, 0)
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("Redis accepts");
    stream.set_nodelay(true).expect("a TCP stream");
    stream
}
