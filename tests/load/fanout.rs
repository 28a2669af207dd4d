//! Fan-out: a room with a fixed number of messages in flight, a new one as soon as an old one has reached
//! every client, from one connection or from many. The control is a bare broadcast loop with frames of the
//! same length. The peers store each message too.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use switchboard_tests::checker::{Books, SeenMessage, Wrong};
use switchboard_tests::frames;
use switchboard_tests::socket::{Handshake, Reader, Socket};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Semaphore, oneshot};

use crate::figures::{By, Figures, Row};
use crate::native;
use crate::process::Meter;
use crate::rig::{self, Rig};
use crate::server::{Server, in_turn, quiet};

/// About the length of a pushed message.
pub(crate) const FRAME_BYTES: usize = 500;
/// After this many messages a run ends early; its figures are still valid.
const MESSAGES_MAX: usize = 4_000_000;
/// Longer than any run.
const LIFE_MAX: Duration = Duration::from_secs(300);
/// Messages in flight at the end of a run arrive within this time, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// The connections that send.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum From {
    /// Each message in flight has a connection of its own.
    Many,
    /// One connection, which does not wait for its acknowledgements.
    One,
}

/// `time` is that of one round of one server, and of the control.
pub(crate) async fn rows(rig: &Rig, from: From, sizes: &[usize], time: Duration) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &size in sizes {
        for in_flight in [4, 64] {
            let frame_bytes = AtomicUsize::new(FRAME_BYTES);
            let [turns] = in_turn(rig, async |server| {
                let (figures, bytes) = stored(server, from, size, in_flight, time).await?;
                if server.is_node() {
                    frame_bytes.store(bytes, Ordering::Relaxed);
                }
                Ok([figures])
            })
            .await?;
            quiet(rig).await;
            rig.is("the bare broadcast");
            let control = native(from, size, in_flight, frame_bytes.into_inner(), time).await;
            let (name, to_reach) = match (from, in_flight) {
                (From::Many, 4) => ("fan-out", "≥ Bun, ≥ 70 % of bare; cpu ≤ 1.2 µs"),
                (From::Many, _) => ("fan-out", "≥ Bun, ≥ 70 % of bare; cpu ≤ 0.35 µs"),
                (From::One, _) => ("pipelined: one connection", "≥ Bun, ≥ 70 % of bare, 0 out of order"),
            };
            rows.push(Row {
                name: format!("{name}, room of {size}, {in_flight} in flight"),
                figures: turns.node,
                control_name: "bare hyper + fastwebsockets broadcast".into(),
                control,
                peers: Some(turns.peers),
                by: By::PerSecond,
                to_reach,
            });
        }
    }
    Ok(rows)
}

/// The senders are among the receivers, so there is no notification for anybody in the room.
async fn stored(
    server: Server<'_>,
    from: From,
    size: usize,
    in_flight: usize,
    time: Duration,
) -> Result<(Figures, usize), Wrong> {
    let users: Vec<_> = (0..size).map(|n| format!("fan-{n}")).collect();
    let room = server.room(&users).await;
    let (sockets, heads): (Vec<_>, Vec<_>) = server.all_subscribed(&users, &room).await.into_iter().unzip();
    let frame = |n| rig::message(n, &room, "a message of about the length that people write to each other");
    let run = Run::new(size, from, in_flight, true);
    let ready = async {
        // The node pushes the presence of everybody who signed in to everybody else of the room.
        quiet(server.rig).await;
        server.is(format!("a room of {size} for {time:?}"));
        server.meter()
    };
    let (figures, received) = run.clone().measure(sockets, ready, frame, time, server.consumed()).await;
    let mut books = Books::default();
    for ((user, head), Received { pushed, acknowledged, .. }) in users.iter().zip(heads).zip(received) {
        // A peer promises no order, so only its store is compared.
        if server.is_node() {
            books.received(&room, user, head, pushed);
        }
        books.acknowledged(&room, acknowledged);
    }
    server.check(&books, |_| users[0].clone()).await?;
    Ok((figures, run.frame_bytes.load(Ordering::Relaxed)))
}

