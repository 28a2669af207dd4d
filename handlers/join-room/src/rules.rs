//! Reads subscribe requests, and decides which messages a client lacks. Pure: no host calls, so plain
//! `cargo test` runs it.

use chat::address;
use std::collections::{BTreeMap, BTreeSet};

use chat::membership::ConversationName;
use sdk::json::Object;
use sdk::{Id, Problem};
use serde_json::Value;

/// The conversations of one frame. A client that needs more sends several frames.
pub(crate) const CONVERSATIONS_MAX: usize = 200;
pub(crate) const TOPICS_MAX: usize = 50;
/// The conversations of one frame that joins them, because each join is a transaction of its own.
pub(crate) const JOINS_MAX: usize = 20;
/// The missed messages that are sent one by one. A client that lacks more requests `history` instead.
pub(crate) const MISSED_MAX: u64 = 1000;

/// The longest epoch that a client may send. A position epoch is a UUID, but a client could send any text.
pub(crate) const EPOCH_BYTES_MAX: usize = 64;

/// A client's position in a conversation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClientPosition {
    pub seq: u64,
    /// `None` if the position is only a seq, because the client does not count changes.
    pub change: Option<u64>,
    /// The last position epoch that the client received; `None` for a client without support for epochs.
    pub epoch: Option<String>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Selection {
    /// The names as the client wrote them, without duplicates. An invalid name is answered with `not_found`.
    pub conversations: Vec<(String, Option<ConversationName>)>,
    pub client_positions: BTreeMap<ConversationName, ClientPosition>,
    pub topics: Vec<String>,
    /// Whether the caller joins public channels first.
    pub join: bool,
}

impl Selection {
    /// Reads `subscribe`, or its aliases `chat:join` and `join_room`, which name one conversation and join
    /// it.
    pub(crate) fn subscribe(mut payload: Object, alias: bool) -> Result<Self, Problem> {
        check_names(&payload)?;
        let conversations = conversations(&mut payload)?;
        let join = payload.boolean("join")?.unwrap_or(alias);
        if join && conversations.len() > JOINS_MAX {
            let rule = format!("has more than {JOINS_MAX} entries to join");
            return Err(Problem::invalid("conversation_ids", rule));
        }
        let client_positions = client_positions(&mut payload)?;
        Ok(Self { conversations, client_positions, topics: topics(&mut payload)?, join })
    }

    pub(crate) fn unsubscribe(mut payload: Object) -> Result<Self, Problem> {
        check_names(&payload)?;
        let conversations = conversations(&mut payload)?;
        Ok(Self {
            conversations,
            client_positions: BTreeMap::new(),
            topics: topics(&mut payload)?,
            join: false,
        })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &ConversationName> {
        self.conversations.iter().filter_map(|(_, name)| name.as_ref())
    }

    /// Replaces names by the ids that were found.
    pub(crate) fn resolve(self, ids: &BTreeMap<ConversationName, Id>) -> ResolvedSelection {
        let mut found =
            ResolvedSelection { join: self.join, topics: self.topics, ..ResolvedSelection::default() };
        for (written, name) in self.conversations {
            match name.as_ref().and_then(|name| ids.get(name)) {
                None => found.unknown.push(written),
                Some(id) => {
                    if let Some(ConversationName::Slug(slug)) = name {
                        found.slugs.insert(slug, *id);
                    }
                    if !found.ids.contains(id) {
                        found.ids.push(*id);
                    }
                }
            }
        }
        for (name, position) in &self.client_positions {
            // A position in a conversation that is not named is ignored.
            if let Some(id) = ids.get(name) {
                found.client_positions.insert(*id, position.clone());
            }
        }
        found
    }
}

/// A selection whose names are resolved to ids.
#[derive(Debug, Default)]
pub(crate) struct ResolvedSelection {
    /// The ids without duplicates, in the order in which the client named them.
    pub ids: Vec<Id>,
    /// The ids of the slugs that the client used.
    pub slugs: BTreeMap<String, Id>,
    /// The names, as the client wrote them, of no conversation that this user can see.
    pub unknown: Vec<String>,
    pub client_positions: BTreeMap<Id, ClientPosition>,
    pub topics: Vec<String>,
    pub join: bool,
}

/// Checks that the payload names conversations or topics. Empty lists are valid: a reconnecting client may
/// have none.
fn check_names(payload: &Object) -> Result<(), Problem> {
    let names = ["conversation_ids", "conversation_id", "topics"];
    let found = names.iter().any(|name| payload.has(name) && !payload.is_null(name));
    if found { Ok(()) } else { Err(Problem::invalid("conversation_ids", "is required, or topics")) }
}

fn conversations(payload: &mut Object) -> Result<Vec<(String, Option<ConversationName>)>, Problem> {
    let mut names = payload.texts("conversation_ids", CONVERSATIONS_MAX)?.unwrap_or_default();
    names.extend(payload.text("conversation_id")?);
    // One id can be written in upper and in lower case.
    let mut seen = BTreeSet::new();
    let named = names.into_iter().map(|written| (ConversationName::parse(&written), written));
    let once = named.filter(|(name, written)| {
        seen.insert(match name {
            Some(ConversationName::Id(id)) => id.to_string(),
            _ => written.clone(),
        })
    });
    Ok(once.map(|(name, written)| (written, name)).collect())
}

fn topics(payload: &mut Object) -> Result<Vec<String>, Problem> {
    let mut topics = payload.texts("topics", TOPICS_MAX)?.unwrap_or_default();
    topics.sort_unstable();
    topics.dedup();
    match topics.iter().find(|topic| address::topic(topic).is_none()) {
        None => Ok(topics),
        Some(_) => Err(Problem::invalid("topics", "holds a name that is not 1 to 128 bytes without spaces")),
    }
}

fn client_positions(payload: &mut Object) -> Result<BTreeMap<ConversationName, ClientPosition>, Problem> {
    let mut client_positions = BTreeMap::new();
    for (name, value) in payload.map("positions", CONVERSATIONS_MAX)?.unwrap_or_default() {
        let field = format!("positions.{name}");
        let position = match value {
            Value::Number(number) => {
                ClientPosition { seq: seq(number.as_u64(), &field)?, change: None, epoch: None }
            }
            Value::Object(_) => {
                let mut position = Object::of(value, &field)?;
                let seq = seq(position.number("seq")?, &format!("{field}.seq"))?;
                let change = position.number("change")?;
                ClientPosition { seq, change, epoch: epoch(position.text("epoch")?, &field)? }
            }
            _ => return Err(Problem::invalid(field, "is neither a seq nor {seq, change, epoch}")),
        };
        // A position with an invalid name is ignored.
        if let Some(name) = ConversationName::parse(&name) {
            client_positions.insert(name, position);
        }
    }
    Ok(client_positions)
}

fn epoch(name: Option<String>, field: &str) -> Result<Option<String>, Problem> {
    match name {
        Some(name) if name.is_empty() || name.len() > EPOCH_BYTES_MAX => {
            let rule = format!("is not 1 to {EPOCH_BYTES_MAX} bytes");
            Err(Problem::invalid(format!("{field}.epoch"), rule))
        }
        name => Ok(name.map(|name| name.to_ascii_lowercase())),
    }
}

fn seq(number: Option<u64>, field: &str) -> Result<u64, Problem> {
    number
        .filter(|number| i64::try_from(*number).is_ok())
        .ok_or_else(|| Problem::invalid(field, "is not a whole number, zero or more"))
}

/// The heads of a conversation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Heads {
    pub seq: u64,
    pub change: u64,
}

