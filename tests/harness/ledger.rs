//! The comparison of the history with the acknowledgements and with the frames that every client received.
//! Counts are exact; a test compares them with what it allows.

use std::collections::{BTreeMap, BTreeSet};

use crate::crowd::{Chatter, Record};
use crate::host::Host;
use crate::rest::Rest;

/// A stored message.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub id: String,
    pub content: String,
    /// The `type` of the protocol.
    pub kind: String,
}

/// The messages of one conversation, by seq.
pub type History = BTreeMap<u64, Stored>;

/// Reads a whole conversation, page by page.
pub async fn history(member: &Rest, conversation: &str) -> History {
    let mut history = History::new();
    loop {
        let after = history.last_key_value().map_or(0, |(seq, _)| *seq);
        let path = format!("/api/v1/conversations/{conversation}/messages?after_seq={after}&limit=100");
        let page = member.get(&path).await.expect(200);
        let messages = page["messages"].as_array().expect("a list of messages");
        for message in messages {
            let text = |member: &str| message[member].as_str().unwrap_or_default().to_owned();
            let seq = message["seq"].as_u64().expect("a seq");
            let stored = Stored { id: text("id"), content: text("content"), kind: text("type") };
            assert_eq!(history.insert(seq, stored), None, "{path}: seq {seq} twice");
        }
        if page["has_more"] != true {
            return history;
        }
        assert!(!messages.is_empty(), "{path}: an empty page has no more behind it");
    }
}

/// Waits until every client has received everything of these conversations, and compares their records with
/// the histories. `ana` is a member of all.
pub async fn audit(host: &Host, conversations: &[String], crowd: &[Chatter]) -> Audit {
    let mut histories = BTreeMap::new();
    for conversation in conversations {
        histories.insert(conversation.clone(), history(&host.rest("ana"), conversation).await);
    }
    for chatter in crowd {
        for conversation in chatter.record().from.keys() {
            let head = histories[conversation].last_key_value().map_or(0, |(seq, _)| *seq);
            chatter.expect_up_to(conversation, head).await;
        }
    }
    Audit::of(&histories, &crowd.iter().map(Chatter::record).collect::<Vec<_>>())
}

/// The violations, one line each, and the counts.
#[derive(Debug, Default, PartialEq)]
pub struct Audit {
    pub acknowledged: usize,
    pub delivered: usize,
    /// Number of due deliveries: every stored message, to every earlier subscriber.
    pub owed: usize,
    /// Seqs that the history lacks.
    pub holes: Vec<String>,
    /// Acknowledged messages that are not in the history under that seq and id exactly once.
    pub acknowledged_lost: Vec<String>,
    /// Messages of one client whose seqs have not the order of sending. A message that was refused meanwhile
    /// is left out.
    pub out_of_order: Vec<String>,
    /// Sends that are stored twice.
    pub stored_twice: Vec<String>,
    /// Stored messages that were never pushed to a due subscriber.
    pub undelivered: Vec<String>,
    /// Messages pushed again, on the same connection or after a resume.
    pub duplicates: Vec<String>,
    /// Messages that were first pushed after a higher seq.
    pub reordered: Vec<String>,
    /// Pushed messages that differ from the history under that seq.
    pub false_pushes: Vec<String>,
    pub violations: Vec<String>,
    /// Ended connections, with the reason.
    pub disconnects: Vec<String>,
    /// Sends that got an error.
    pub refusals: Vec<String>,
}

impl Audit {
    pub fn of(histories: &BTreeMap<String, History>, records: &[Record]) -> Self {
        let mut audit = Self::default();
        for (conversation, history) in histories {
            let head = history.last_key_value().map_or(0, |(seq, _)| *seq);
            let missing = (1..=head).filter(|seq| !history.contains_key(seq));
            audit.holes.extend(missing.map(|seq| format!("{conversation} lacks {seq}")));
        }
        for record in records {
            audit.sends(histories, record);
            for (conversation, from) in &record.from {
                if let Some(history) = histories.get(conversation) {
                    audit.stream(conversation, history, *from, record);
                }
            }
            let name = |what: &String| format!("{}: {what}", record.user);
            audit.violations.extend(record.violations.iter().map(name));
            audit.disconnects.extend(record.disconnects.iter().map(name));
            audit.refusals.extend(record.refusals.iter().map(|(_, frame)| name(&frame.to_string())));
        }
        audit
    }

