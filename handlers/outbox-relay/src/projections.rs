//! Writes facts to the read model in Redis, with one pipeline per batch. Several facts about one conversation
//! are written once. Redis may lose all of it: readers then read Postgres and restore it (`lists`).

mod preview;

use chat::keys;
use std::collections::{BTreeMap, BTreeSet};

use preview::Preview;
use sdk::redis::{Pipeline, Reply};
use sdk::{Id, event::Event};

use crate::events::Fact;

/// The facts of a batch about one conversation.
#[derive(Default)]
struct Conversation<'a> {
    /// The seq and the JSON of the newest message.
    head: Option<(u64, &'a str)>,
    /// The number of the newest edit or deletion.
    change: Option<u64>,
    people_changed: bool,
}

/// The commands that write the facts, and add each event to the stream of events.
pub(crate) fn pipeline(facts: &[Fact<'_>], events: &[Event]) -> Pipeline {
    let mut pipeline = Pipeline::new();
    let mut conversations: BTreeMap<Id, Conversation<'_>> = BTreeMap::new();
    let mut changed_lists: BTreeSet<&str> = BTreeSet::new();
    for fact in facts {
        match fact {
            Fact::Message { conversation, seq, json } => {
                conversations.entry(*conversation).or_default().head = Some((*seq, json));
            }
            Fact::MessageChanged { conversation, change } => {
                conversations.entry(*conversation).or_default().change = Some(*change);
            }
            // The list is deleted, not changed: an addition to a lost list would restore it with this
            // conversation alone.
            Fact::ListChanged { user } => {
                changed_lists.insert(user);
            }
            Fact::ConversationChanged { conversation } => {
                conversations.entry(*conversation).or_default().people_changed = true;
            }
        }
    }
    for user in changed_lists {
        pipeline.push(&["UNLINK", &keys::list(user)]);
    }
    for (id, facts) in &conversations {
        facts.write(*id, &mut pipeline);
    }
    for event in events {
        let most = keys::EVENTS_MAX.to_string();
        // The stream is for analytics, so it contains no message text.
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

/// The commands that delete the keys that could not be written, for instance because Redis is full. Their
/// values are outdated; readers find a missing key in Postgres. The stream of events is left alone.
pub(crate) fn unwritten(pipeline: &Pipeline, replies: &[Reply]) -> Pipeline {
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

    /// A message costs one write, however many lists it moves in.
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
            // The changed message may be the last one, so the next reader reads it from Postgres.
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

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";
    const JSON: &str =
        r#"{"id":"m","sender_id":"ana","type":"text","content":"x","created_at":"2025-11-20T06:00:00.123Z"}"#;

    fn message(seq: u64) -> Fact<'static> {
        Fact::Message { conversation: Id::parse(CONVERSATION).unwrap(), seq, json: JSON }
    }

    fn written(facts: &[Fact<'_>]) -> Vec<String> {
        pipeline(facts, &[]).commands().iter().map(|command| command.join(" ")).collect()
    }

    #[test]
    fn a_conversation_is_written_once_per_batch() {
        assert_eq!(
            written(&[message(1), message(2)]),
            [format!(
                r#"HSET meta:{CONVERSATION} head 2 activity m last {{"id":"m","seq":2,"sender_id":"ana","type":"text","content":"x","created_at":"2025-11-20T06:00:00.123Z"}}"#
            )]
        );
    }

    #[test]
    fn a_change_sends_readers_to_postgres_for_the_last_message() {
        let conversation = Id::parse(CONVERSATION).unwrap();
        let moved = Fact::MessageChanged { conversation, change: 4 };
        assert_eq!(
            written(&[message(7), moved]),
            [
                format!("HSET meta:{CONVERSATION} change 4"),
                format!("HDEL meta:{CONVERSATION} head activity last")
            ]
        );
    }

    #[test]
    fn the_list_of_a_user_who_joins_or_leaves_is_deleted() {
        let changed_lists = |user: &str| Fact::ListChanged { user: user.to_owned() };
        assert_eq!(
            written(&[changed_lists("bo"), changed_lists("ana"), changed_lists("bo")]),
            ["UNLINK list:ana", "UNLINK list:bo"]
        );
    }

    #[test]
    fn a_key_that_was_not_written_is_deleted() {
        let pipeline = pipeline(&[message(1)], &[]);
        let mut replies = vec![Reply::Integer(1); pipeline.commands().len()];
        assert!(unwritten(&pipeline, &replies).is_empty());
        for (command, reply) in pipeline.commands().iter().zip(&mut replies) {
            if command[0] == "HSET" {
                *reply = Reply::Failed("OOM command not allowed".into());
            }
        }
        let drops = unwritten(&pipeline, &replies);
        assert_eq!(drops.commands(), [["UNLINK".to_owned(), format!("meta:{CONVERSATION}")]]);
    }
}
