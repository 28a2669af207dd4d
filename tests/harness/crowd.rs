//! Clients for loads and losses. Each follows conversations and may write in one, without waiting for each
//! answer. It reconnects when cut off, resumes from its positions, retries unacknowledged messages under the
//! same key and in the same order, and records everything that it received. `ledger` judges the record.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::patience::{PATIENCE, until};
use crate::socket::{Handshake, Incoming, Socket};
use crate::token::Token;

/// Wait between two attempts to connect.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// The frames that one client received, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub user: String,
    /// The first position of each conversation: earlier messages are not due.
    pub from: BTreeMap<String, u64>,
    pub pushed: Vec<Pushed>,
    pub acknowledged: Vec<Acknowledged>,
    /// Key and content of every sent message.
    pub attempted: BTreeMap<String, String>,
    /// Error frames in answer to a send, each with its time.
    pub refusals: Vec<(Instant, Value)>,
    /// The reason for the end of each connection but the last.
    pub disconnects: Vec<String>,
    /// Violations of the protocol, which are never allowed.
    pub violations: Vec<String>,
}

/// A `message.new`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    /// Number of the client's connection on which it came, from 0.
    pub connection: usize,
    pub conversation: String,
    pub seq: u64,
    pub id: String,
    pub content: String,
}

/// A `message.sent`.
#[derive(Clone, Debug, PartialEq)]
pub struct Acknowledged {
    /// Its number among the messages of the client, from 1.
    pub number: u64,
    pub key: String,
    pub conversation: String,
    pub seq: u64,
    pub id: String,
    pub content: String,
    pub at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Talk,
    /// Finish the messages in flight, and go on receiving.
    Listen,
}

/// One client of the crowd, which sends and reads in a task of its own. Dropping it ends the client.
pub struct Chatter {
    record: Arc<Mutex<Record>>,
    phase: watch::Sender<Phase>,
    idle: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

/// The sender, its conversations, and its pace.
#[derive(Clone, Debug)]
pub struct Plan {
    pub user: String,
    pub follows: Vec<String>,
    pub talks_in: Option<String>,
    /// Wait between an acknowledgement and the next message.
    pub pause: Duration,
    /// Maximum number of messages without an answer.
    pub in_flight_max: usize,
}

impl Plan {
    /// Follows one conversation.
    pub fn listener(user: impl Into<String>, conversation: &str) -> Self {
        Self {
            user: user.into(),
            follows: vec![conversation.to_owned()],
            talks_in: None,
            pause: Duration::ZERO,
            in_flight_max: 1,
        }
    }

    /// Follows one conversation and writes in it.
    pub fn talker(user: impl Into<String>, conversation: &str, pause: Duration) -> Self {
        Self { talks_in: Some(conversation.to_owned()), pause, ..Self::listener(user, conversation) }
    }

    /// Follows one conversation and writes in it, with so many messages in flight.
    pub fn pipelining(user: impl Into<String>, conversation: &str, in_flight_max: usize) -> Self {
        Self { in_flight_max, ..Self::talker(user, conversation, Duration::ZERO) }
    }
}

impl Chatter {
    /// Starts the client. Returns when it is subscribed.
    pub async fn start(host: SocketAddr, plan: Plan) -> Self {
        let record = Arc::new(Mutex::new(Record { user: plan.user.clone(), ..Record::default() }));
        let (phase, phases) = watch::channel(Phase::Talk);
        let (idling, idle) = watch::channel(plan.talks_in.is_none());
        let follows = plan.follows.len();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let life = Life {
            host,
            name: format!("{}-{}", plan.user, NEXT.fetch_add(1, Ordering::Relaxed)),
            plan,
            record: record.clone(),
            phases,
            idling,
            connection: 0,
            positions: BTreeMap::new(),
            sent: 0,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
        };
        let chatter = Self { record, phase, idle, task: tokio::spawn(life.live()) };
        until("a chatter to be subscribed", async || (chatter.lock().from.len() == follows).then_some(()))
            .await;
        chatter
    }

    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    pub fn acknowledged(&self) -> usize {
        self.lock().acknowledged.len()
    }

    /// Stops writing; returns once all its messages are answered.
    pub async fn stop_sending(&mut self) {
        self.phase.send_replace(Phase::Listen);
        let is_idle = tokio::time::timeout(3 * PATIENCE, self.idle.wait_for(|idle| *idle)).await.is_ok();
        let record = self.lock();
        assert!(
            is_idle,
            "{}: a message was never answered; disconnects: {:?}",
            record.user, record.disconnects
        );
    }