pub(crate) async fn native(
    from: From,
    size: usize,
    in_flight: usize,
    frame_bytes: usize,
    time: Duration,
) -> Figures {
    let native = native::start().await;
    let mut sockets = Vec::new();
    for _ in 0..size {
        let opened = Socket::open(native.address, &Handshake::bare()).await;
        sockets.push(opened.unwrap_or_else(|why| panic!("the control: {why}")).0);
    }
    let head = r#"{"type":"message.new","payload":""#;
    let text = format!("{head}{}\"}}", "x".repeat(frame_bytes.saturating_sub(head.len() + 2)));
    let ready = async { Meter::start(native.pid(), None) };
    Run::new(size, from, in_flight, false).measure(sockets, ready, |_| text.clone(), time, async {}).await.0
}

struct Run {
    size: u32,
    in_flight: usize,
    /// The first of the connections, which send in turn.
    senders: usize,
    /// The number of clients with the n-th message: all see the same order, so the n-th of one is the n-th of
    /// all.
    arrived: Vec<AtomicU32>,
    complete: AtomicUsize,
    deliveries: AtomicU64,
    places: Semaphore,
    frame_bytes: AtomicUsize,
    /// The frames contain the number of their message.
    compares: bool,
}

/// The messages of one connection.
#[derive(Default)]
struct Received {
    pushed: Vec<SeenMessage>,
    acknowledged: Vec<SeenMessage>,
    refused: usize,
}

impl Run {
    fn new(size: usize, from: From, in_flight: usize, compares: bool) -> Arc<Self> {
        Arc::new(Self {
            size: size as u32,
            in_flight,
            senders: if from == From::One { 1 } else { in_flight },
            arrived: (0..MESSAGES_MAX).map(|_| AtomicU32::new(0)).collect(),
            complete: AtomicUsize::new(0),
            deliveries: AtomicU64::new(0),
            places: Semaphore::new(in_flight),
            frame_bytes: AtomicUsize::new(0),
            compares,
        })
    }

