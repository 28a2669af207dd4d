//! The read model in Redis, from facts. One pipeline a batch; what one conversation learns several times in a batch is
//! written once. Everything here can be lost: readers fall back to Postgres.

use std::collections::BTreeMap;

use sdk::redis::Pipeline;
use sdk::{Id, event::Event, keys};

use crate::events::Fact;

/// What a batch teaches about one conversation.
#[derive(Default)]
struct Conversation<'a> {
    /// Message JSON by seq; none where the message is to be forgotten.
    messages: BTreeMap<u64, Option<&'a str>>,
    /// The newest message's place and time.
    head: Option<(u64, u64)>,
    /// Not only appended to: what stood at these seqs is replaced.
    replaced: Vec<u64>,
    people_changed: bool,
}

/// The commands for what these facts change, and a line for each event in the stream of events.
pub fn pipeline(facts: &[Fact<'_>], events: &[Event]) -> Pipeline {
    let mut pipeline = Pipeline::new();
    let mut conversations: BTreeMap<Id, Conversation<'_>> = BTreeMap::new();
    for fact in facts {
        match fact {
            Fact::Message { conversation, seq, json, at_ms, is_new } => {
                let learned = conversations.entry(*conversation).or_default();
                learned.messages.insert(*seq, Some(json));
                if *is_new {
                    learned.head = Some((*seq, *at_ms));
                } else {
                    learned.replaced.push(*seq);
                }
            }
            Fact::Forget { conversation, seq } => {
                let learned = conversations.entry(*conversation).or_default();
                learned.messages.insert(*seq, None);
                learned.replaced.push(*seq);
            }
            Fact::Listed { user, conversation, at_ms } => {
                let list = keys::list(user);
                pipeline.push(&["ZADD", &list, &at_ms.to_string(), &conversation.to_string()]);
                pipeline.push(&["ZREMRANGEBYRANK", &list, "0", &format!("-{}", keys::LIST_MAX + 1)]);
            }
            Fact::Unlisted { user, conversation } => {
                pipeline.push(&["ZREM", &keys::list(user), &conversation.to_string()]);
            }
            Fact::Changed { conversation } => {
                conversations.entry(*conversation).or_default().people_changed = true;
            }
        }
    }
    for (id, learned) in &conversations {
        learned.write(*id, &mut pipeline);
    }
    for event in events {
        let most = keys::EVENTS_MAX.to_string();
        // Names and places only: what people write is not for analytics.
        pipeline.push(&[
            "XADD",
            keys::EVENTS,
            "MAXLEN",
            "~",
            &most,
            "*",
            "type",
            &event.event_type,
            "key",
            &event.key,
            "id",
            &event.id,
            "at",
            &event.at_ms.to_string(),
        ]);
    }
    pipeline
}

impl Conversation<'_> {
    fn write(&self, id: Id, pipeline: &mut Pipeline) {
        let recent = keys::recent(id);
        for seq in &self.replaced {
            let seq = seq.to_string();
            pipeline.push(&["ZREMRANGEBYSCORE", &recent, &seq, &seq]);
        }
        let kept: Vec<_> =
            self.messages.iter().filter_map(|(seq, json)| json.map(|json| (seq.to_string(), json))).collect();
        // Only the last are kept, so more of one batch need not be written at all.
        let kept = &kept[kept.len().saturating_sub(keys::RECENT_MAX)..];
        for (seq, json) in kept {
            pipeline.push(&["ZADD", &recent, seq, json]);
        }
        if !kept.is_empty() {
            pipeline.push(&["ZREMRANGEBYRANK", &recent, "0", &format!("-{}", keys::RECENT_MAX + 1)]);
            pipeline.push(&["EXPIRE", &recent, &keys::RECENT_TTL_S.to_string()]);
        }
        if let Some((seq, at_ms)) = self.head {
            pipeline.push(&[
                "HSET",
                &keys::meta(id),
                "head",
                &seq.to_string(),
                "last_at",
                &at_ms.to_string(),
            ]);
        }
        if !self.messages.is_empty() {
            pipeline.push(&["UNLINK", &keys::unread(id)]);
        }
        if self.people_changed {
            pipeline.push(&["UNLINK", &keys::participants(id)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn message(seq: u64, is_new: bool) -> Fact<'static> {
        let conversation = Id::parse(ROOM).unwrap();
        Fact::Message { conversation, seq, json: "{}", at_ms: 5, is_new }
    }

    fn written(facts: &[Fact<'_>]) -> Vec<String> {
        pipeline(facts, &[]).commands().iter().map(|command| command.join(" ")).collect()
    }

    #[test]
    fn a_conversation_is_written_once_a_batch() {
        assert_eq!(
            written(&[message(1, true), message(2, true)]),
            [
                format!("ZADD recent:{ROOM} 1 {{}}"),
                format!("ZADD recent:{ROOM} 2 {{}}"),
                format!("ZREMRANGEBYRANK recent:{ROOM} 0 -101"),
                format!("EXPIRE recent:{ROOM} 2592000"),
                format!("HSET meta:{ROOM} head 2 last_at 5"),
                format!("UNLINK unread:{ROOM}"),
            ]
        );
    }

    #[test]
    fn an_edit_replaces_what_stood_there() {
        let written = written(&[message(1, false)]);
        assert_eq!(written[0], format!("ZREMRANGEBYSCORE recent:{ROOM} 1 1"));
        assert!(!written.iter().any(|command| command.starts_with("HSET")));
    }

    #[test]
    fn only_as_many_messages_as_are_kept_are_written() {
        let facts: Vec<_> = (1..=300).map(|seq| message(seq, true)).collect();
        let written = written(&facts);
        assert_eq!(written.iter().filter(|command| command.starts_with("ZADD")).count(), keys::RECENT_MAX);
        assert!(written[0].starts_with(&format!("ZADD recent:{ROOM} 201 ")));
    }
}
