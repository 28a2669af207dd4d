//! The history checker, for loads and tests that send stored messages. It checks for each conversation that
//! the seqs have no gaps, that each acknowledged message is stored once, and that every subscriber's stream
//! equals the history, also after a resume. It keeps sixteen bytes for each message, because loads deliver
//! millions. The `ledger` counts and names every anomaly.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::net::SocketAddr;

use serde_json::json;

use crate::crowd::{Chatter, Record};
use crate::ledger::{self, History};
use crate::patience::PATIENCE;
use crate::rest::Rest;
use crate::socket::{Handshake, Incoming, Socket};
use crate::token::Token;

/// Fewer messages than a resume sends by itself.
const RESUMED_MAX: u64 = 500;

/// The compared part of a message that a client sent or received: its position and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenMessage {
    pub seq: u64,
    id: u64,
}

impl SeenMessage {
    pub fn new(seq: u64, id: &str) -> Self {
        // Two ids of one conversation do not collide by accident.
        let mut hasher = DefaultHasher::new();
        hasher.write(id.as_bytes());
        Self { seq, id: hasher.finish() }
    }

    /// Reads it from a `message.new` or a `message.sent` without parsing JSON: a load must cost less than the
    /// measured work.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let id = behind(frame, b"\"id\":\"")?;
        let id = &id[..id.iter().position(|byte| *byte == b'"')?];
        let seq = behind(frame, b"\"seq\":")?.iter().take_while(|byte| byte.is_ascii_digit());
        let seq = seq.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
        Some(Self::new(seq, std::str::from_utf8(id).ok()?))
    }
}

fn behind<'a>(frame: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let place = frame.windows(name.len()).position(|window| window == name)?;
    Some(&frame[place + name.len()..])
}

/// The first difference that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    pub conversation: String,
    pub seq: u64,
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conversation {}, seq {}: {}", self.conversation, self.seq, self.what)
    }
}

impl std::error::Error for Wrong {}

impl From<Wrong> for std::io::Error {
    fn from(wrong: Wrong) -> Self {
        Self::other(wrong)
    }
}

/// Counts of the comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Checked {
    pub stored: usize,
    pub acknowledged: usize,
    pub delivered: usize,
    /// Messages that came again. Clients recognise them by their seq, so they are allowed after a resume.
    pub duplicates: usize,
}

/// The messages that each client received, by conversation.
#[derive(Default)]
pub struct Books(BTreeMap<String, Book>);

#[derive(Default)]
struct Book {
    acknowledged: Vec<SeenMessage>,
    streams: Vec<Stream>,
}

struct Stream {
    whose: String,
    from: u64,
    seen: Vec<SeenMessage>,
}

impl Books {
    /// The records of a crowd in these conversations.
    pub fn of(conversations: &[String], crowd: &[Chatter]) -> Self {
        let mut books = Self::default();
        for conversation in conversations {
            books.open(conversation);
            for chatter in crowd {
                books.record(conversation, &chatter.record());
            }
        }
        books
    }

    /// Adds a conversation that is checked even if no client received anything.
    pub fn open(&mut self, conversation: &str) {
        self.0.entry(conversation.to_owned()).or_default();
    }

