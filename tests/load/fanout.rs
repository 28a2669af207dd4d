//! Fan-out: a room, so many messages in flight, a new one as soon as an old one has reached everybody. The control is a
//! bare broadcast loop with frames of the same length.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use switchboard_tests::frames;
use switchboard_tests::socket::{Handshake, Reader, Socket};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Semaphore;

use crate::figures::{By, Figures, Row};
use crate::native::Native;
use crate::process;
use crate::rig::{self, Rig};

/// About what a pushed message has.
pub const FRAME_BYTES: usize = 500;
/// Beyond so many messages a run ends early; its figures hold all the same.
const MESSAGES_MAX: usize = 4_000_000;

pub async fn rows(rig: &Rig, sizes: &[usize], time: Duration) -> Vec<Row> {
    let mut rows = Vec::new();
    for &size in sizes {
        for (in_flight, to_reach) in [(4, "70 %, 1.2 µs"), (64, "70 %, 0.35 µs")] {
            let (figures, frame_bytes) = ours(rig, size, in_flight, time).await;
            let control = native(size, in_flight, frame_bytes, time).await;
            rows.push(Row {
                name: format!("fan-out: room of {size}, {in_flight} in flight"),
                figures,
                control_name: "bare hyper + fastwebsockets broadcast".into(),
                control,
                by: By::PerSecond,
                to_reach,
            });
        }
    }
    rows
}

/// The senders are among the receivers, so nobody in the room has to be notified.
async fn ours(rig: &Rig, size: usize, in_flight: usize, time: Duration) -> (Figures, usize) {
    let users: Vec<_> = (0..size).map(|n| format!("fan-{n}")).collect();
    let room = rig.room(&users).await;
    let mut sockets = Vec::new();
    for user in &users {
        sockets.push(rig.subscribed(user, &room).await);
    }
    let frame = |n| rig::message(n, &room, "a message of about the length that people write to each other");
    let run = Run::new(size, in_flight);
    let figures = run.clone().measure(sockets, rig.host.pid(), frame, time).await;
    (figures, run.frame_bytes.load(Ordering::Relaxed))
}

pub async fn native(size: usize, in_flight: usize, frame_bytes: usize, time: Duration) -> Figures {
    let native = Native::start();
    let mut sockets = Vec::new();
    for _ in 0..size {
        let opened = Socket::open(native.address, &Handshake::bare()).await;
        sockets.push(opened.unwrap_or_else(|why| panic!("the control: {why}")).0);
    }
    let head = r#"{"type":"message.new","payload":""#;
    let text = format!("{head}{}\"}}", "x".repeat(frame_bytes.saturating_sub(head.len() + 2)));
    Run::new(size, in_flight).measure(sockets, native.pid(), |_| text.clone(), time).await
}

struct Run {
    size: u32,
    in_flight: usize,
    /// How many have the n-th message: everyone sees the same order, so the n-th of one is the n-th of all.
    arrived: Vec<AtomicU32>,
    complete: AtomicUsize,
    deliveries: AtomicU64,
    places: Semaphore,
    frame_bytes: AtomicUsize,
}

impl Run {
    fn new(size: usize, in_flight: usize) -> Arc<Self> {
        Arc::new(Self {
            size: size as u32,
            in_flight,
            arrived: (0..MESSAGES_MAX).map(|_| AtomicU32::new(0)).collect(),
            complete: AtomicUsize::new(0),
            deliveries: AtomicU64::new(0),
            places: Semaphore::new(in_flight),
            frame_bytes: AtomicUsize::new(0),
        })
    }

    async fn measure(
        self: Arc<Self>,
        sockets: Vec<Socket>,
        pid: u32,
        frame: impl Fn(u64) -> String,
        time: Duration,
    ) -> Figures {
        let (mut writers, mut readers) = (Vec::new(), Vec::new());
        for socket in sockets {
            let (reader, writer) = socket.into_split();
            readers.push(tokio::spawn(self.clone().receive(reader)));
            writers.push(writer);
        }
        let (cpu, start) = (process::cpu(pid), Instant::now());
        // One connection's frames are handled one after another, so each message in flight has its own.
        let mut sent = 0;
        while start.elapsed() < time && sent < MESSAGES_MAX {
            let place = tokio::time::timeout(Duration::from_secs(20), self.places.acquire()).await;
            let Ok(Ok(place)) = place else { break };
            place.forget();
            let writer: &mut OwnedWriteHalf = &mut writers[sent % self.in_flight];
            let bytes = frames::encode(frames::TEXT, frame(sent as u64).as_bytes());
            writer.write_all(&bytes).await.expect("a frame is taken");
            sent += 1;
        }
        let took = start.elapsed().as_secs_f64();
        let deliveries = self.deliveries.load(Ordering::Relaxed) as f64;
        let cpu = process::cpu(pid) - cpu;
        // What is still in flight arrives, or is counted as wrong.
        let all =
            tokio::time::timeout(Duration::from_secs(20), self.places.acquire_many(self.in_flight as u32))
                .await;
        let missing = if all.is_ok() { 0 } else { sent - self.complete.load(Ordering::Relaxed) };
        let mut wrong = missing as u64;
        for reader in readers {
            if reader.is_finished() {
                wrong += 1;
            }
            reader.abort();
        }
        Figures {
            per_second: Some(deliveries / took),
            server_cpu_us: Some(cpu.as_micros() as f64 / deliveries),
            wrong,
            ..Figures::default()
        }
    }

    async fn receive(self: Arc<Self>, mut reader: Reader) {
        let mut number = 0;
        while let Ok(Some(frame)) = reader.next_frame().await {
            if !rig::is(&frame.payload, b"message.new") {
                continue;
            }
            if number == 0 {
                self.frame_bytes.store(frame.payload.len(), Ordering::Relaxed);
            }
            self.deliveries.fetch_add(1, Ordering::Relaxed);
            let Some(arrived) = self.arrived.get(number) else { return };
            if arrived.fetch_add(1, Ordering::Relaxed) + 1 == self.size {
                self.complete.fetch_add(1, Ordering::Relaxed);
                self.places.add_permits(1);
            }
            number += 1;
        }
    }
}