    /// Checks that every acknowledged message is stored once, in order, and reached everyone. Duplicates and
    /// ended connections are allowed.
    #[track_caller]
    pub fn expect_kept(&self) {
        let Self {
            holes,
            acknowledged_lost,
            out_of_order,
            stored_twice,
            undelivered,
            reordered,
            false_pushes,
            violations,
            ..
        } = self;
        for (what, found) in [
            ("holes in history", holes),
            ("acknowledged and lost", acknowledged_lost),
            ("stored in another order than sent", out_of_order),
            ("stored twice", stored_twice),
            ("stored and not delivered", undelivered),
            ("reordered", reordered),
            ("pushed and not stored so", false_pushes),
            ("violations", violations),
        ] {
            assert!(found.is_empty(), "{what}: {} such as {:?}", found.len(), &found[..found.len().min(5)]);
        }
        assert_eq!(self.delivered - self.duplicates.len(), self.owed);
    }

    /// Checks also that there was no duplicate, no ended connection and no refused message.
    #[track_caller]
    pub fn expect_untouched(&self) {
        self.expect_kept();
        for (what, found) in [
            ("duplicates", &self.duplicates),
            ("disconnects", &self.disconnects),
            ("refusals", &self.refusals),
        ] {
            assert!(found.is_empty(), "{what}: {} such as {:?}", found.len(), &found[..found.len().min(5)]);
        }
    }

    fn sends(&mut self, histories: &BTreeMap<String, History>, record: &Record) {
        self.acknowledged += record.acknowledged.len();
        for sent in &record.acknowledged {
            let stored = histories.get(&sent.conversation).and_then(|history| history.get(&sent.seq));
            if stored.is_none_or(|stored| stored.id != sent.id || stored.content != sent.content) {
                let what = format!("{}: {} at {} is {stored:?}", record.user, sent.key, sent.seq);
                self.acknowledged_lost.push(what);
            }
        }
        let refused: BTreeSet<&str> =
            record.refusals.iter().filter_map(|(_, frame)| frame["id"].as_str()).collect();
        let sent = record.acknowledged.iter().filter(|sent| !refused.contains(sent.key.as_str()));
        let seqs: BTreeMap<u64, u64> = sent.map(|sent| (sent.number, sent.seq)).collect();
        for ((earlier, before), (later, after)) in seqs.iter().zip(seqs.iter().skip(1)) {
            if before >= after {
                let what =
                    format!("{}: message {earlier} at {before}, message {later} at {after}", record.user);
                self.out_of_order.push(what);
            }
        }
        // Every content is sent once in a run, so a second one is a retry that was stored again.
        let attempted: BTreeSet<&String> = record.attempted.values().collect();
        for (conversation, history) in histories {
            let mut stored = BTreeSet::new();
            for (seq, message) in history {
                if attempted.contains(&message.content) && !stored.insert(&message.content) {
                    self.stored_twice.push(format!("{conversation}: {:?} again at {seq}", message.content));
                }
            }
        }
    }

