//! Notifications: messages at a fixed rate to people who are signed in and look at another conversation.
//! Measures the time from the send to the push of the stored notification, and the list from the cache. The
//! control of the list is a read of the same key in Redis.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use switchboard_tests::checker::{Books, SeenMessage, Wrong};
use switchboard_tests::frames;
use switchboard_tests::token::Token;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::delivery;
use crate::figures::{By, Figures, Latencies, Row};
use crate::rig::{self, Rig};

const PEOPLE: usize = 50;
const SENDER: &str = "notifier";

pub(crate) async fn rows(rig: &Rig, per_second: u32, time: Duration) -> io::Result<Vec<Row>> {
    let measured = measured(rig, per_second, time).await?;
    rig.is("lists of notifications");
    let list = list(rig, 2000).await;
    Ok(vec![
        Row {
            name: format!("notification: send → row and push, {per_second}/s"),
            figures: measured,
            control_name: "raw Redis publish → last subscriber".into(),
            control: delivery::redis(per_second, delivery::ROOM, time).await,
            peers: None,
            by: By::P99,
            to_reach: "p99 < 50 ms",
        },
        Row {
            name: "notification: list, cached".into(),
            figures: list,
            control_name: "the same key asked of Redis".into(),
            control: raw(rig, 2000).await,
            peers: None,
            by: By::P99,
            to_reach: "p99 < 5 ms",
        },
    ])
}

async fn measured(rig: &Rig, per_second: u32, time: Duration) -> Result<Figures, Wrong> {
    rig.is(format!("{PEOPLE} people sign in"));
    let sent: Arc<Mutex<Vec<Option<Instant>>>> = Arc::default();
    let latencies: Arc<Mutex<Latencies>> = Arc::default();
    let (mut rooms, mut tasks, mut halves) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..PEOPLE {
        let user = format!("told-{n}");
        rooms.push(rig.room(&[SENDER.to_owned(), user.clone()]).await);
        let (mut reader, half) = rig.node().signed_in(&user).await.into_split();
        halves.push(half);
        let (sent, latencies) = (sent.clone(), latencies.clone());
        tasks.push(tokio::spawn(async move {
            while let Ok(Some(frame)) = reader.next_frame().await {
                let Some(number) = number_of(&frame.payload) else { continue };
                let mut sent = sent.lock();
                // A repeated push counts once.
                if let Some(at) = sent.get_mut(number).and_then(Option::take) {
                    latencies.lock().add(at.elapsed());
                }
            }
        }));
    }
    let (mut answers, mut writer) = rig.node().signed_in(SENDER).await.into_split();
    let acknowledged: Arc<Mutex<Vec<SeenMessage>>> = Arc::default();
    tasks.push(tokio::spawn({
        let acknowledged = acknowledged.clone();
        async move {
            while let Ok(Some(frame)) = answers.next_frame().await {
                if rig::is(&frame.payload, b"message.sent") {
                    let seen = SeenMessage::of(&frame.payload);
                    acknowledged.lock().extend(seen);
                }
            }
        }
    }));
    rig.is(format!("{per_second} messages a second for {time:?}"));
    let meter = rig.meter();
    let count = delivery::at_rate(per_second, time, async |n| {
        let frame =
            rig::message(n, &rooms[n as usize % PEOPLE], &format!("{n} is the number of this message"));
        sent.lock().push(Some(Instant::now()));
        writer.write_all(&frames::encode(frames::TEXT, frame.as_bytes())).await.expect("a frame is taken");
    })
    .await;
    let arrived = || latencies.lock().count();
    let deadline = Instant::now() + Duration::from_secs(20);
    let answered = || acknowledged.lock().len();
    while (arrived() < count || answered() < count) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cpu = meter.read();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    // One connection's frames are answered in order, so the n-th answer is the n-th message's.
    let mut books = Books::default();
    for (n, seen) in acknowledged.lock().iter().enumerate() {
        books.acknowledged(&rooms[n % PEOPLE], [*seen]);
    }
    rig.check(&books, |_| SENDER.to_owned()).await?;
    let wrong = (count - arrived()) as u64;
    let spread = latencies.lock().clone().spread();
    Ok(Figures { spread, wrong, ..Figures::default() }.with_cpu(cpu, count as f64))
}

/// The number that a notification's body begins with.
fn number_of(frame: &[u8]) -> Option<usize> {
    if !rig::is(frame, b"notification.new") {
        return None;
    }
    rig::number_after(frame, b"\"body\":\"")
}

/// One client, one connection, one call after the other.
async fn list(rig: &Rig, calls: usize) -> Figures {
    let stream = TcpStream::connect(rig.host.address).await.expect("the host accepts");
    stream.set_nodelay(true).expect("a TCP stream");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    let driver = tokio::spawn(connection);
    let bearer = format!("Bearer {}", Token::of("told-0").sign());
    let (mut latencies, mut wrong, start) = (Latencies::default(), 0, Instant::now());
    for _ in 0..calls {
        let request = Request::get("/api/v1/notifications")
            .header("host", "load")
            .header("authorization", &bearer)
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let asked = Instant::now();
        sender.ready().await.expect("the connection stands");
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status();
        response.into_body().collect().await.expect("a body");
        latencies.add(asked.elapsed());
        wrong += u64::from(status != 200);
    }
    driver.abort();
    let per_second = Some(calls as f64 / start.elapsed().as_secs_f64());
    Figures { per_second, spread: latencies.spread(), wrong, ..Figures::default() }
}

async fn raw(rig: &Rig, calls: usize) -> Figures {
    let client = redis::Client::open(rig.host.redis.url_at(None)).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let key = rig.host.redis_key("notifications:told-0").await;
    let (mut latencies, mut wrong, start) = (Latencies::default(), 0, Instant::now());
    for _ in 0..calls {
        let asked = Instant::now();
        let mut command = redis::cmd("HMGET");
        command.arg(&key).arg("newest").arg("version");
        let answer: Result<Vec<Option<String>>, _> = command.query_async(&mut connection).await;
        latencies.add(asked.elapsed());
        wrong += u64::from(!matches!(answer.as_deref(), Ok([Some(_), Some(_)])));
    }
    let per_second = Some(calls as f64 / start.elapsed().as_secs_f64());
    Figures { per_second, spread: latencies.spread(), wrong, ..Figures::default() }
}
