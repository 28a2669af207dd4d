//! The read model of lists in Redis: which conversations are somebody's, where each conversation stands, and counts of what
//! is unread. It may be gone at any time and is then read from Postgres; it must never be wrong for longer than its news
//! take. Who may see what, and each person's mark, are not in it: Postgres is asked on every read.
//!
//! * A list (`list:{user}`) is written only from Postgres, and deleted by the relay when its person comes or goes.
//! * A conversation's place (`meta:{id}`) is written by the relay with every message, and from Postgres where it is missing.
//!   So a message costs one write, however many lists it moves in; the order is made on reading.
//! * A count (`unread:{id}`) says for which head, change and mark it was made, and holds for no other.
//!
//! Whoever writes from Postgres first puts down a claim. What it read is written only while the claim is still there: news
//! that came in between take it away, and so does a Redis that lost everything.

use chat::keys;
use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Id, random};

use crate::store::{Meta, Place};

/// In place of an id in a list: everything is in it, or there are older ones in Postgres.
const WHOLE: &str = "whole";
const MORE: &str = "more";
/// Whoever claims a list and then fails leaves this behind for so long.
const CLAIM_TTL_S: &str = "30";

/// A list as Redis has it.
#[derive(Debug, PartialEq)]
pub struct Kept {
    pub ids: Vec<Id>,
    /// Older ones are in Postgres.
    pub more: bool,
}

/// A count of what is unread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    pub head: u64,
    pub change: u64,
    pub mark: u64,
    pub last_read_seq: u64,
    pub unread: u64,
}

/// What Redis has of a conversation, and of this person in it.
pub type Known = (Option<Meta>, Option<Count>);

pub struct Claim(String);

impl Claim {
    fn new() -> Self {
        let bytes = random::bytes::<8>();
        Self(format!("claim:{:016x}", u64::from_be_bytes(bytes)))
    }
}

pub fn list(user: &str) -> Result<Option<Kept>, Error> {
    Ok(kept(&redis::command(&["ZRANGE", &keys::list(user), "0", "-1"])?))
}

fn kept(reply: &Reply) -> Option<Kept> {
    let has = |word: &str| reply.texts().any(|member| member == word);
    let more = has(MORE);
    (more || has(WHOLE)).then(|| Kept { ids: reply.texts().filter_map(Id::parse).collect(), more })
}

/// Before Postgres is asked.
pub fn claim_list(user: &str, anew: bool) -> Result<Claim, Error> {
    let (claim, key) = (Claim::new(), keys::list(user));
    let mut pipeline = Pipeline::new();
    if anew {
        pipeline.push(&["UNLINK", &key]);
    }
    pipeline.push(&["ZADD", &key, "0", &claim.0]).push(&["EXPIRE", &key, CLAIM_TTL_S]).run()?;
    Ok(claim)
}

