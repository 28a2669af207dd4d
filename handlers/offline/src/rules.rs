//! Decides how many missed messages are sent, and for which conversations the client must resync. Pure: no
//! host calls, so plain `cargo test` runs it.

use std::collections::BTreeMap;

use sdk::Id;
use serde::Deserialize;

/// The messages that are sent. The client requests the rest by `history`.
pub(crate) const MESSAGES_MAX: usize = 200;
/// The size of all sent messages. They wait in the queue of a connection that has not read anything yet.
pub(crate) const BYTES_MAX: usize = 1024 * 1024;

/// A conversation with messages that the user missed.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Waiting {
    pub conversation_id: String,
    /// The user missed the messages above this seq.
    pub after: u64,
    pub head: u64,
}

/// A missed message. Messages are in the order in which they were sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub conversation: Id,
    pub seq: u64,
    pub frame: String,
}

/// The messages to send.
#[derive(Debug, PartialEq)]
pub(crate) struct Delivery {
    pub frames: Vec<String>,
    /// The seq up to which each conversation is delivered with them.
    pub delivered: BTreeMap<Id, u64>,
    /// The conversations with more missed messages.
    pub resync: Vec<Id>,
}

/// Selects the messages to send. `messages` has one message more than `MESSAGES_MAX` if there are that many.
pub(crate) fn delivery(waiting: &BTreeMap<Id, u64>, messages: Vec<Message>) -> Delivery {
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
    // The messages of all conversations are in one order. Once some are left out, any conversation may lack
    // some.
    let lacks = |(id, head): (&Id, &u64)| (delivered.get(id).unwrap_or(&0) < head).then_some(*id);
    let resync = if fitting < all { waiting.iter().filter_map(lacks).collect() } else { Vec::new() };
    Delivery { frames, delivered, resync }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(n: u8) -> Id {
        Id::at(u64::from(n), &[0; 10])
    }

    fn messages_of(conversation_n: u8, seqs: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<Message> {
        seqs.map(|seq| Message { conversation: conversation(conversation_n), seq, frame: "x".repeat(bytes) })
            .collect()
    }

    #[test]
    fn messages_that_fit_are_sent_and_marked_as_delivered() {
        let waiting = [(conversation(1), 5), (conversation(2), 9)].into();
        let mut messages = messages_of(1, 4..=5, 10);
        messages.extend(messages_of(2, 9..=9, 10));
        let delivery = delivery(&waiting, messages);
        assert_eq!((delivery.frames.len(), delivery.resync.len()), (3, 0));
        assert_eq!(delivery.delivered, [(conversation(1), 5), (conversation(2), 9)].into());
    }

    #[test]
    fn at_most_two_hundred_are_sent_and_incomplete_conversations_are_named() {
        let waiting = [(conversation(1), 201), (conversation(2), 40), (conversation(3), 7)].into();
        let mut messages = messages_of(2, 40..=40, 10);
        messages.extend(messages_of(1, 1..=200, 10));
        let delivery = delivery(&waiting, messages);
        assert_eq!(delivery.frames.len(), MESSAGES_MAX);
        assert_eq!(delivery.delivered[&conversation(1)], 199);
        // No message of the third one was sent; the second one is complete.
        assert_eq!(delivery.resync, [conversation(1), conversation(3)]);
        let exactly = super::delivery(&[(conversation(1), 200)].into(), messages_of(1, 1..=200, 10));
        assert_eq!((exactly.frames.len(), exactly.resync.len()), (MESSAGES_MAX, 0));
    }

    #[test]
    fn large_messages_are_limited_by_their_size() {
        let delivery = delivery(&[(conversation(1), 100)].into(), messages_of(1, 1..=100, BYTES_MAX / 50));
        assert_eq!((delivery.delivered[&conversation(1)], delivery.resync.len()), (50, 1));
    }
}