    fn stream(&mut self, conversation: &str, history: &History, from: u64, record: &Record) {
        let mut seen = BTreeSet::new();
        let mut highest = from;
        for push in record.pushed.iter().filter(|push| push.conversation == conversation) {
            let at =
                format!("{} in {conversation}: {} on connection {}", record.user, push.seq, push.connection);
            self.delivered += 1;
            let stored = history.get(&push.seq);
            if stored.is_none_or(|stored| stored.id != push.id || stored.content != push.content) {
                self.false_pushes.push(format!("{at}: pushed {push:?}, stored {stored:?}"));
            }
            if push.seq <= from || !seen.insert(push.seq) {
                self.duplicates.push(at);
            } else if push.seq < highest {
                self.reordered.push(format!("{at} after {highest}"));
            }
            highest = highest.max(push.seq);
        }
        let due = history.range(from + 1..).map(|(seq, _)| *seq);
        for seq in due {
            self.owed += 1;
            if !seen.contains(&seq) {
                self.undelivered.push(format!("{} in {conversation}: {seq}", record.user));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::crowd::{Acknowledged, Pushed};

    fn stored(n: u64) -> Stored {
        Stored { id: format!("id{n}"), content: format!("text {n}"), kind: "text".into() }
    }

    fn push(seq: u64) -> Pushed {
        let Stored { id, content, .. } = stored(seq);
        Pushed { connection: 0, conversation: "c".into(), seq, id, content }
    }

    fn acknowledged(seq: u64) -> Acknowledged {
        let Stored { id, content, .. } = stored(seq);
        let key = format!("key{seq}");
        Acknowledged { number: seq, key, conversation: "c".into(), seq, id, content, at: Instant::now() }
    }

    /// Ana joined at 1, sent 2 to 5 and received all of them.
    fn good() -> (BTreeMap<String, History>, Record) {
        let history = (1..=5).map(|seq| (seq, stored(seq))).collect();
        let record = Record {
            user: "ana".into(),
            from: [("c".to_owned(), 1)].into(),
            pushed: (2..=5).map(push).collect(),
            acknowledged: (2..=5).map(acknowledged).collect(),
            attempted: (2..=5).map(|n| (format!("key{n}"), stored(n).content)).collect(),
            ..Record::default()
        };
        ([("c".to_owned(), history)].into(), record)
    }

    fn audit_after(damage: impl FnOnce(&mut History, &mut Record)) -> Audit {
        let (mut histories, mut record) = good();
        damage(histories.get_mut("c").unwrap(), &mut record);
        Audit::of(&histories, &[record])
    }

    #[test]
    fn a_correct_history_has_no_anomaly() {
        let audit = audit_after(|_, _| {});
        audit.expect_untouched();
        assert_eq!((audit.acknowledged, audit.delivered, audit.owed), (4, 4, 4));
    }

    #[test]
    fn every_kind_of_anomaly_is_found() {
        assert_eq!(audit_after(|history, _| drop(history.remove(&3))).holes.len(), 1);
        let audit = audit_after(|history, _| drop(history.remove(&5)));
        assert_eq!((audit.acknowledged_lost.len(), audit.false_pushes.len()), (1, 1));
        let audit = audit_after(|history, _| drop(history.insert(6, stored(5))));
        assert_eq!((audit.stored_twice.len(), audit.undelivered.len()), (1, 1));
        assert_eq!(audit_after(|_, record| drop(record.pushed.remove(1))).undelivered.len(), 1);
        assert_eq!(audit_after(|_, record| record.pushed.push(push(3))).duplicates.len(), 1);
        assert_eq!(audit_after(|_, record| record.pushed.push(push(1))).duplicates.len(), 1);
        assert_eq!(audit_after(|_, record| record.pushed.swap(1, 2)).reordered.len(), 1);
        let swap = |record: &mut Record| {
            (record.acknowledged[1].number, record.acknowledged[2].number) = (4, 3);
        };
        assert_eq!(audit_after(|_, record| swap(record)).out_of_order.len(), 1);
        let audit = audit_after(|_, record| {
            swap(record);
            record.refusals.push((Instant::now(), serde_json::json!({"id": "key3"})));
        });
        assert!(audit.out_of_order.is_empty(), "a message that was refused has no place");
        let audit = audit_after(|_, record| record.pushed[0].content = "forged".into());
        assert_eq!(audit.false_pushes.len(), 1);
        let audit = audit_after(|_, record| record.disconnects.push("closed 1012".into()));
        assert_eq!(audit.disconnects.len(), 1);
    }
}