    /// The conversations of this book.
    pub fn conversations(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn acknowledged(&mut self, conversation: &str, seen: impl IntoIterator<Item = SeenMessage>) {
        self.0.entry(conversation.to_owned()).or_default().acknowledged.extend(seen);
    }

    /// The messages of this conversation that one client of a crowd received.
    pub fn record(&mut self, conversation: &str, record: &Record) {
        let acknowledged = record.acknowledged.iter().filter(|reply| reply.conversation == conversation);
        self.acknowledged(conversation, acknowledged.map(|reply| SeenMessage::new(reply.seq, &reply.id)));
        if let Some(from) = record.from.get(conversation) {
            let pushed = record.pushed.iter().filter(|push| push.conversation == conversation);
            let seen = pushed.map(|push| SeenMessage::new(push.seq, &push.id)).collect();
            self.received(conversation, record.user.as_str(), *from, seen);
        }
    }

    /// Adds everything that a subscriber received after `from`, its first position, in the order of arrival,
    /// over all its connections.
    pub fn received(
        &mut self,
        conversation: &str,
        whose: impl Into<String>,
        from: u64,
        seen: Vec<SeenMessage>,
    ) {
        let stream = Stream { whose: whose.into(), from, seen };
        self.0.entry(conversation.to_owned()).or_default().streams.push(stream);
    }

    /// Compares with a history that was read already.
    pub fn compare(&self, conversation: &str, history: &History) -> Result<Checked, Wrong> {
        let mut checked = Checked::default();
        if let Some(book) = self.0.get(conversation) {
            book.compare(conversation, history, &mut checked)?;
        }
        Ok(checked)
    }

    /// Reads every conversation whole and compares. Then a client resumes in each, and must receive its end.
    /// Nothing may be in flight any more, and no other client may have written.
    pub async fn check(&self, host: SocketAddr, member: impl Fn(&str) -> String) -> Result<Checked, Wrong> {
        let mut checked = Checked::default();
        for (conversation, book) in &self.0 {
            let token = Token::of(&member(conversation)).sign();
            let history = ledger::history(&Rest::new(host, token.clone()), conversation).await;
            book.compare(conversation, &history, &mut checked)?;
            let head = history.last_key_value().map_or(0, |(seq, _)| *seq);
            let from = head.saturating_sub(RESUMED_MAX);
            let resumed = Stream {
                whose: "who resumes".into(),
                from,
                seen: resume(host, &token, conversation, from, head).await,
            };
            resumed.compare(conversation, &history, &mut checked)?;
        }
        Ok(checked)
    }
}

impl Book {
    fn compare(&self, conversation: &str, history: &History, checked: &mut Checked) -> Result<(), Wrong> {
        let wrong =
            |seq, what: &str| Err(Wrong { conversation: conversation.into(), seq, what: what.into() });
        for (expected, seq) in (1..).zip(history.keys()) {
            if *seq != expected {
                return wrong(expected, "history lacks it");
            }
        }
        checked.stored += history.len();
        let mut stored_for = BTreeSet::new();
        for seen in &self.acknowledged {
            match history.get(&seen.seq) {
                None => return wrong(seen.seq, "acknowledged and not stored"),
                Some(stored) if SeenMessage::new(seen.seq, &stored.id) != *seen => {
                    return wrong(seen.seq, "acknowledged, and history holds another message there");
                }
                Some(_) if !stored_for.insert(seen.seq) => return wrong(seen.seq, "acknowledged twice"),
                Some(_) => checked.acknowledged += 1,
            }
        }
        if let Some((seq, _)) = history
            .iter()
            .find(|(seq, stored)| stored.kind == "text" && !stored_for.contains(seq))
            .filter(|_| !self.acknowledged.is_empty())
        {
            return wrong(*seq, "stored, and not acknowledged");
        }
        self.streams.iter().try_for_each(|stream| stream.compare(conversation, history, checked))
    }
}

impl Stream {
    fn compare(&self, conversation: &str, history: &History, checked: &mut Checked) -> Result<(), Wrong> {
        let wrong = |seq, what: String| {
            let what = format!("{}: {what}", self.whose);
            Err(Wrong { conversation: conversation.into(), seq, what })
        };
        let mut next = self.from + 1;
        for seen in &self.seen {
            if seen.seq > next {
                return wrong(next, format!("was sent {} in its place", seen.seq));
            }
            match history.get(&seen.seq) {
                None => return wrong(seen.seq, "was sent what history does not hold".into()),
                Some(stored) if SeenMessage::new(seen.seq, &stored.id) != *seen => {
                    return wrong(seen.seq, "was sent another message than history holds".into());
                }
                Some(_) => checked.delivered += 1,
            }
            if seen.seq == next {
                next += 1;
            } else {
                checked.duplicates += 1;
            }
        }
        match history.last_key_value() {
            Some((head, _)) if *head >= next => wrong(next, format!("was never sent it; the head is {head}")),
            _ => Ok(()),
        }
    }
}

/// The messages that a client with everything up to `from` receives, until it has the head.
async fn resume(host: SocketAddr, token: &str, conversation: &str, from: u64, head: u64) -> Vec<SeenMessage> {
    let mut seen = Vec::new();
    let reading = async {
        let (mut socket, _) = match Socket::open(host, &Handshake::bearer(token)).await {
            Ok(opened) => opened,
            Err(why) => panic!("a handshake to resume: {why}"),
        };
        let payload = json!({"conversation_ids": [conversation], "positions": {conversation: from}});
        let subscribe = json!({"type": "subscribe", "id": "resume", "payload": payload});
        socket.write_json(&subscribe).await.expect("a frame is taken");
        let mut subscribed = false;
        while !subscribed || seen.last().map_or(from, |seen: &SeenMessage| seen.seq) < head {
            match socket.next().await {
                Incoming::Json(frame) if frame["id"] == "resume" => {
                    assert_eq!(frame["type"], "subscribed", "{frame}");
                    subscribed = true;
                }
                // Earlier frames are offline delivery, which does not depend on the position.
                Incoming::Json(frame) if subscribed && frame["type"] == "message.new" => {
                    let message = &frame["payload"]["message"];
                    if frame["payload"]["conversation_id"] == conversation {
                        let seq = message["seq"].as_u64().unwrap_or_default();
                        seen.push(SeenMessage::new(seq, message["id"].as_str().unwrap_or_default()));
                    }
                }
                Incoming::Json(_) => {}
                // The comparison finds missing messages.
                Incoming::Closed(..) | Incoming::Lost(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, reading).await;
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Stored;

    fn stored(seq: u64) -> Stored {
        let kind = if seq == 1 { "system" } else { "text" };
        Stored { id: format!("id{seq}"), content: String::new(), kind: kind.into() }
    }

    fn seen(seq: u64) -> SeenMessage {
        SeenMessage::new(seq, &stored(seq).id)
    }

    /// One to five are stored, all but the first were acknowledged, and bo has received them from two on.
    fn compared(damage: impl FnOnce(&mut History, &mut Book)) -> Result<Checked, (u64, String)> {
        let mut history: History = (1..=5).map(|seq| (seq, stored(seq))).collect();
        let stream = Stream { whose: "bo".into(), from: 2, seen: (3..=5).map(seen).collect() };
        let mut book = Book { acknowledged: (2..=5).map(seen).collect(), streams: vec![stream] };
        damage(&mut history, &mut book);
        let mut checked = Checked::default();
        book.compare("c", &history, &mut checked).map_err(|wrong| (wrong.seq, wrong.what))?;
        Ok(checked)
    }

    #[test]
    fn a_correct_history_has_no_anomaly() {
        let all = Checked { stored: 5, acknowledged: 4, delivered: 3, duplicates: 0 };
        assert_eq!(compared(|_, _| {}), Ok(all));
        let again = compared(|_, book| book.streams[0].seen.insert(2, seen(3)));
        assert_eq!(again, Ok(Checked { delivered: 4, duplicates: 1, ..all }));
    }

    #[test]
    fn every_anomaly_is_reported_with_its_seq() {
        let seq_of = |damage: fn(&mut History, &mut Book)| compared(damage).unwrap_err().0;
        assert_eq!(
            seq_of(|history, _| {
                history.remove(&3);
            }),
            3
        );
        assert_eq!(
            seq_of(|history, _| {
                history.remove(&5);
            }),
            5
        );
        assert_eq!(
            seq_of(|history, _| {
                history.insert(6, stored(6));
            }),
            6
        );
        assert_eq!(
            seq_of(|history, _| {
                history.insert(4, stored(3));
            }),
            4
        );
        assert_eq!(seq_of(|_, book| book.acknowledged.push(seen(2))), 2);
        assert_eq!(
            seq_of(|_, book| {
                book.acknowledged.remove(1);
            }),
            3
        );
        assert_eq!(
            seq_of(|_, book| {
                book.streams[0].seen.remove(0);
            }),
            3
        );
        assert_eq!(
            seq_of(|_, book| {
                book.streams[0].seen.pop();
            }),
            5
        );
        assert_eq!(seq_of(|_, book| book.streams[0].seen.swap(0, 1)), 3);
        assert_eq!(seq_of(|_, book| book.streams[0].seen[1] = SeenMessage::new(4, "forged")), 4);
        assert_eq!(seq_of(|_, book| book.streams[0].seen.push(seen(7))), 6);
        let wrong = Wrong { conversation: "c".into(), seq: 3, what: "history lacks it".into() };
        assert_eq!(wrong.to_string(), "conversation c, seq 3: history lacks it");
    }

    #[test]
    fn a_frame_is_compared_without_parsing_it() {
        let frame = br#"{"type":"message.new","payload":{"conversation_id":"c","message":{"id":"id4","conversation_id":"c","seq":4,"content":"\"seq\":9"}}}"#;
        assert_eq!(SeenMessage::of(frame), Some(seen(4)));
        let reply = br#"{"type":"message.sent","id":17,"payload":{"message":{"id":"id12","seq":12},"duplicate":false}}"#;
        assert_eq!(SeenMessage::of(reply), Some(SeenMessage::new(12, "id12")));
        assert_eq!(SeenMessage::of(br#"{"type":"pong","payload":{}}"#), None);
    }
}
