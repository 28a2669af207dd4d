//! The read model of lists in Redis: each user's conversations, the state of each conversation, and unread
//! counts. Redis may lose it at any time; it is then read from Postgres. It must not be outdated for longer
//! than the relay needs to deliver an event. Memberships and marks are not in it: each request reads them
//! from Postgres.
//!
//! * A list (`list:{user}`) is only written from Postgres. The relay deletes it when its user joins or leaves
//!   a conversation.
//! * The state of a conversation (`meta:{id}`) is written by the relay with every message, and from Postgres
//!   if it is missing. So a message costs one write, however many lists it moves in. Readers sort the list.
//! * A count (in `counts:{user}`) contains the head, change and mark for which it was computed, and is used
//!   for no others.
//!
//! A writer that copies from Postgres first writes a claim. The result is stored only if the claim still
//! exists. The relay's update deletes the claim, and so does a loss of Redis.

use chat::keys;
use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Id, random};

use crate::store::{ListPosition, Meta};

/// Members of a list that are not ids: the list is complete, or Postgres has older conversations.
const WHOLE: &str = "whole";
const MORE: &str = "more";
/// The lifetime of a claim on a list. It removes the claim of a writer that failed.
const CLAIM_TTL_S: &str = "30";

/// A list as Redis has it.
#[derive(Debug, PartialEq)]
pub(crate) struct CachedList {
    pub ids: Vec<Id>,
    /// Whether Postgres has older conversations.
    pub more: bool,
}

/// An unread count, and the state for which it was computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Count {
    pub head: u64,
    pub change: u64,
    pub mark: u64,
    pub last_read_seq: u64,
    pub unread: u64,
}

/// The state of a conversation, and the user's unread count in it.
pub(crate) type Known = (Option<Meta>, Option<Count>);

/// The right to store what is read from Postgres from now on, until something changes.
pub(crate) struct Claim(String);

impl Claim {
    fn new() -> Self {
        let bytes = random::bytes::<8>();
        Self(format!("claim:{:016x}", u64::from_be_bytes(bytes)))
    }
}

pub(crate) fn list(user: &str) -> Result<Option<CachedList>, Error> {
    Ok(cached(&redis::command(&["ZRANGE", &keys::list(user), "0", "-1"])?))
}

fn cached(reply: &Reply) -> Option<CachedList> {
    let has = |word: &str| reply.texts().any(|member| member == word);
    let more = has(MORE);
    (more || has(WHOLE)).then(|| CachedList { ids: reply.texts().filter_map(Id::parse).collect(), more })
}

/// Claims a list before it is read from Postgres. `anew` deletes the present list, and the user's counts.
pub(crate) fn claim_list(user: &str, anew: bool) -> Result<Claim, Error> {
    let (claim, key) = (Claim::new(), keys::list(user));
    let mut pipeline = Pipeline::new();
    if anew {
        pipeline.push(&["UNLINK", &key]).push(&["UNLINK", &keys::counts(user)]);
    }
    pipeline.push(&["ZADD", &key, "0", &claim.0]).push(&["EXPIRE", &key, CLAIM_TTL_S]).run()?;
    Ok(claim)
}

