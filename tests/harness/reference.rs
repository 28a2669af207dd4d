//! The reference client: the rules of `docs/client.md`, followed exactly. It reconnects with full jitter to
//! any live node, resumes from its positions, shows everything once and in order, and repeats unacknowledged
//! messages.
//!
//! `crowd` records the frames of a host; this client shows messages as a person would see them.

pub mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::checker::SeenMessage;
use crate::socket::{Handshake, Incoming, Socket};
use crate::token::Token;
use stream::{Need, Stream};

/// Bound of the first random wait; it doubles for each further one, up to the maximum.
const WAIT_MIN: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Maximum wait for an answer on a connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The state that the client has seen so far.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub streams: BTreeMap<String, Stream>,
    /// The messages that were acknowledged, with their conversation.
    pub acknowledged: Vec<(String, SeenMessage)>,
    /// The reason for the end of each connection.
    pub ends: Vec<String>,
    /// The host forbade a reconnect.
    pub stopped: bool,
}

/// A client that runs until it is dropped.
pub struct Reference {
    view: Arc<Mutex<View>>,
    say: mpsc::UnboundedSender<(String, String)>,
    task: JoinHandle<()>,
}

impl Reference {
    /// Tries these hosts in turn, and follows these conversations.
    pub fn start(hosts: Vec<SocketAddr>, user: &str, conversations: &[String]) -> Self {
        let view = Arc::new(Mutex::new(View::default()));
        let (say, lines) = mpsc::unbounded_channel();
        let life = Life {
            hosts,
            user: user.to_owned(),
            conversations: conversations.to_vec(),
            view: view.clone(),
            lines,
            unsent: VecDeque::new(),
            sent: 0,
            retry_after: None,
        };
        Self { view, say, task: tokio::spawn(life.live()) }
    }

    /// Sends as soon as possible, and again until the acknowledgement.
    pub fn say(&self, conversation: &str, text: &str) {
        // The task runs as long as this client.
        let _ = self.say.send((conversation.to_owned(), text.to_owned()));
    }

    pub fn view(&self) -> View {
        self.lock().clone()
    }

    /// The position in a conversation; 0 before the subscription.
    pub fn seq(&self, conversation: &str) -> u64 {
        self.lock().streams.get(conversation).map_or(0, |stream| stream.seq)
    }