    /// The clients read while the server gets ready, because a client that does not read is closed. They stay
    /// connected until the messages are consumed.
    async fn measure(
        self: Arc<Self>,
        sockets: Vec<Socket>,
        ready: impl Future<Output = Meter>,
        frame: impl Fn(u64) -> String,
        time: Duration,
        consumed: impl Future<Output = ()>,
    ) -> (Figures, Vec<Received>) {
        let (mut writers, mut readers) = (Vec::new(), Vec::new());
        for socket in sockets {
            let (reader, writer) = socket.into_split();
            let (end, ending) = oneshot::channel();
            readers.push((tokio::spawn(self.clone().receive(reader, ending)), end));
            writers.push(writer);
        }
        let meter = ready.await;
        if self.compares {
            // A client that is silent for 90 s is closed, and making a large room takes its time.
            let ping = frames::encode(frames::TEXT, br#"{"type":"ping"}"#);
            for writer in &mut writers {
                writer.write_all(&ping).await.expect("a frame is taken");
            }
        }
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < time && sent < MESSAGES_MAX {
            let place = tokio::time::timeout(PATIENCE, self.places.acquire()).await;
            let Ok(Ok(place)) = place else { break };
            place.forget();
            let writer: &mut OwnedWriteHalf = &mut writers[sent % self.senders];
            let bytes = frames::encode(frames::TEXT, frame(sent as u64).as_bytes());
            writer.write_all(&bytes).await.expect("a frame is taken");
            sent += 1;
        }
        let took = start.elapsed().as_secs_f64();
        let deliveries = self.deliveries.load(Ordering::Relaxed) as f64;
        let cpu = meter.read();
        // Messages in flight must arrive; otherwise they count as wrong.
        let all = tokio::time::timeout(PATIENCE, self.places.acquire_many(self.in_flight as u32)).await;
        let missing = if all.is_ok() { 0 } else { sent - self.complete.load(Ordering::Relaxed) };
        let mut wrong = missing as u64;
        let mut received = Vec::new();
        for (n, (reader, end)) in readers.into_iter().enumerate() {
            wrong += u64::from(reader.is_finished());
            // The n-th sender sent the n-th message, and the one of each later round.
            let _ = end.send(if n < self.senders { (sent + self.senders - 1 - n) / self.senders } else { 0 });
            received.push(reader.await.expect("a reader ends"));
        }
        consumed.await;
        drop(writers);
        wrong += received.iter().map(|received: &Received| received.refused as u64).sum::<u64>();
        let figures =
            Figures { per_second: Some(deliveries / took), ..Figures::default() }.with_cpu(cpu, deliveries);
        if !self.compares {
            return (Figures { wrong, ..figures }, received);
        }
        let out_of_order: u64 = received.iter().map(|received| out_of_order(&received.pushed)).sum();
        let share = 100.0 * out_of_order as f64 / deliveries;
        let figures = Figures { wrong: wrong + out_of_order, ..figures };
        (figures.with_further("% of deliveries out of order", share), received)
    }

    /// Runs until it has its number of answers.
    async fn receive(self: Arc<Self>, mut reader: Reader, mut ending: oneshot::Receiver<usize>) -> Received {
        let mut received = Received::default();
        let (mut number, mut owed) = (0, None);
        let mut deadline = pin!(tokio::time::sleep(LIFE_MAX));
        while owed.is_none_or(|owed| received.acknowledged.len() + received.refused < owed) {
            let frame = tokio::select! {
                frame = reader.next_frame() => frame,
                sent = &mut ending, if owed.is_none() => {
                    // The control sends no answers.
                    owed = Some(if self.compares { sent.unwrap_or_default() } else { 0 });
                    deadline.as_mut().reset(tokio::time::Instant::now() + PATIENCE);
                    continue;
                }
                () = &mut deadline => break,
            };
            let Ok(Some(frame)) = frame else {
                eprintln!("  a connection of the load ended: {frame:?}");
                break;
            };
            if frame.opcode == frames::CLOSE {
                eprintln!(
                    "  the server closed a connection of the load: {:?}",
                    frames::close_of(&frame.payload)
                );
                break;
            }
            if !rig::is(&frame.payload, b"message.new") {
                if rig::is(&frame.payload, b"message.sent") {
                    received.acknowledged.extend(SeenMessage::of(&frame.payload));
                } else if rig::is(&frame.payload, b"\"error\"") {
                    if received.refused == 0 {
                        eprintln!("  refused: {}", String::from_utf8_lossy(&frame.payload));
                    }
                    received.refused += 1;
                }
                continue;
            }
            if number == 0 {
                self.frame_bytes.store(frame.payload.len(), Ordering::Relaxed);
            }
            if self.compares {
                received.pushed.extend(SeenMessage::of(&frame.payload));
            }
            self.deliveries.fetch_add(1, Ordering::Relaxed);
            let Some(arrived) = self.arrived.get(number) else { break };
            if arrived.fetch_add(1, Ordering::Relaxed) + 1 == self.size {
                self.complete.fetch_add(1, Ordering::Relaxed);
                self.places.add_permits(1);
            }
            number += 1;
        }
        received
    }
}

/// The number of messages that came after a later one.
fn out_of_order(pushed: &[SeenMessage]) -> u64 {
    let (mut highest, mut count) = (0, 0);
    for seen in pushed {
        count += u64::from(seen.seq < highest);
        highest = highest.max(seen.seq);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_after_a_later_one_is_out_of_order() {
        let count = |seqs: &[u64]| {
            let pushed: Vec<_> = seqs.iter().map(|seq| SeenMessage::new(*seq, "id")).collect();
            out_of_order(&pushed)
        };
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[3, 4, 5]), 0);
        assert_eq!(count(&[2, 1, 3]), 1);
        assert_eq!(count(&[4, 1, 2, 3, 5]), 3);
    }
}