/// Stores a list from Postgres, unless the list changed after the claim.
pub(crate) fn fill_list(
    user: &str,
    claim: &Claim,
    positions: &[ListPosition],
    more: bool,
) -> Result<(), Error> {
    let mut args = vec![claim.0.clone(), "0".to_owned(), if more { MORE } else { WHOLE }.to_owned()];
    for position in positions {
        args.extend([position.activity.ms().to_string(), position.id.to_string()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    redis::script("fill_list", &[&keys::list(user)], &args).map(drop)
}

/// The last activity of conversations; `None` for those that Redis lacks.
pub(crate) fn activities(ids: &[Id]) -> Result<Vec<Option<Id>>, Error> {
    let mut pipeline = Pipeline::new();
    for id in ids {
        pipeline.push(&["HGET", &keys::meta(*id), "activity"]);
    }
    Ok(pipeline.run()?.iter().map(|reply| reply.text().and_then(Id::parse)).collect())
}

/// The states of conversations, and the user's unread counts.
pub(crate) fn read(user: &str, ids: &[Id]) -> Result<Vec<Known>, Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (key, fields) = (keys::counts(user), ids.iter().map(Id::to_string).collect::<Vec<_>>());
    let mut counts = vec!["HMGET", &key];
    counts.extend(fields.iter().map(String::as_str));
    let mut pipeline = Pipeline::new();
    pipeline.push(&counts);
    for id in ids {
        pipeline.push(&["HMGET", &keys::meta(*id), "head", "change", "activity", "last"]);
    }
    let replies = pipeline.run()?;
    let Some((counts, metas)) = replies.split_first() else { return Ok(Vec::new()) };
    // Without the counts, each is counted again.
    let count = |index| counts.items().get(index).and_then(Reply::text).and_then(Count::parse);
    let known = |(index, (id, reply)): (usize, (&Id, &Reply))| (meta(*id, reply.items()), count(index));
    Ok(ids.iter().zip(metas).enumerate().map(known).collect())
}

fn meta(id: Id, fields: &[Reply]) -> Option<Meta> {
    let [head, change, activity, last] = fields else { return None };
    Some(Meta {
        id,
        head: number(head)?,
        // The field is absent until the first change.
        change: number(change).unwrap_or(0),
        activity: Id::parse(activity.text()?)?,
        last: last.text()?.to_owned(),
    })
}

fn number(reply: &Reply) -> Option<u64> {
    reply.integer().and_then(|number| u64::try_from(number).ok())
}

/// Claims the states of conversations, all with one claim. `anew` deletes the present states.
pub(crate) fn claim_metas(ids: &[Id], anew: bool) -> Result<Claim, Error> {
    let (claim, mut pipeline) = (Claim::new(), Pipeline::new());
    for id in ids {
        if anew {
            pipeline.push(&["UNLINK", &keys::meta(*id)]).push(&["UNLINK", &keys::participants(*id)]);
        }
        pipeline.push(&["HSET", &keys::meta(*id), "claim", &claim.0]);
    }
    pipeline.run()?;
    Ok(claim)
}

pub(crate) fn fill_meta(claim: &Claim, meta: &Meta) -> Result<(), Error> {
    let (head, change, activity) =
        (meta.head.to_string(), meta.change.to_string(), meta.activity.to_string());
    redis::script("fill_meta", &[&keys::meta(meta.id)], &[&claim.0, &head, &change, &activity, &meta.last])
        .map(drop)
}

/// Deletes the states of deleted conversations.
pub(crate) fn forget_metas(ids: impl Iterator<Item = Id>) -> Result<(), Error> {
    let mut pipeline = Pipeline::new();
    ids.for_each(|id| {
        pipeline.push(&["UNLINK", &keys::meta(id)]);
    });
    pipeline.run().map(drop)
}

pub(crate) fn store_counts(user: &str, counts: &[(Id, Count)]) -> Result<(), Error> {
    if counts.is_empty() {
        return Ok(());
    }
    let key = keys::counts(user);
    let fields: Vec<_> = counts.iter().flat_map(|(id, count)| [id.to_string(), count.text()]).collect();
    let mut set = vec!["HSET", &key];
    set.extend(fields.iter().map(String::as_str));
    let mut pipeline = Pipeline::new();
    pipeline.push(&set).push(&["EXPIRE", &key, &keys::COUNTS_TTL_S.to_string()]).push(&["HLEN", &key]);
    let kept = pipeline.run()?.last().and_then(Reply::integer);
    if kept.is_some_and(|kept| kept > keys::COUNTS_MAX) {
        redis::command(&["UNLINK", &key])?;
    }
    Ok(())
}

impl Count {
    fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [head, change, mark, last_read_seq, unread] = numbers[..] else { return None };
        Some(Self { head, change, mark, last_read_seq, unread })
    }

    fn text(&self) -> String {
        let Self { head, change, mark, last_read_seq, unread } = self;
        format!("{head} {change} {mark} {last_read_seq} {unread}")
    }

    /// Whether the count was computed for this state.
    pub(crate) fn is_of(&self, meta: &Meta) -> bool {
        (self.head, self.change) == (meta.head, meta.change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn members(members: &[&str]) -> Reply {
        Reply::Many(members.iter().map(|member| Reply::Text((*member).to_owned())).collect())
    }

    #[test]
    fn a_list_without_whole_or_more_is_not_used() {
        let conversation = Id::parse(CONVERSATION).unwrap();
        assert_eq!(cached(&members(&[])), None);
        assert_eq!(cached(&members(&["claim:1"])), None);
        // A list to which only an id was added is incomplete.
        assert_eq!(cached(&members(&[CONVERSATION])), None);
        assert_eq!(cached(&members(&["whole"])), Some(CachedList { ids: vec![], more: false }));
        assert_eq!(
            cached(&members(&["more", CONVERSATION])),
            Some(CachedList { ids: vec![conversation], more: true })
        );
    }

    #[test]
    fn an_incomplete_state_is_not_used() {
        let text = |text: &str| Reply::Text(text.to_owned());
        let conversation = Id::parse(CONVERSATION).unwrap();
        let whole = [text("7"), Reply::Nil, text(CONVERSATION), text("{}")];
        let known = Meta { id: conversation, head: 7, change: 0, activity: conversation, last: "{}".into() };
        assert_eq!(meta(conversation, &whole), Some(known));
        for missing in [0, 2, 3] {
            let mut fields = whole.clone();
            fields[missing] = Reply::Nil;
            assert_eq!(meta(conversation, &fields), None);
        }
    }

    #[test]
    fn a_count_is_used_only_for_its_state() {
        let count = Count { head: 7, change: 2, mark: 3, last_read_seq: 4, unread: 1 };
        assert_eq!(Count::parse(&count.text()), Some(count));
        for bad in ["", "1", "1 2 3 4", "1 2 3 4 x", "1 2 3 4 5 6"] {
            assert_eq!(Count::parse(bad), None);
        }
        let conversation = Id::parse(CONVERSATION).unwrap();
        let meta = Meta { id: conversation, head: 7, change: 2, activity: conversation, last: "{}".into() };
        assert!(count.is_of(&meta));
        assert!(!count.is_of(&Meta { head: 8, ..meta.clone() }) && !count.is_of(&Meta { change: 3, ..meta }));
    }
}
