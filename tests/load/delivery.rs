//! Delivery: one sender at a fixed rate, a room of 100, every message stored. How long until it is acknowledged, and until
//! the last one has it. The control is publish and subscribe on raw Redis: nothing stored, nothing checked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use switchboard_tests::frames;
use switchboard_tests::services::Redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fanout::FRAME_BYTES;
use crate::figures::{By, Figures, Latencies, Row};
use crate::process;
use crate::rig::{self, Rig};

const ROOM: usize = 100;

pub async fn rows(rig: &Rig, per_second: u32, time: Duration) -> Vec<Row> {
    let (acknowledged, delivered) = ours(rig, per_second, time).await;
    let control = redis(per_second, time).await;
    let row = |name: &str, figures: Figures, to_reach| Row {
        name: format!("{name}, room of {ROOM}, {per_second}/s"),
        figures,
        control_name: "raw Redis publish → last subscriber".into(),
        control: control.clone(),
        by: By::P50,
        to_reach,
    };
    vec![
        row("send → commit and acknowledgement", acknowledged, "p50 ≤ 1 ms"),
        row("send → last receiver", delivered, "p50 ≤ 2, p99 ≤ 10 ms"),
    ]
}

/// When each message was sent, and how many have it. Everyone gets them in the order they were sent.
struct Clock {
    messages: Mutex<Vec<(Instant, usize)>>,
    latencies: Mutex<Latencies>,
}

impl Clock {
    fn new() -> Arc<Self> {
        Arc::new(Self { messages: Mutex::default(), latencies: Mutex::default() })
    }

    fn sends(&self) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), 0));
    }

    /// Somebody has the n-th; the last of so many stops its clock.
    fn arrives(&self, number: usize, of: usize) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sent, arrived)) = messages.get_mut(number) {
            *arrived += 1;
            if *arrived == of {
                let took = sent.elapsed();
                self.latencies.lock().unwrap_or_else(PoisonError::into_inner).add(took);
            }
        }
    }

    fn complete(&self) -> usize {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).count()
    }

    async fn all_arrived(&self, sent: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.complete() < sent && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn figures(&self, sent: usize, wrong: u64) -> Figures {
        let latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let missing = sent.saturating_sub(latencies.count()) as u64;
        Figures { spread: latencies.spread(), wrong: wrong + missing, ..Figures::default() }
    }
}

async fn ours(rig: &Rig, per_second: u32, time: Duration) -> (Figures, Figures) {
    let users: Vec<_> = (0..ROOM).map(|n| format!("near-{n}")).collect();
    let room = rig.room(&users).await;
    let (acknowledged, delivered) = (Clock::new(), Clock::new());
    let disorder = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut tasks = Vec::new();
    // Kept, all of them: a half that is dropped says goodbye.
    let mut writers = Vec::new();
    for user in &users {
        let (mut reader, half) = rig.subscribed(user, &room).await.into_split();
        let (acknowledged, delivered, disorder) = (acknowledged.clone(), delivered.clone(), disorder.clone());
        writers.push(half);
        tasks.push(tokio::spawn(async move {
            let (mut pushed, mut replied, mut last) = (0, 0, 0);
            while let Ok(Some(frame)) = reader.next_frame().await {
                if rig::is(&frame.payload, b"message.new") {
                    delivered.arrives(pushed, ROOM);
                    pushed += 1;
                    let seq = seq_of(&frame.payload);
                    if seq <= last {
                        disorder.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    last = seq;
                } else if rig::is(&frame.payload, b"message.sent") {
                    acknowledged.arrives(replied, 1);
                    replied += 1;
                }
            }
        }));
    }
    let writer = writers.first_mut().expect("a room has members");
    let cpu = process::cpu(rig.host.pid());
    let sent = at_rate(per_second, time, async |n| {
        let frame = rig::message(n, &room, "a message of about the length that people write to each other");
        acknowledged.sends();
        delivered.sends();
        writer.write_all(&frames::encode(frames::TEXT, frame.as_bytes())).await.expect("a frame is taken");
    })
    .await;
    delivered.all_arrived(sent).await;
    let cpu = process::cpu(rig.host.pid()) - cpu;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let disorder = disorder.load(std::sync::atomic::Ordering::Relaxed);
    let acknowledged = acknowledged.figures(sent, 0);
    let delivered = Figures {
        server_cpu_us: Some(cpu.as_micros() as f64 / (sent * ROOM) as f64),
        ..delivered.figures(sent, disorder)
    };
    (acknowledged, delivered)
}

/// The first number behind `"seq":`.
fn seq_of(frame: &[u8]) -> u64 {
    const NAME: &[u8] = b"\"seq\":";
    let Some(place) = frame.windows(NAME.len()).position(|window| window == NAME) else { return 0 };
    let digits = frame[place + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// Says so many a second, whatever comes back. Returns how many.
pub async fn at_rate(per_second: u32, time: Duration, mut say: impl AsyncFnMut(u64)) -> usize {
    let mut beat = tokio::time::interval(Duration::from_secs(1) / per_second);
    let messages = u64::from(per_second) * time.as_secs();
    for n in 0..messages {
        beat.tick().await;
        say(n).await;
    }
    messages as usize
}

pub async fn redis(per_second: u32, time: Duration) -> Figures {
    let redis = Redis::start().await;
    let payload = "x".repeat(FRAME_BYTES);
    // What Redis sends to a subscriber for every publication.
    let pushed = format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${FRAME_BYTES}\r\n{payload}\r\n").len();
    let clock = Clock::new();
    let mut tasks = Vec::new();
    for _ in 0..ROOM {
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
                    clock.arrives(number, ROOM);
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
