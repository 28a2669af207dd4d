//! What a client asks to see, and what it lacks. Pure: no host calls, so plain `cargo test` runs it.

use chat::address;
use std::collections::{BTreeMap, BTreeSet};

use chat::membership::Name;
use sdk::json::Object;
use sdk::{Id, Problem};
use serde_json::Value;

/// Of one frame; a client with more sends several.
pub const CONVERSATIONS_MAX: usize = 200;
pub const TOPICS_MAX: usize = 50;
/// Of one frame that joins: each is a transaction of its own.
pub const JOINS_MAX: usize = 20;
/// Who lacks more pages `history` instead.
pub const MISSED_MAX: u64 = 1000;

/// A position epoch is a UUID; a client may send anything.
pub const EPOCH_BYTES_MAX: usize = 64;

/// Where a client stands in a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Stand {
    pub seq: u64,
    /// Absent in a position that is just a seq: the client counts no changes.
    pub change: Option<u64>,
    /// The position epoch that the client was last told. Absent where the client does not know of epochs.
    pub epoch: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct Wish {
    /// As the client wrote them, each once. What can name no conversation is answered like one that is not there.
    pub conversations: Vec<(String, Option<Name>)>,
    pub stands: BTreeMap<Name, Stand>,
    pub topics: Vec<String>,
    /// Become a participant of public channels first.
    pub join: bool,
}

impl Wish {
    /// `subscribe`, or `chat:join` and `join_room`, which name one conversation and join it.
    pub fn subscribe(mut payload: Object, alias: bool) -> Result<Self, Problem> {
        names_something(&payload)?;
        let conversations = conversations(&mut payload)?;
        let join = payload.boolean("join")?.unwrap_or(alias);
        if join && conversations.len() > JOINS_MAX {
            let rule = format!("has more than {JOINS_MAX} entries to join");
            return Err(Problem::invalid("conversation_ids", rule));
        }
        let stands = stands(&mut payload)?;
        Ok(Self { conversations, stands, topics: topics(&mut payload)?, join })
    }

    pub fn unsubscribe(mut payload: Object) -> Result<Self, Problem> {
        names_something(&payload)?;
        let conversations = conversations(&mut payload)?;
        Ok(Self { conversations, stands: BTreeMap::new(), topics: topics(&mut payload)?, join: false })
    }

    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.conversations.iter().filter_map(|(_, name)| name.as_ref())
    }

    /// With the conversations that this user means.
    pub fn found(self, ids: &BTreeMap<Name, Id>) -> Found {
        let mut found = Found { join: self.join, topics: self.topics, ..Found::default() };
        for (written, name) in self.conversations {
            match name.as_ref().and_then(|name| ids.get(name)) {
                None => found.unknown.push(written),
                Some(id) => {
                    if let Some(Name::Slug(slug)) = name {
                        found.slugs.insert(slug, *id);
                    }
                    if !found.ids.contains(id) {
                        found.ids.push(*id);
                    }
                }
            }
        }
        for (name, stand) in &self.stands {
            // A position in a conversation that is not named matters to nobody.
            if let Some(id) = ids.get(name) {
                found.stands.insert(*id, stand.clone());
            }
        }
        found
    }
}

/// A wish whose conversations are known.
#[derive(Debug, Default)]
pub struct Found {
    /// Each once, in the order in which they were named.
    pub ids: Vec<Id>,
    /// Those that were named by a slug.
    pub slugs: BTreeMap<String, Id>,
    /// What names no conversation of this user, as it was written.
    pub unknown: Vec<String>,
    pub stands: BTreeMap<Id, Stand>,
    pub topics: Vec<String>,
    pub join: bool,
}

/// Empty lists are fine: a client that comes back may have nothing.
fn names_something(payload: &Object) -> Result<(), Problem> {
    let names = ["conversation_ids", "conversation_id", "topics"];
    let found = names.iter().any(|name| payload.has(name) && !payload.is_null(name));
    if found { Ok(()) } else { Err(Problem::invalid("conversation_ids", "is required, or topics")) }
}

