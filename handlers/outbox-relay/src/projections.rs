//! The read model in Redis, from facts. One pipeline a batch; what one conversation learns several times in a batch is
//! written once. Everything here can be lost: readers fall back to Postgres, and put back what they found (`lists`).

mod preview;

use chat::keys;
use std::collections::{BTreeMap, BTreeSet};

use preview::Preview;
use sdk::redis::{Pipeline, Reply};
use sdk::{Id, event::Event};

use crate::events::Fact;

/// What a batch teaches about one conversation.
#[derive(Default)]
struct Conversation<'a> {
    /// The seq and the JSON of the newest message.
    head: Option<(u64, &'a str)>,
    /// The number of the newest edit or deletion.
    change: Option<u64>,
    people_changed: bool,
}

/// The commands for what these facts change, and a line for each event in the stream of events.
pub fn pipeline(facts: &[Fact<'_>], events: &[Event]) -> Pipeline {
    let mut pipeline = Pipeline::new();
    let mut conversations: BTreeMap<Id, Conversation<'_>> = BTreeMap::new();
    let mut relisted: BTreeSet<&str> = BTreeSet::new();
    for fact in facts {
        match fact {
            Fact::Message { conversation, seq, json } => {
                conversations.entry(*conversation).or_default().head = Some((*seq, json));
            }
            Fact::Moved { conversation, change } => {
                conversations.entry(*conversation).or_default().change = Some(*change);
            }
            // Not added to: a set that was lost would come back with this one alone.
            Fact::Relisted { user } => {
                relisted.insert(user);
            }
            Fact::Changed { conversation } => {
                conversations.entry(*conversation).or_default().people_changed = true;
            }
        }
    }
    for user in relisted {
        pipeline.push(&["UNLINK", &keys::list(user)]);
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

/// Drops what was to be written and was not, because Redis is full, say: what stands there now is not true any more, and
/// what is missing readers find in Postgres. The stream of events is for analytics only.
pub fn unwritten(pipeline: &Pipeline, replies: &[Reply]) -> Pipeline {
    let mut drops = Pipeline::new();
    for (command, reply) in pipeline.commands().iter().zip(replies) {
        if let ([name, key, ..], Reply::Failed(_)) = (&command[..], reply)
            && name != "XADD"
        {
            drops.push(&["UNLINK", key]);
        }
    }
    drops
}

impl Conversation<'_> {
    fn write(&self, id: Id, pipeline: &mut Pipeline) {
        self.write_meta(&keys::meta(id), pipeline);
        if self.people_changed {
            pipeline.push(&["UNLINK", &keys::participants(id)]);
        }
    }

    /// One write for a message, however many lists it moves in.
    fn write_meta(&self, meta: &str, pipeline: &mut Pipeline) {
        if let Some(change) = self.change {
            pipeline.push(&["HSET", meta, "change", &change.to_string()]);
        }
        let preview = self.head.and_then(|(seq, json)| Some((seq, Preview::of(json)?)));
        match (preview, self.change) {
            (Some((seq, preview)), None) => {
                let (seq, last) = (seq.to_string(), preview.json(seq));
                pipeline.push(&["HSET", meta, "head", &seq, "activity", preview.id, "last", &last]);
            }
            // The last message may be the one that changed: whoever reads next looks it up.
            _ if self.head.is_some() || self.change.is_some() => {
                pipeline.push(&["HDEL", meta, "head", "activity", "last"]);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";
    const JSON: &str =
        r#"{"id":"m","sender_id":"ana","type":"text","content":"x","created_at":"2025-11-20T06:00:00.123Z"}"#;

    fn message(seq: u64) -> Fact<'static> {
        Fact::Message { conversation: Id::parse(ROOM).unwrap(), seq, json: JSON }
    }

    fn written(facts: &[Fact<'_>]) -> Vec<String> {
        pipeline(facts, &[]).commands().iter().map(|command| command.join(" ")).collect()
    }

    #[test]
    fn a_conversation_is_written_once_a_batch() {
        assert_eq!(
            written(&[message(1), message(2)]),
            [format!(
                r#"HSET meta:{ROOM} head 2 activity m last {{"id":"m","seq":2,"sender_id":"ana","type":"text","content":"x","created_at":"2025-11-20T06:00:00.123Z"}}"#
            )]
        );
    }

    #[test]
    fn a_change_sends_readers_to_postgres_for_the_last_message() {
        let conversation = Id::parse(ROOM).unwrap();
        let moved = Fact::Moved { conversation, change: 4 };
        assert_eq!(
            written(&[message(7), moved]),
            [format!("HSET meta:{ROOM} change 4"), format!("HDEL meta:{ROOM} head activity last")]
        );
    }

    #[test]
    fn who_comes_or_goes_has_another_list() {
        let relisted = |user: &str| Fact::Relisted { user: user.to_owned() };
        assert_eq!(
            written(&[relisted("bo"), relisted("ana"), relisted("bo")]),
            ["UNLINK list:ana", "UNLINK list:bo"]
        );
    }

    #[test]
    fn what_was_not_written_is_dropped() {
        let pipeline = pipeline(&[message(1)], &[]);
        let mut replies = vec![Reply::Integer(1); pipeline.commands().len()];
        assert!(unwritten(&pipeline, &replies).is_empty());
        for (command, reply) in pipeline.commands().iter().zip(&mut replies) {
            if command[0] == "HSET" {
                *reply = Reply::Failed("OOM command not allowed".into());
            }
        }
        let drops = unwritten(&pipeline, &replies);
        assert_eq!(drops.commands(), [["UNLINK".to_owned(), format!("meta:{ROOM}")]]);
    }
}