    pub fn acknowledged(&self) -> usize {
        self.lock().acknowledged.len()
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The consequence of a connection's end for the next one.
enum End {
    /// Try the next host, after a wait.
    Again(String),
    /// Reconnect after the host's wait.
    After(String, Duration),
    /// Never again.
    Stop(String),
}

struct Message {
    key: String,
    conversation: String,
    text: String,
}

struct Life {
    hosts: Vec<SocketAddr>,
    user: String,
    conversations: Vec<String>,
    view: Arc<Mutex<View>>,
    lines: mpsc::UnboundedReceiver<(String, String)>,
    /// In order; the first is being sent.
    unsent: VecDeque<Message>,
    sent: u64,
    /// The last wait that the host asked for.
    retry_after: Option<Duration>,
}

impl Life {
    async fn live(mut self) {
        let mut attempt = 0;
        loop {
            let host = self.hosts[0];
            let (why, wait) = match self.session(host, &mut attempt).await {
                End::Stop(why) => {
                    return self.note(|view| {
                        view.ends.push(why);
                        view.stopped = true;
                    });
                }
                End::After(why, wait) => (why, wait),
                End::Again(why) => (why, jitter(attempt)),
            };
            self.note(|view| {
                view.ends.push(why);
                view.streams.values_mut().for_each(Stream::cut);
            });
            attempt += 1;
            // The node may have died, so try another.
            self.hosts.rotate_left(1);
            sleep(wait).await;
        }
    }

    async fn session(&mut self, host: SocketAddr, attempt: &mut u32) -> End {
        // A fresh token for each connection, so that 4001 needs no case of its own.
        let handshake = Handshake::bearer(&Token::of(&self.user).sign());
        let mut socket = match Socket::open(host, &handshake).await {
            Ok((socket, _)) => socket,
            Err(why) => return End::Again(format!("handshake: {why}")),
        };
        let positions: BTreeMap<String, Value> =
            self.view.lock().streams.iter().map(|(id, stream)| (id.clone(), stream.position())).collect();
        let subscribe = json!({"type": "subscribe", "id": "subscribe", "payload": {
            "conversation_ids": self.conversations, "positions": positions }});
        if let Err(error) = socket.write_json(&subscribe).await {
            return End::Again(format!("subscribing: {error}"));
        }
        let mut heartbeat = tokio::time::interval(Duration::from_secs(25));
        let (mut subscribed, mut speaking): (bool, Option<Instant>) = (false, None);
        loop {
            let overdue = speaking.map(|since| since + ANSWER_WITHIN);
            let mut out = Vec::new();
            tokio::select! {
                incoming = socket.next() => match incoming {
                    Incoming::Json(frame) => match frame["id"].as_str() {
                        Some("subscribe") => {
                            if frame["type"] != "subscribed" {
                                return End::Again(format!("subscribe: {frame}"));
                            }
                            (subscribed, *attempt) = (true, 0);
                            self.subscribed(&frame["payload"]);
                        }
                        Some(id) if id.starts_with("history:") => out.extend(self.paged(id, &frame)),
                        Some(_) => {
                            speaking = None;
                            self.answered(&frame);
                        }
                        None => out.extend(self.pushed(&frame)),
                    },
                    Incoming::Closed(code, reason) => return self.closed(code, &reason),
                    Incoming::Lost(why) => return End::Again(format!("lost: {why}")),
                },
                Some((conversation, text)) = self.lines.recv() => {
                    self.sent += 1;
                    let key = format!("{}-{}", self.user, self.sent);
                    self.unsent.push_back(Message { key, conversation, text });
                }
                _ = heartbeat.tick() => out.push(json!({"type": "ping"})),
                () = at(overdue) => return End::Again("no answer to a message".to_owned()),
            }
            if subscribed
                && speaking.is_none()
                && let Some(message) = self.unsent.front()
            {
                speaking = Some(Instant::now());
                out.push(json!({"type": "message.send", "id": message.key, "payload": {
                    "conversation_id": message.conversation, "content": message.text,
                    "client_msg_id": message.key }}));
            }
            for frame in out {
                if let Err(error) = socket.write_json(&frame).await {
                    return End::Again(format!("writing: {error}"));
                }
            }
        }
    }

    fn subscribed(&self, payload: &Value) {
        let epoch = payload["epoch"].as_str();
        self.note(|view| {
            for id in &self.conversations {
                if let Some(stream) = view.streams.get_mut(id) {
                    reset(stream, &payload["reset"][id]);
                }
                let (head, change) = (payload["heads"][id].as_u64(), payload["changes"][id].as_u64());
                if let (Some(head), Some(change)) = (head, change) {
                    let stream = view.streams.entry(id.clone()).or_insert_with(|| Stream::at(head, change));
                    stream.epoch = epoch.map(str::to_owned);
                }
            }
        });
    }

    /// The frames to write because of a push.
    fn pushed(&mut self, frame: &Value) -> Option<Value> {
        let payload = &frame["payload"];
        let of = payload["conversation_id"].as_str().unwrap_or_default();
        match frame["type"].as_str()? {
            "message.new" => self.with(of, |stream| stream.message(&payload["message"])),
            "message.edited" | "message.deleted" => self.with(of, |stream| {
                stream.changed(payload["change"].as_u64().unwrap_or(0));
                Need::Nothing
            }),
            "resync" => {
                let epoch = payload["epoch"].as_str();
                let ids = payload["conversation_ids"].as_array()?.iter().filter_map(Value::as_str);
                // One after the other, because each page determines the next one.
                ids.filter_map(|id| {
                    let point = &payload["reset"][id];
                    self.with(id, |stream| match point {
                        Value::Null => stream.resync(),
                        // It may come twice. What is stored instead follows by itself.
                        _ if stream.epoch.as_deref() == epoch => Need::Nothing,
                        point => {
                            reset(stream, point);
                            stream.epoch = epoch.map(str::to_owned);
                            Need::Nothing
                        }
                    })
                })
                .next()
            }
            "draining" => {
                self.retry_after = payload["reconnect_after_ms"].as_u64().map(Duration::from_millis);
                None
            }
            _ => None,
        }
    }

    fn paged(&self, id: &str, frame: &Value) -> Option<Value> {
        let (era, conversation) = id.strip_prefix("history:")?.split_once(':')?;
        let none = Vec::new();
        let messages = frame["payload"]["messages"].as_array().unwrap_or(&none);
        let has_more = frame["payload"]["has_more"] == true;
        self.with(conversation, |stream| match stream.era.to_string() == era {
            true => stream.page(messages, has_more),
            false => Need::Nothing,
        })
    }

    fn with(&self, conversation: &str, tell: impl FnOnce(&mut Stream) -> Need) -> Option<Value> {
        // Offline delivery may name conversations that the client does not follow yet; their history has the
        // messages.
        let (need, era) =
            self.note(|view| view.streams.get_mut(conversation).map(|stream| (tell(stream), stream.era)))?;
        match need {
            Need::Nothing => None,
            Need::History(after) => Some(json!({
                "type": "history", "id": format!("history:{era}:{conversation}"),
                "payload": {"conversation_id": conversation, "after_seq": after, "limit": 100 }})),
        }
    }

    fn answered(&mut self, frame: &Value) {
        let is_ours = self.unsent.front().is_some_and(|message| frame["id"] == *message.key);
        if !is_ours {
            return;
        }
        let payload = &frame["payload"];
        let (seq, id) = (payload["message"]["seq"].as_u64(), payload["message"]["id"].as_str());
        if let (true, Some(seq), Some(id)) = (frame["type"] == "message.sent", seq, id) {
            if let Some(message) = self.unsent.pop_front() {
                let lines = SeenMessage::new(seq, id);
                self.note(|view| view.acknowledged.push((message.conversation, lines)));
            }
        } else if payload["retryable"] != true {
            // It can never succeed; a person must be informed.
            self.unsent.pop_front();
        }
    }

    fn closed(&mut self, code: u16, reason: &str) -> End {
        let why = format!("closed {code} {reason}");
        match (code, self.retry_after.take()) {
            (4003 | 4009, _) => End::Stop(why),
            (1012 | 4029, Some(wait)) => End::After(why, wait),
            (4029, None) => End::After(why, Duration::from_secs(1)),
            _ => End::Again(why),
        }
    }

    fn note<T>(&self, write: impl FnOnce(&mut View) -> T) -> T {
        write(&mut self.view.lock())
    }
}

/// Resets to the point that a host names, if it names one.
fn reset(stream: &mut Stream, point: &Value) {
    if let (Some(seq), Some(change)) = (point["seq"].as_u64(), point["change"].as_u64()) {
        stream.reset(seq, change);
    }
}

/// Full jitter: a random time between zero and the bound, so that clients that were cut off together do not
/// reconnect together.
fn jitter(attempt: u32) -> Duration {
    let most = WAIT_MIN.saturating_mul(1 << attempt.min(16)).min(WAIT_MAX);
    // The end of a random UUID is random enough here.
    most.mul_f64(f64::from(uuid::Uuid::now_v7().as_u128() as u32) / f64::from(u32::MAX))
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_random_below_a_bound_that_doubles_up_to_a_maximum() {
        for (attempt, most) in [(0, WAIT_MIN), (2, WAIT_MIN * 4), (40, WAIT_MAX)] {
            let waits: Vec<_> = (0..200).map(|_| jitter(attempt)).collect();
            assert!(waits.iter().all(|wait| *wait <= most));
            assert!(waits.iter().any(|wait| *wait < most / 4) && waits.iter().any(|wait| *wait > most / 2));
        }
    }
}