/// The point at which a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Start {
    /// The client has everything up to here.
    pub after: Heads,
    /// Whether the client lacks messages between `after` and the heads.
    pub missed: bool,
    /// Whether the client has messages that this history lacks, because a failover or a restore lost them.
    pub has_lost: bool,
}

impl Heads {
    /// Decides where a subscription begins. Without a position it begins at the heads. A position above the
    /// heads, or above `common`, is lowered to them; otherwise the client would never get the messages below
    /// its position.
    pub(crate) fn start(&self, position: Option<&ClientPosition>, common: Option<Heads>) -> Start {
        let Some(position) = position else { return Start { after: *self, missed: false, has_lost: false } };
        let most = common.map_or(*self, |common| common.and(*self));
        let change = position.change.unwrap_or(most.change);
        let after = most.and(Heads { seq: position.seq, change });
        let has_lost = position.seq > after.seq || change > after.change;
        Start { after, missed: after != *self, has_lost }
    }

    /// The smaller of both, on each track.
    pub(crate) fn and(self, other: Heads) -> Heads {
        Heads { seq: self.seq.min(other.seq), change: self.change.min(other.change) }
    }

    /// Whether the messages after `after` are too many to be sent one by one.
    pub(crate) fn is_too_far_from(&self, after: Heads) -> bool {
        self.seq.saturating_sub(after.seq) > MISSED_MAX
            || self.change.saturating_sub(after.change) > MISSED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn selection(payload: Value) -> Result<Selection, Problem> {
        Selection::subscribe(Object::parse(payload.to_string().as_bytes()).unwrap(), false)
    }

    #[test]
    fn a_selection_has_conversations_positions_and_topics() {
        let id = Id::parse(CONVERSATION).unwrap();
        let conversation = ConversationName::Id(id);
        let full = selection(json!({
            "conversation_ids": [CONVERSATION, "No Name", CONVERSATION, CONVERSATION.to_uppercase(), "lobby", "mine"],
            "positions": { CONVERSATION: { "seq": 3, "change": 1, "epoch": "E1" }, "lobby": 7, "No Name": 7, "gone": 7 },
            "topics": ["match:31", "match:31"],
        }))
        .unwrap();
        assert_eq!(
            full.conversations[..2],
            [(CONVERSATION.to_owned(), Some(conversation.clone())), ("No Name".to_owned(), None)]
        );
        assert_eq!(
            full.client_positions[&conversation],
            ClientPosition { seq: 3, change: Some(1), epoch: Some("e1".to_owned()) }
        );
        assert_eq!((full.topics.len(), full.join), (1, false));

        // `mine` is the slug of the conversation that was also named by its id; `lobby` does not exist.
        let mine = ConversationName::Slug("mine".to_owned());
        let found = full.resolve(&[(conversation.clone(), id), (mine, id)].into());
        assert_eq!(
            (&found.ids[..], &found.unknown[..]),
            (&[id][..], &["No Name".to_owned(), "lobby".to_owned()][..])
        );
        assert_eq!((found.slugs, found.client_positions.len()), ([("mine".to_owned(), id)].into(), 1));
        let seq_only =
            selection(json!({ "conversation_ids": [CONVERSATION], "positions": { CONVERSATION: 5 } }))
                .unwrap();
        assert_eq!(
            seq_only.client_positions[&conversation],
            ClientPosition { seq: 5, change: None, epoch: None }
        );
    }

    #[test]
    fn empty_lists_are_valid() {
        for nothing in [json!({ "conversation_ids": [] }), json!({ "topics": [] })] {
            assert!(selection(nothing).unwrap().conversations.is_empty());
        }
    }

    #[test]
    fn an_alias_names_one_conversation_and_joins_it() {
        let payload =
            Object::parse(json!({ "conversation_id": CONVERSATION }).to_string().as_bytes()).unwrap();
        let alias = Selection::subscribe(payload, true).unwrap();
        assert!(alias.join && alias.conversations.len() == 1);
    }

    #[test]
    fn an_error_names_its_field() {
        for (field, payload) in [
            ("conversation_ids", json!({})),
            ("conversation_ids", json!({ "conversation_ids": null })),
            ("conversation_ids", json!({ "conversation_ids": CONVERSATION })),
            ("conversation_ids", json!({ "conversation_ids": vec!["x"; 201] })),
            (
                "conversation_ids",
                json!({ "conversation_ids": (0..21).map(|i| i.to_string()).collect::<Vec<_>>(), "join": true }),
            ),
            ("conversation_ids[0]", json!({ "conversation_ids": [7] })),
            ("positions", json!({ "conversation_ids": [CONVERSATION], "positions": [] })),
            ("positions.x", json!({ "conversation_ids": [CONVERSATION], "positions": { "x": -1 } })),
            ("positions.x", json!({ "conversation_ids": [CONVERSATION], "positions": { "x": 1.5 } })),
            ("positions.x", json!({ "conversation_ids": [CONVERSATION], "positions": { "x": "7" } })),
            ("positions.x", json!({ "conversation_ids": [CONVERSATION], "positions": { "x": u64::MAX } })),
            ("positions.x.seq", json!({ "conversation_ids": [CONVERSATION], "positions": { "x": {} } })),
            (
                "positions.x.epoch",
                json!({ "conversation_ids": [CONVERSATION], "positions": { "x": { "seq": 1, "epoch": "" } } }),
            ),
            ("topics", json!({ "topics": ["a b"] })),
            ("topics", json!({ "topics": vec!["x"; 51] })),
            ("join", json!({ "conversation_ids": [CONVERSATION], "join": "yes" })),
        ] {
            assert_eq!(selection(payload).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_subscription_begins_at_the_clients_position_or_at_the_heads() {
        let heads = Heads { seq: 10, change: 4 };
        let start = |position: Option<(u64, Option<u64>)>, common| {
            let position = position.map(|(seq, change)| ClientPosition { seq, change, epoch: None });
            let started = heads.start(position.as_ref(), common);
            assert_eq!(started.missed, started.after != heads);
            (started.after.seq, started.after.change, started.has_lost)
        };
        assert_eq!(start(None, None), (10, 4, false));
        assert_eq!(start(Some((10, None)), None), (10, 4, false));
        assert_eq!(start(Some((7, None)), None), (7, 4, false));
        assert_eq!(start(Some((10, Some(1))), None), (10, 1, false));
        // A position above the head is not in this history.
        assert_eq!(start(Some((999, Some(999))), None), (10, 4, true));
        assert_eq!(start(Some((11, None)), None), (10, 4, true));
        // In an older epoch only the common part counts.
        let common = Some(Heads { seq: 8, change: 3 });
        assert_eq!(start(Some((9, Some(3))), common), (8, 3, true));
        assert_eq!(start(Some((8, Some(4))), common), (8, 3, true));
        assert_eq!(start(Some((7, Some(2))), common), (7, 2, false));
        assert_eq!(start(Some((7, None)), common), (7, 3, false));
        // An unknown epoch has no common part.
        assert_eq!(start(Some((7, Some(2))), Some(Heads { seq: 0, change: 0 })), (0, 0, true));
    }

    #[test]
    fn more_than_a_thousand_missed_messages_are_too_many() {
        let heads = Heads { seq: 1500, change: 0 };
        assert!(heads.is_too_far_from(Heads { seq: 499, change: 0 }));
        assert!(!heads.is_too_far_from(Heads { seq: 500, change: 0 }));
    }
}
