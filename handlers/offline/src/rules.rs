//! How much of what was said to somebody away is sent, and what is only named. Pure: no host calls, so plain `cargo test`
//! runs it.

use std::collections::BTreeMap;

use sdk::Id;
use serde::Deserialize;

/// Messages of one greeting; the rest is for `history`.
pub const MESSAGES_MAX: usize = 200;
/// Bytes of them together: they wait in the queue of a connection that has not said a word yet.
pub const BYTES_MAX: usize = 1024 * 1024;

/// A conversation in which something was said while its person was away.
#[derive(Debug, Deserialize, PartialEq)]
pub struct Waiting {
    pub conversation_id: String,
    /// What was said up to here they had, or it was before they went.
    pub after: u64,
    pub head: u64,
}

/// A message for them, in the order in which all were said.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub conversation: Id,
    pub seq: u64,
    pub frame: String,
}

/// What is sent.
#[derive(Debug, PartialEq)]
pub struct Greeting {
    pub frames: Vec<String>,
    /// Through which seq each conversation is delivered with them.
    pub delivered: BTreeMap<Id, u64>,
    /// Where there is more.
    pub resync: Vec<Id>,
}

/// `messages` is one more than may be sent, if there are so many.
pub fn greeting(waiting: &BTreeMap<Id, u64>, messages: Vec<Message>) -> Greeting {
    let mut bytes = 0;
    let fitting = messages.iter().take(MESSAGES_MAX).take_while(|message| {
        bytes += message.frame.len();
        bytes <= BYTES_MAX
    });
    let (fitting, all) = (fitting.count(), messages.len());
    let mut delivered = BTreeMap::new();
    let mut frames = Vec::with_capacity(fitting);
    for message in messages.into_iter().take(fitting) {
        delivered.insert(message.conversation, message.seq);
        frames.push(message.frame);
    }
    // Everything was asked for in one order: once some is left out, anything may be, up to the head of each.
    let lacks = |(id, head): (&Id, &u64)| (delivered.get(id).unwrap_or(&0) < head).then_some(*id);
    let resync = if fitting < all { waiting.iter().filter_map(lacks).collect() } else { Vec::new() };
    Greeting { frames, delivered, resync }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(n: u8) -> Id {
        Id::at(u64::from(n), &[0; 10])
    }

    fn said(room_n: u8, seqs: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<Message> {
        seqs.map(|seq| Message { conversation: room(room_n), seq, frame: "x".repeat(bytes) }).collect()
    }

    #[test]
    fn what_fits_is_sent_and_marked_through_its_last() {
        let waiting = [(room(1), 5), (room(2), 9)].into();
        let mut messages = said(1, 4..=5, 10);
        messages.extend(said(2, 9..=9, 10));
        let greeting = greeting(&waiting, messages);
        assert_eq!((greeting.frames.len(), greeting.resync.len()), (3, 0));
        assert_eq!(greeting.delivered, [(room(1), 5), (room(2), 9)].into());
    }

    #[test]
    fn two_hundred_are_sent_and_what_has_more_is_named() {
        let waiting = [(room(1), 201), (room(2), 40), (room(3), 7)].into();
        let mut messages = said(2, 40..=40, 10);
        messages.extend(said(1, 1..=200, 10));
        let greeting = greeting(&waiting, messages);
        assert_eq!(greeting.frames.len(), MESSAGES_MAX);
        assert_eq!(greeting.delivered[&room(1)], 199);
        // The third was not reached at all, the second is complete.
        assert_eq!(greeting.resync, [room(1), room(3)]);
        let exactly = super::greeting(&[(room(1), 200)].into(), said(1, 1..=200, 10));
        assert_eq!((exactly.frames.len(), exactly.resync.len()), (MESSAGES_MAX, 0));
    }

    #[test]
    fn many_large_ones_are_cut_by_their_bytes() {
        let greeting = greeting(&[(room(1), 100)].into(), said(1, 1..=100, BYTES_MAX / 50));
        assert_eq!((greeting.delivered[&room(1)], greeting.resync.len()), (50, 1));
    }
}