/// What Postgres said, unless the list changed since.
pub fn fill_list(user: &str, claim: &Claim, places: &[Place], more: bool) -> Result<(), Error> {
    let mut args = vec![claim.0.clone(), "0".to_owned(), if more { MORE } else { WHOLE }.to_owned()];
    for place in places {
        args.extend([place.activity.ms().to_string(), place.id.to_string()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    redis::script("fill_list", &[&keys::list(user)], &args).map(drop)
}

/// Where conversations stand, as far as Redis knows.
pub fn activities(ids: &[Id]) -> Result<Vec<Option<Id>>, Error> {
    let mut pipeline = Pipeline::new();
    for id in ids {
        pipeline.push(&["HGET", &keys::meta(*id), "activity"]);
    }
    Ok(pipeline.run()?.iter().map(|reply| reply.text().and_then(Id::parse)).collect())
}

/// All of it, and the count of this person.
pub fn read(user: &str, ids: &[Id]) -> Result<Vec<Known>, Error> {
    let mut pipeline = Pipeline::new();
    for id in ids {
        pipeline.push(&["HMGET", &keys::meta(*id), "head", "change", "activity", "last"]);
        pipeline.push(&["HGET", &keys::unread(*id), user]);
    }
    let replies = pipeline.run()?;
    let read = |(id, pair): (&Id, &[Reply])| {
        let [meta, count] = pair else { return (None, None) };
        (self::meta(*id, meta.items()), count.text().and_then(Count::parse))
    };
    Ok(ids.iter().zip(replies.chunks(2)).map(read).collect())
}

fn meta(id: Id, fields: &[Reply]) -> Option<Meta> {
    let [head, change, activity, last] = fields else { return None };
    Some(Meta {
        id,
        head: number(head)?,
        // Nobody has changed anything since it was written.
        change: number(change).unwrap_or(0),
        activity: Id::parse(activity.text()?)?,
        last: last.text()?.to_owned(),
    })
}

fn number(reply: &Reply) -> Option<u64> {
    reply.integer().and_then(|number| u64::try_from(number).ok())
}

/// One claim for all. `anew` drops what is there, the counts and what others keep of these conversations too.
pub fn claim_metas(ids: &[Id], anew: bool) -> Result<Claim, Error> {
    let (claim, mut pipeline) = (Claim::new(), Pipeline::new());
    for id in ids {
        if anew {
            let gone = [keys::meta(*id), keys::unread(*id), keys::participants(*id)];
            gone.iter().for_each(|key| {
                pipeline.push(&["UNLINK", key]);
            });
        }
        pipeline.push(&["HSET", &keys::meta(*id), "claim", &claim.0]);
    }
    pipeline.run()?;
    Ok(claim)
}

pub fn fill_meta(claim: &Claim, meta: &Meta) -> Result<(), Error> {
    let (head, change, activity) =
        (meta.head.to_string(), meta.change.to_string(), meta.activity.to_string());
    redis::script("fill_meta", &[&keys::meta(meta.id)], &[&claim.0, &head, &change, &activity, &meta.last])
        .map(drop)
}

/// Of conversations that are no more.
pub fn forget_metas(ids: impl Iterator<Item = Id>) -> Result<(), Error> {
    let mut pipeline = Pipeline::new();
    ids.for_each(|id| {
        pipeline.push(&["UNLINK", &keys::meta(id)]);
    });
    pipeline.run().map(drop)
}

pub fn keep_counts(user: &str, counts: &[(Id, Count)]) -> Result<(), Error> {
    let mut pipeline = Pipeline::new();
    for (id, count) in counts {
        let key = keys::unread(*id);
        pipeline.push(&["HSET", &key, user, &count.text()]);
        pipeline.push(&["EXPIRE", &key, &keys::UNREAD_TTL_S.to_string()]);
    }
    pipeline.run().map(drop)
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

    /// It was made of this.
    pub fn is_of(&self, meta: &Meta) -> bool {
        (self.head, self.change) == (meta.head, meta.change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    fn members(members: &[&str]) -> Reply {
        Reply::Many(members.iter().map(|member| Reply::Text((*member).to_owned())).collect())
    }

    #[test]
    fn a_list_without_its_end_is_none() {
        let room = Id::parse(ROOM).unwrap();
        assert_eq!(kept(&members(&[])), None);
        assert_eq!(kept(&members(&["claim:1"])), None);
        // What somebody added to nothing is not a list.
        assert_eq!(kept(&members(&[ROOM])), None);
        assert_eq!(kept(&members(&["whole"])), Some(Kept { ids: vec![], more: false }));
        assert_eq!(kept(&members(&["more", ROOM])), Some(Kept { ids: vec![room], more: true }));
    }

    #[test]
    fn half_of_what_is_known_of_a_conversation_is_nothing() {
        let text = |text: &str| Reply::Text(text.to_owned());
        let room = Id::parse(ROOM).unwrap();
        let whole = [text("7"), Reply::Nil, text(ROOM), text("{}")];
        let known = Meta { id: room, head: 7, change: 0, activity: room, last: "{}".into() };
        assert_eq!(meta(room, &whole), Some(known));
        for missing in [0, 2, 3] {
            let mut fields = whole.clone();
            fields[missing] = Reply::Nil;
            assert_eq!(meta(room, &fields), None);
        }
    }

    #[test]
    fn a_count_holds_only_for_what_it_was_made_of() {
        let count = Count { head: 7, change: 2, mark: 3, last_read_seq: 4, unread: 1 };
        assert_eq!(Count::parse(&count.text()), Some(count));
        for bad in ["", "1", "1 2 3 4", "1 2 3 4 x", "1 2 3 4 5 6"] {
            assert_eq!(Count::parse(bad), None);
        }
        let room = Id::parse(ROOM).unwrap();
        let meta = Meta { id: room, head: 7, change: 2, activity: room, last: "{}".into() };
        assert!(count.is_of(&meta));
        assert!(!count.is_of(&Meta { head: 8, ..meta.clone() }) && !count.is_of(&Meta { change: 3, ..meta }));
    }
}