    /// Waits until the client has received a conversation up to this seq, in any order.
    pub async fn expect_up_to(&self, conversation: &str, head: u64) {
        let what = format!("{} to see {conversation} up to {head}", self.record().user);
        until(what, async || {
            let record = self.lock();
            let from = *record.from.get(conversation)?;
            let seen = || record.pushed.iter().rev().filter(|push| push.conversation == conversation);
            (from >= head || seen().any(|push| push.seq >= head)).then_some(())
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock()
    }
}

impl Drop for Chatter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task of one client.
struct Life {
    host: SocketAddr,
    /// Distinguishes the clients of one user: their keys must differ.
    name: String,
    plan: Plan,
    record: Arc<Mutex<Record>>,
    phases: watch::Receiver<Phase>,
    idling: watch::Sender<bool>,
    connection: usize,
    positions: BTreeMap<String, u64>,
    sent: u64,
    /// Messages that must be sent again, each under its key, before new ones.
    waiting: VecDeque<InFlight>,
    /// The messages that were sent on this connection and have no answer yet, in the order of sending.
    in_flight: VecDeque<InFlight>,
}

#[derive(Clone)]
struct InFlight {
    number: u64,
    key: String,
    content: String,
    since: Instant,
}

/// Events that the client waits for, beside the socket.
enum Due {
    Incoming(Incoming),
    Speak,
    PhaseChanged,
    Overdue,
}

impl Life {
    async fn live(mut self) {
        loop {
            let why = self.session().await;
            self.note(|record| record.disconnects.push(why));
            self.connection += 1;
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }

    /// Runs one connection. Returns the reason why it ended.
    async fn session(&mut self) -> String {
        let handshake = Handshake::bearer(&Token::of(&self.plan.user).sign());
        let (mut socket, _) = match Socket::open(self.host, &handshake).await {
            Ok(opened) => opened,
            Err(why) => return format!("handshake: {why}"),
        };
        let subscribe = json!({"type": "subscribe", "id": "subscribe", "payload": {
            "conversation_ids": self.plan.follows, "positions": self.positions }});
        if let Err(error) = socket.write_json(&subscribe).await {
            return format!("subscribing: {error}");
        }
        // The client sends the messages without an answer again, in the same order.
        while let Some(unanswered) = self.in_flight.pop_back() {
            self.waiting.push_front(unanswered);
        }
        // Send nothing before the subscription is there; otherwise the first own message could precede it.
        let mut subscribed = false;
        let mut speak_at: Option<Instant> = None;
        let mut phases = self.phases.clone();
        loop {
            let overdue = self.in_flight.front().map(|pending| pending.since + PATIENCE);
            let due = tokio::select! {
                incoming = socket.next() => Due::Incoming(incoming),
                () = at(speak_at) => Due::Speak,
                () = at(overdue) => Due::Overdue,
                Ok(()) = phases.changed() => Due::PhaseChanged,
            };
            match due {
                Due::Incoming(Incoming::Json(frame)) => {
                    if frame["id"] == "subscribe" {
                        if frame["type"] != "subscribed" {
                            return format!("subscribe: {frame}");
                        }
                        self.subscribed(&frame["payload"]);
                        subscribed = true;
                        speak_at = Some(Instant::now());
                    } else if frame.get("id").is_some() {
                        speak_at = self.answered(&frame);
                    } else if subscribed {
                        // Earlier messages are offline delivery. The subscription requests the same messages
                        // again.
                        self.pushed(&frame);
                    }
                }
                Due::Incoming(Incoming::Closed(code, reason)) => return format!("closed {code} {reason}"),
                Due::Incoming(Incoming::Lost(why)) => return format!("lost: {why}"),
                Due::Speak => {
                    speak_at = None;
                    while let Some(frame) = self.next_message(subscribed) {
                        if let Err(error) = socket.write_json(&frame).await {
                            return format!("sending: {error}");
                        }
                    }
                }
                Due::Overdue => return format!("no answer to a message in {PATIENCE:?}"),
                Due::PhaseChanged => self.tell_idle(),
            }
        }
    }

    fn subscribed(&mut self, payload: &Value) {
        for conversation in &self.plan.follows {
            let Some(head) = payload["heads"][conversation].as_u64() else {
                return self.violation(format!("subscribed without a head for {conversation}: {payload}"));
            };
            if !self.positions.contains_key(conversation) {
                self.positions.insert(conversation.clone(), head);
                self.note(|record| record.from.insert(conversation.clone(), head));
            }
        }
    }

    fn pushed(&mut self, frame: &Value) {
        if frame["type"] == "resync" {
            return self.violation(format!("a resync that this test is too small for: {frame}"));
        }
        if frame["type"] != "message.new" {
            return;
        }
        let (payload, message) = (&frame["payload"], &frame["payload"]["message"]);
        let (Some(conversation), Some(seq), Some(id), Some(content)) = (
            payload["conversation_id"].as_str(),
            message["seq"].as_u64(),
            message["id"].as_str(),
            message["content"].as_str(),
        ) else {
            return self.violation(format!("a message.new without its members: {frame}"));
        };
        let position = self.positions.entry(conversation.to_owned()).or_default();
        *position = seq.max(*position);
        let pushed = Pushed {
            connection: self.connection,
            conversation: conversation.to_owned(),
            seq,
            id: id.to_owned(),
            content: content.to_owned(),
        };
        self.note(|record| record.pushed.push(pushed));
    }

    /// Handles the reply to a message. Returns the time of the next one.
    fn answered(&mut self, frame: &Value) -> Option<Instant> {
        // Answers come in the order of the frames.
        let Some(pending) = self.in_flight.pop_front_if(|pending| frame["id"] == *pending.key) else {
            self.violation(format!("not the answer to the oldest message in flight: {frame}"));
            return None;
        };
        let payload = &frame["payload"];
        if frame["type"] == "message.sent" {
            let message = &payload["message"];
            let (Some(seq), Some(id)) = (message["seq"].as_u64(), message["id"].as_str()) else {
                self.violation(format!("a message.sent without its members: {frame}"));
                return None;
            };
            let acknowledged = Acknowledged {
                number: pending.number,
                key: pending.key,
                conversation: self.plan.talks_in.clone().unwrap_or_default(),
                seq,
                id: id.to_owned(),
                content: pending.content,
                at: Instant::now(),
            };
            self.note(|record| record.acknowledged.push(acknowledged));
            self.tell_idle();
            return Some(Instant::now() + self.plan.pause);
        }
        // Refused: send the same message again, if the host marks it as retryable.
        self.note(|record| record.refusals.push((Instant::now(), frame.clone())));
        if payload["retryable"] != true {
            self.tell_idle();
            return Some(Instant::now() + self.plan.pause);
        }
        self.waiting.push_back(pending);
        let wait = payload["retry_after_ms"].as_u64().unwrap_or(50).min(1000);
        Some(Instant::now() + Duration::from_millis(wait))
    }

    /// The next message to send: an unacknowledged one, or a new one, or none while the client only
    /// receives, or has enough in flight.
    fn next_message(&mut self, subscribed: bool) -> Option<Value> {
        let conversation = self.plan.talks_in.clone().filter(|_| subscribed)?;
        if self.in_flight.len() >= self.plan.in_flight_max {
            return None;
        }
        let next = self.waiting.pop_front().or_else(|| self.new_message());
        let frame = next.map(|next| {
            let next = InFlight { since: Instant::now(), ..next };
            let frame = json!({"type": "message.send", "id": next.key, "payload": {
                "conversation_id": conversation, "content": next.content, "client_msg_id": next.key }});
            self.in_flight.push_back(next);
            frame
        });
        self.tell_idle();
        frame
    }

    fn new_message(&mut self) -> Option<InFlight> {
        if *self.phases.borrow() == Phase::Listen {
            return None;
        }
        self.sent += 1;
        let key = format!("{}-{}", self.name, self.sent);
        let content = format!("message {} of {}", self.sent, self.name);
        self.note(|record| record.attempted.insert(key.clone(), content.clone()));
        Some(InFlight { number: self.sent, key, content, since: Instant::now() })
    }

    fn tell_idle(&self) {
        let has_all_answers = self.in_flight.is_empty() && self.waiting.is_empty();
        let idle =
            has_all_answers && (self.plan.talks_in.is_none() || *self.phases.borrow() == Phase::Listen);
        self.idling.send_replace(idle);
    }

    fn violation(&self, what: String) {
        self.note(|record| record.violations.push(what));
    }

    fn note<T>(&self, write: impl FnOnce(&mut Record) -> T) {
        write(&mut self.record.lock());
    }
}

/// Waits until the time; forever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
