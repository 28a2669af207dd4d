//! The state of a client in one conversation: its position, and the handling of each message. No socket and
//! no clock: the rules of `docs/client.md` as code.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Maximum number of messages held above a gap. Messages beyond it are dropped and requested again.
const HELD_MAX: usize = 1_000;

/// One conversation of one client.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// The last seq that was shown.
    pub seq: u64,
    pub change: u64,
    /// The position epoch of the position.
    pub epoch: Option<String>,
    /// Raised by every reset: a page that was requested before belongs to the old history.
    pub era: u64,
    /// Messages held above a gap, by seq.
    held: BTreeMap<u64, Value>,
    /// A page of history was requested and has not arrived.
    asking: bool,
    /// The shown messages, in order: seq and message.
    pub shown: Vec<(u64, Value)>,
    /// Number of duplicates, each of which was shown once.
    pub duplicates: u64,
    /// Number of jumps that were filled from the history.
    pub gaps: u64,
}

/// The next action of the client.
#[derive(Debug, PartialEq)]
pub enum Need {
    Nothing,
    /// Ask for `history` after this seq.
    History(u64),
}

impl Stream {
    /// Begins a stream at this position: earlier messages were shown by other means.
    pub fn at(seq: u64, change: u64) -> Self {
        Self { seq, change, ..Self::default() }
    }

    /// The position for `subscribe`.
    pub fn position(&self) -> Value {
        match &self.epoch {
            Some(epoch) => json!({ "seq": self.seq, "change": self.change, "epoch": epoch }),
            None => json!({ "seq": self.seq, "change": self.change }),
        }
    }

    /// Handles a reset: forgets shown messages above this point, which are not stored.
    pub fn reset(&mut self, seq: u64, change: u64) {
        self.seq = self.seq.min(seq);
        self.change = self.change.min(change);
        self.shown.retain(|(shown, _)| *shown <= seq);
        self.era += 1;
        self.cut();
    }

    /// Handles a message, from a push or from a page.
    pub fn message(&mut self, message: &Value) -> Need {
        let Some(seq) = message["seq"].as_u64() else { return Need::Nothing };
        if seq <= self.seq || self.held.contains_key(&seq) {
            self.duplicates += 1;
            return Need::Nothing;
        }
        if self.held.len() < HELD_MAX {
            self.held.insert(seq, message.clone());
        }
        self.show();
        self.need()
    }

    /// Handles a page of history, the answer to [`Need::History`].
    pub fn page(&mut self, messages: &[Value], has_more: bool) -> Need {
        self.asking = false;
        for message in messages {
            let Some(seq) = message["seq"].as_u64() else { continue };
            if seq > self.seq {
                self.held.insert(seq, message.clone());
            }
        }
        self.show();
        if has_more { self.ask() } else { self.need() }
    }

    /// Handles a `resync`: the host does not send the missing messages.
    pub fn resync(&mut self) -> Need {
        self.ask()
    }

    /// Handles an edit or a deletion. Its number rises by one, as for messages; the client keeps only the
    /// last.
    pub fn changed(&mut self, change: u64) {
        self.change = self.change.max(change);
    }

    /// The connection ended, with its requests.
    pub fn cut(&mut self) {
        self.asking = false;
        // Held messages come again: the position that the client sends lies before them.
        self.held.clear();
    }

    fn show(&mut self) {
        while let Some(message) = self.held.remove(&(self.seq + 1)) {
            self.seq += 1;
            self.shown.push((self.seq, message));
        }
        self.held = self.held.split_off(&(self.seq + 1));
    }

    fn need(&mut self) -> Need {
        if self.held.is_empty() || self.asking {
            return Need::Nothing;
        }
        self.gaps += 1;
        self.ask()
    }

    fn ask(&mut self) -> Need {
        if self.asking {
            return Need::Nothing;
        }
        self.asking = true;
        Need::History(self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: u64) -> Value {
        json!({ "seq": seq, "content": seq.to_string() })
    }

    fn shown(stream: &Stream) -> Vec<u64> {
        stream.shown.iter().map(|(seq, _)| *seq).collect()
    }

    #[test]
    fn a_duplicate_message_is_shown_once() {
        let mut stream = Stream::at(3, 0);
        for seq in [3, 4, 4, 5, 2] {
            assert_eq!(stream.message(&message(seq)), Need::Nothing);
        }
        assert_eq!((shown(&stream), stream.duplicates), (vec![4, 5], 3));
    }

    #[test]
    fn a_jump_is_filled_before_anything_above_it_is_shown() {
        let mut stream = Stream::at(0, 0);
        stream.message(&message(1));
        assert_eq!(stream.message(&message(4)), Need::History(1));
        // Only one request, whatever arrives meanwhile.
        assert_eq!(stream.message(&message(5)), Need::Nothing);
        assert_eq!(shown(&stream), [1]);
        assert_eq!(stream.page(&[message(2)], true), Need::History(2));
        assert_eq!(stream.page(&[message(3), message(4)], false), Need::Nothing);
        assert_eq!((shown(&stream), stream.gaps), (vec![1, 2, 3, 4, 5], 1));
    }

    #[test]
    fn a_resync_pages_from_the_present_position() {
        let mut stream = Stream::at(7, 0);
        assert_eq!(stream.resync(), Need::History(7));
        assert_eq!(stream.resync(), Need::Nothing);
        assert_eq!(stream.page(&[message(8)], false), Need::Nothing);
        assert_eq!(stream.seq, 8);
    }

    #[test]
    fn a_reset_forgets_lost_messages_and_shows_the_stored_ones() {
        let mut stream = Stream { epoch: Some("old".to_owned()), ..Stream::at(1, 4) };
        for seq in [2, 3, 4, 6] {
            stream.message(&message(seq));
        }
        stream.reset(2, 3);
        stream.epoch = Some("new".to_owned());
        assert_eq!(stream.position(), json!({ "seq": 2, "change": 3, "epoch": "new" }));
        assert_eq!(stream.message(&message(3)), Need::Nothing);
        assert_eq!(shown(&stream), [2, 3]);
        // A client that has less keeps its messages.
        stream.reset(7, 9);
        assert_eq!((stream.seq, stream.change), (3, 3));
    }

    #[test]
    fn after_a_lost_connection_a_client_resumes_below_its_held_messages() {
        let mut stream = Stream::at(1, 2);
        stream.message(&message(5));
        stream.cut();
        assert_eq!(stream.position(), json!({ "seq": 1, "change": 2 }));
        for seq in 2..=5 {
            assert_eq!(stream.message(&message(seq)), Need::Nothing);
        }
        assert_eq!(shown(&stream), [2, 3, 4, 5]);
    }
}
