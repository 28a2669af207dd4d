//! Joins: many people, all connected, join one public channel. Measures the rate, and counts connections that
//! the node closed, joins without an answer, and the frames that the joins cost everybody. The control is the
//! target.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use switchboard_tests::frames;
use switchboard_tests::socket::{Handshake, Reader, Socket};
use switchboard_tests::token::Token;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::oneshot;

use crate::figures::{By, Figures, Latencies, Row};
use crate::idle;
use crate::rig::{self, Rig};
use crate::server::quiet;

/// Joins under way at the same time.
const AT_ONCE: usize = 64;
/// A join without an answer by then counts as unanswered.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Interval between two pings of a client, as `auth.success` asks.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Joins that did not begin by then count as unanswered too.
const JOINS_MAX: Duration = Duration::from_secs(120);

pub(crate) async fn rows(rig: &Rig, people: usize) -> io::Result<Vec<Row>> {
    let channel = json!({"type": "channel", "name": "many join", "visibility": "public", "members": []});
    let made = rig.host.rest("joins-owner").post("/api/v1/conversations", channel).await.expect(201);
    let channel = made["conversation"]["id"].as_str().expect("an id").to_owned();
    rig.is(format!("{people} people sign in"));
    let handshake = |n| Handshake::bearer(&Token::of(&format!("joins-{n}")).sign());
    let (sockets, _) = idle::open_all(rig.host.address, (0..people).map(handshake).collect(), true).await;
    let missing = people - sockets.len();
    quiet(rig).await;
    rig.is(format!("{people} people join one channel"));
    let (crowd, mut clients) = (Arc::new(Crowd::default()), Vec::new());
    for socket in sockets {
        clients.push(Client::start(crowd.clone(), socket));
    }
    let pings = tokio::spawn(ping(clients.clone()));
    let (meter, start) = (rig.meter(), Instant::now());
    let latencies = join_all(&clients, &channel, start).await;
    let (took, cpu) = (start.elapsed().as_secs_f64(), meter.read());
    // The node may still drop connections, because the joins left work to do.
    quiet(rig).await;
    pings.abort();
    let joined = latencies.count();
    let dropped = crowd.dropped.load(Ordering::Relaxed);
    let refusals = crowd.refusals.lock().clone();
    let refused: u64 = refusals.values().sum();
    let unanswered = clients.len().saturating_sub(joined + refused as usize);
    let pushes = crowd.pushes.load(Ordering::Relaxed) as f64;
    drop(clients);
    let figures = Figures {
        per_second: Some(joined as f64 / took),
        spread: latencies.spread(),
        wrong: dropped + refused + (unanswered + missing) as u64,
        ..Figures::default()
    };
    let figures = figures
        .with_cpu(cpu, joined as f64)
        .with_further("dropped", dropped as f64)
        .with_further("unanswered", unanswered as f64)
        .with_further("frames about joins, a join", pushes / joined as f64);
    let figures = refusals.iter().fold(figures, |figures, (code, count)| {
        figures.with_further(&format!("refused as {code}"), *count as f64)
    });
    Ok(vec![Row {
        name: format!("joins: {people} people, one public channel"),
        figures,
        control_name: "the target".into(),
        control: Figures { per_second: Some(500.0), ..Figures::default() },
        peers: None,
        by: By::PerSecond,
        to_reach: "≥ 500/s, 0 dropped, all answered",
    }])
}

/// The events of all clients.
#[derive(Default)]
struct Crowd {
    dropped: AtomicU64,
    /// By their code.
    refusals: Mutex<BTreeMap<String, u64>>,
    /// `member.joined` and other pushes about members.
    pushes: AtomicU64,
}

/// One person. A task reads its connection all the time, as a real client does.
struct Client {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    answer: Mutex<Option<oneshot::Receiver<bool>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    fn start(crowd: Arc<Crowd>, socket: Socket) -> Arc<Self> {
        let (reader, writer) = socket.into_split();
        let (answered, answer) = oneshot::channel();
        let task = tokio::spawn(crowd.read(reader, answered));
        Arc::new(Self { writer: writer.into(), answer: Mutex::new(Some(answer)), task })
    }

    /// The time to the answer. `None` if there was none, or a refusal.
    async fn join(&self, channel: &str) -> Option<Duration> {
        let payload = json!({"conversation_ids": [channel], "join": true});
        let frame = json!({"type": "subscribe", "id": "join", "payload": payload}).to_string();
        let (bytes, answer) = (frames::encode(frames::TEXT, frame.as_bytes()), self.answer.lock().take()?);
        let begin = Instant::now();
        self.writer.lock().await.write_all(&bytes).await.ok()?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await.ok()?.ok()?;
        answer.then(|| begin.elapsed())
    }
}

/// Keeps all connections alive while they wait for their turn.
async fn ping(clients: Vec<Arc<Client>>) {
    let bytes = frames::encode(frames::TEXT, br#"{"type":"ping"}"#);
    loop {
        tokio::time::sleep(PING_EVERY).await;
        for client in &clients {
            // The reader notices a closed connection.
            let _ = client.writer.lock().await.write_all(&bytes).await;
        }
    }
}

async fn join_all(clients: &[Arc<Client>], channel: &str, start: Instant) -> Latencies {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (clients, channel, next) = (clients.to_vec(), channel.to_owned(), next.clone());
            tokio::spawn(async move {
                let mut latencies = Latencies::default();
                while start.elapsed() < JOINS_MAX {
                    let Some(client) = clients.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    if let Some(took) = client.join(&channel).await {
                        latencies.add(took);
                    }
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Latencies::default();
    for task in tasks {
        latencies.merge(task.await.expect("the joins end"));
    }
    latencies
}

impl Crowd {
    async fn read(self: Arc<Self>, mut reader: Reader, answered: oneshot::Sender<bool>) {
        let mut answered = Some(answered);
        while let Ok(Some(frame)) = reader.next_frame().await {
            if frame.opcode == frames::CLOSE {
                break;
            }
            if rig::is(&frame.payload, b"\"subscribed\"") || rig::is(&frame.payload, b"\"error\"") {
                let refusal = refusal(&frame.payload);
                if let Some(answered) = answered.take() {
                    // The join may have given up waiting.
                    let _ = answered.send(refusal.is_none());
                }
                if let Some(code) = refusal {
                    *self.refusals.lock().entry(code).or_default() += 1;
                }
            } else if rig::is(&frame.payload, b"\"member.") || rig::is(&frame.payload, b"\"conversation.") {
                self.pushes.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The code of an answer that does not say that the channel is subscribed.
fn refusal(frame: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(frame).unwrap_or_default();
    let payload = &answer["payload"];
    if payload["conversation_ids"].as_array().is_some_and(|joined| !joined.is_empty()) {
        return None;
    }
    let code = payload["code"].as_str().or_else(|| payload["refused"][0]["code"].as_str());
    Some(code.unwrap_or("nothing").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_its_code() {
        let joined =
            br#"{"type":"subscribed","id":"join","payload":{"conversation_ids":["c"],"refused":[]}}"#;
        assert_eq!(refusal(joined), None);
        let refused =
            br#"{"type":"subscribed","payload":{"conversation_ids":[],"refused":[{"id":"c","code":"not_found"}]}}"#;
        assert_eq!(refusal(refused).as_deref(), Some("not_found"));
        let error = br#"{"type":"error","id":"join","payload":{"code":"unavailable"}}"#;
        assert_eq!(refusal(error).as_deref(), Some("unavailable"));
    }
}