fn conversations(payload: &mut Object) -> Result<Vec<(String, Option<Name>)>, Problem> {
    let mut names = payload.texts("conversation_ids", CONVERSATIONS_MAX)?.unwrap_or_default();
    names.extend(payload.text("conversation_id")?);
    // One id can be written in two ways.
    let mut seen = BTreeSet::new();
    let named = names.into_iter().map(|written| (Name::parse(&written), written));
    let once = named.filter(|(name, written)| {
        seen.insert(match name {
            Some(Name::Id(id)) => id.to_string(),
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

fn stands(payload: &mut Object) -> Result<BTreeMap<Name, Stand>, Problem> {
    let mut stands = BTreeMap::new();
    for (name, value) in payload.map("positions", CONVERSATIONS_MAX)?.unwrap_or_default() {
        let field = format!("positions.{name}");
        let stand = match value {
            Value::Number(number) => Stand { seq: seq(number.as_u64(), &field)?, change: None, epoch: None },
            Value::Object(_) => {
                let mut position = Object::of(value, &field)?;
                let seq = seq(position.number("seq")?, &format!("{field}.seq"))?;
                let change = position.number("change")?;
                Stand { seq, change, epoch: epoch(position.text("epoch")?, &field)? }
            }
            _ => return Err(Problem::invalid(field, "is neither a seq nor {seq, change, epoch}")),
        };
        // A position in something that can have no name matters to nobody.
        if let Some(name) = Name::parse(&name) {
            stands.insert(name, stand);
        }
    }
    Ok(stands)
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
pub struct Heads {
    pub seq: u64,
    pub change: u64,
}

/// How a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beginning {
    /// The client has this of the present history.
    pub after: Heads,
    /// Something is missing between that and the present.
    pub missed: bool,
    /// The client has more, which is not in this history: it was lost in a failover or a restore.
    pub has_lost: bool,
}

impl Heads {
    /// Without a position the subscription begins now. A position above the heads, or above what the client's epoch has in
    /// common with this history, is lowered to that: otherwise the client would never be sent what is below it.
    pub fn begin(&self, stand: Option<&Stand>, common: Option<Heads>) -> Beginning {
        let Some(stand) = stand else { return Beginning { after: *self, missed: false, has_lost: false } };
        let most = common.map_or(*self, |common| common.and(*self));
        let change = stand.change.unwrap_or(most.change);
        let after = most.and(Heads { seq: stand.seq, change });
        let has_lost = stand.seq > after.seq || change > after.change;
        Beginning { after, missed: after != *self, has_lost }
    }

    /// What both have.
    pub fn and(self, other: Heads) -> Heads {
        Heads { seq: self.seq.min(other.seq), change: self.change.min(other.change) }
    }

    /// Whether it is too much to be sent one by one.
    pub fn is_far_from(&self, after: Heads) -> bool {
        self.seq.saturating_sub(after.seq) > MISSED_MAX
            || self.change.saturating_sub(after.change) > MISSED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ROOM: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn wish(payload: Value) -> Result<Wish, Problem> {
        Wish::subscribe(Object::parse(payload.to_string().as_bytes()).unwrap(), false)
    }

    #[test]
    fn a_wish_names_conversations_positions_and_topics() {
        let id = Id::parse(ROOM).unwrap();
        let room = Name::Id(id);
        let full = wish(json!({
            "conversation_ids": [ROOM, "No Name", ROOM, ROOM.to_uppercase(), "lobby", "mine"],
            "positions": { ROOM: { "seq": 3, "change": 1, "epoch": "E1" }, "lobby": 7, "No Name": 7, "gone": 7 },
            "topics": ["match:31", "match:31"],
        }))
        .unwrap();
        assert_eq!(
            full.conversations[..2],
            [(ROOM.to_owned(), Some(room.clone())), ("No Name".to_owned(), None)]
        );
        assert_eq!(full.stands[&room], Stand { seq: 3, change: Some(1), epoch: Some("e1".to_owned()) });
        assert_eq!((full.topics.len(), full.join), (1, false));

        // `mine` is the conversation that was named by its id too; nobody knows `lobby`.
        let mine = Name::Slug("mine".to_owned());
        let found = full.found(&[(room.clone(), id), (mine, id)].into());
        assert_eq!(
            (&found.ids[..], &found.unknown[..]),
            (&[id][..], &["No Name".to_owned(), "lobby".to_owned()][..])
        );
        assert_eq!((found.slugs, found.stands.len()), ([("mine".to_owned(), id)].into(), 1));
        let seq_only = wish(json!({ "conversation_ids": [ROOM], "positions": { ROOM: 5 } })).unwrap();
        assert_eq!(seq_only.stands[&room], Stand { seq: 5, change: None, epoch: None });
    }

    #[test]
    fn who_has_nothing_asks_for_nothing() {
        for nothing in [json!({ "conversation_ids": [] }), json!({ "topics": [] })] {
            assert!(wish(nothing).unwrap().conversations.is_empty());
        }
    }

    #[test]
    fn an_alias_names_one_and_joins() {
        let payload = Object::parse(json!({ "conversation_id": ROOM }).to_string().as_bytes()).unwrap();
        let alias = Wish::subscribe(payload, true).unwrap();
        assert!(alias.join && alias.conversations.len() == 1);
    }

    #[test]
    fn a_bad_wish_names_its_field() {
        for (field, payload) in [
            ("conversation_ids", json!({})),
            ("conversation_ids", json!({ "conversation_ids": null })),
            ("conversation_ids", json!({ "conversation_ids": ROOM })),
            ("conversation_ids", json!({ "conversation_ids": vec!["x"; 201] })),
            (
                "conversation_ids",
                json!({ "conversation_ids": (0..21).map(|i| i.to_string()).collect::<Vec<_>>(), "join": true }),
            ),
            ("conversation_ids[0]", json!({ "conversation_ids": [7] })),
            ("positions", json!({ "conversation_ids": [ROOM], "positions": [] })),
            ("positions.x", json!({ "conversation_ids": [ROOM], "positions": { "x": -1 } })),
            ("positions.x", json!({ "conversation_ids": [ROOM], "positions": { "x": 1.5 } })),
            ("positions.x", json!({ "conversation_ids": [ROOM], "positions": { "x": "7" } })),
            ("positions.x", json!({ "conversation_ids": [ROOM], "positions": { "x": u64::MAX } })),
            ("positions.x.seq", json!({ "conversation_ids": [ROOM], "positions": { "x": {} } })),
            (
                "positions.x.epoch",
                json!({ "conversation_ids": [ROOM], "positions": { "x": { "seq": 1, "epoch": "" } } }),
            ),
            ("topics", json!({ "topics": ["a b"] })),
            ("topics", json!({ "topics": vec!["x"; 51] })),
            ("join", json!({ "conversation_ids": [ROOM], "join": "yes" })),
        ] {
            assert_eq!(wish(payload).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_subscription_begins_where_the_client_stands_or_now() {
        let heads = Heads { seq: 10, change: 4 };
        let begin = |stand: Option<(u64, Option<u64>)>, common| {
            let stand = stand.map(|(seq, change)| Stand { seq, change, epoch: None });
            let begun = heads.begin(stand.as_ref(), common);
            assert_eq!(begun.missed, begun.after != heads);
            (begun.after.seq, begun.after.change, begun.has_lost)
        };
        assert_eq!(begin(None, None), (10, 4, false));
        assert_eq!(begin(Some((10, None)), None), (10, 4, false));
        assert_eq!(begin(Some((7, None)), None), (7, 4, false));
        assert_eq!(begin(Some((10, Some(1))), None), (10, 1, false));
        // Beyond the head: whoever said so, that is not in this history.
        assert_eq!(begin(Some((999, Some(999))), None), (10, 4, true));
        assert_eq!(begin(Some((11, None)), None), (10, 4, true));
        // Of an older epoch only what both have counts.
        let common = Some(Heads { seq: 8, change: 3 });
        assert_eq!(begin(Some((9, Some(3))), common), (8, 3, true));
        assert_eq!(begin(Some((8, Some(4))), common), (8, 3, true));
        assert_eq!(begin(Some((7, Some(2))), common), (7, 2, false));
        assert_eq!(begin(Some((7, None)), common), (7, 3, false));
        // Of an epoch that nobody here knows, nothing does.
        assert_eq!(begin(Some((7, Some(2))), Some(Heads { seq: 0, change: 0 })), (0, 0, true));
    }

    #[test]
    fn beyond_a_thousand_is_far() {
        let heads = Heads { seq: 1500, change: 0 };
        assert!(heads.is_far_from(Heads { seq: 499, change: 0 }));
        assert!(!heads.is_far_from(Heads { seq: 500, change: 0 }));
    }
}
