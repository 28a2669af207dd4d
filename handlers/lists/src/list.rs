//! Reads a page of a user's list. The order comes from Redis, the memberships from Postgres. What Redis lacks
//! is read from Postgres and stored in Redis.

use chat::keys;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use sdk::redis::{self, Error};
use sdk::{Id, Problem};

use crate::entry::Entry;
use crate::model::{self, CachedList, Count, Known};
use crate::store::{self, ListPosition, Membership, Meta, Unread};

/// The smallest number of entries to read at once. Otherwise a list with many hidden conversations would be
/// read one by one.
const READ_MIN: usize = 20;
/// The conversations that one call stores in Redis, because each takes a round trip. Later calls store the
/// rest.
const FILLS_MAX: usize = 100;

/// Why a list could not be read from the model.
pub(crate) enum ReadError {
    /// Redis failed, so the caller reads from Postgres alone.
    RedisUnavailable(String),
    Problem(Problem),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::RedisUnavailable(redis::describe(&error))
    }
}

impl From<Problem> for ReadError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// The newest `limit` entries below the cursor `after`.
pub(crate) fn of(user: &str, after: Id, limit: usize) -> Result<Vec<Entry>, ReadError> {
    Reader { user, known: BTreeMap::new(), loaded: BTreeMap::new() }.page(after, limit)
}

struct Reader<'a> {
    user: &'a str,
    /// What Redis has about the conversations of a short list, until the entries are made of it.
    known: BTreeMap<Id, Known>,
    /// The conversations that Redis lacked.
    loaded: BTreeMap<Id, Meta>,
}

impl Reader<'_> {
    fn page(mut self, after: Id, limit: usize) -> Result<Vec<Entry>, ReadError> {
        let cached = match model::list(self.user)? {
            Some(cached) => cached,
            None => self.copy_list()?,
        };
        let mut positions = self.positions(&cached.ids, limit)?;
        if cached.more {
            positions.extend(store::older(self.user, &cached.ids, after, limit)?);
        }
        let positions = ordered(positions, after);

        let (mut entries, mut counts) = (Vec::new(), Vec::new());
        let mut rest = &positions[..];
        while entries.len() < limit && !rest.is_empty() {
            // Some of them may be hidden, or the user has left them.
            let want = (limit - entries.len()).max(READ_MIN).min(rest.len());
            let (now, later) = rest.split_at(want);
            self.read(now, &mut entries, &mut counts)?;
            rest = later;
        }
        entries.truncate(limit);
        model::store_counts(self.user, &counts)?;
        Ok(entries)
    }

    fn copy_list(&mut self) -> Result<CachedList, ReadError> {
        let (positions, more) = copy_list(self.user, false)?;
        Ok(CachedList { ids: positions.iter().map(|position| position.id).collect(), more })
    }

    /// The last activity of each conversation, which puts them in order. If a page shows half of the list or
    /// more, this reads all that the entries need, and saves a round trip.
    fn positions(&mut self, ids: &[Id], limit: usize) -> Result<Vec<ListPosition>, ReadError> {
        let known = if ids.len() <= 2 * limit {
            let known = model::read(self.user, ids)?;
            let activities = known.iter().map(|(meta, _)| meta.as_ref().map(|meta| meta.activity)).collect();
            self.known.extend(ids.iter().copied().zip(known));
            activities
        } else {
            model::activities(ids)?
        };
        let missing: Vec<Id> =
            ids.iter().zip(&known).filter(|(_, activity)| activity.is_none()).map(|(id, _)| *id).collect();
        self.load(&missing)?;
        let position = |(id, activity): (&Id, Option<Id>)| {
            let activity = activity.or_else(|| self.loaded.get(id).map(|meta| meta.activity))?;
            Some(ListPosition { id: *id, activity })
        };
        Ok(ids.iter().zip(known).filter_map(position).collect())
    }

    /// What Redis has about these conversations.
    fn known(&mut self, ids: &[Id]) -> Result<Vec<Known>, ReadError> {
        let read: Option<Vec<Known>> = ids.iter().map(|id| self.known.remove(id)).collect();
        Ok(match read {
            Some(known) => known,
            None => model::read(self.user, ids)?,
        })
    }

    fn load(&mut self, ids: &[Id]) -> Result<(), ReadError> {
        if ids.is_empty() {
            return Ok(());
        }
        let claim = model::claim_metas(ids, false)?;
        let metas = store::metas(ids)?;
        for meta in metas.iter().take(FILLS_MAX) {
            model::fill_meta(&claim, meta)?;
        }
        self.loaded.extend(metas.into_iter().map(|meta| (meta.id, meta)));
        Ok(())
    }

    /// Adds the entries of these positions, without conversations that are hidden or that the user has left,
    /// and the counts that Redis lacked.
    fn read(
        &mut self,
        positions: &[ListPosition],
        entries: &mut Vec<Entry>,
        counts: &mut Vec<(Id, Count)>,
    ) -> Result<(), ReadError> {
        let ids: Vec<Id> = positions.iter().map(|position| position.id).collect();
        let known = self.known(&ids)?;
        let missing: Vec<Id> = ids
            .iter()
            .zip(&known)
            .filter(|(id, (meta, _))| meta.is_none() && !self.loaded.contains_key(id))
            .map(|(id, _)| *id)
            .collect();
        self.load(&missing)?;
        let known: Vec<_> = ids
            .iter()
            .zip(&known)
            .map(|(id, (meta, count))| {
                let meta = meta.as_ref().or_else(|| self.loaded.get(id));
                (meta, count.filter(|count| meta.is_some_and(|meta| count.is_of(meta))))
            })
            .collect();
        let mut memberships: BTreeMap<Id, Membership> = store::memberships(self.user, &ids)?
            .into_iter()
            .map(|membership| (membership.id, membership))
            .collect();
        let mut seen = Vec::new();
        for (position, (meta, count)) in positions.iter().zip(known) {
            let (Some(meta), Some(membership)) = (meta, memberships.remove(&position.id)) else { continue };
            if membership.hidden_seq.is_none_or(|hidden| hidden < meta.head) {
                let count = count.filter(|count| count.mark == membership.mark);
                seen.push((position, meta, membership, count));
            }
        }
        let without_count =
            seen.iter().filter(|(.., count)| count.is_none()).map(|(position, ..)| position.id);
        let mut counted = self.count(without_count.collect())?;
        for (position, meta, membership, count) in seen {
            let count = count.or_else(|| {
                let count = count_of(meta, &counted.remove(&position.id)?);
                counts.push((position.id, count));
                Some(count)
            });
            // There is no count if the user left the conversation meanwhile. Then the entry is left out.
            entries.extend(count.map(|count| entry(position, meta, membership, count)));
        }
        Ok(())
    }

    fn count(&self, ids: Vec<Id>) -> Result<BTreeMap<Id, Unread>, Problem> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        Ok(store::counts(self.user, &ids)?.into_iter().map(|counted| (counted.id, counted)).collect())
    }
}

/// Copies the user's list from Postgres to Redis: the newest conversations, and whether there are more.
pub(crate) fn copy_list(user: &str, anew: bool) -> Result<(Vec<ListPosition>, bool), ReadError> {
    let claim = model::claim_list(user, anew)?;
    let mut positions = store::mine(user, keys::LIST_MAX + 1)?;
    let more = positions.len() > keys::LIST_MAX;
    positions.truncate(keys::LIST_MAX);
    model::fill_list(user, &claim, &positions, more)?;
    Ok((positions, more))
}

/// The positions below the cursor, newest first.
fn ordered(mut positions: Vec<ListPosition>, after: Id) -> Vec<ListPosition> {
    positions.retain(|position| position.activity < after);
    positions.sort_unstable_by_key(|position| Reverse(position.activity));
    positions
}

/// The count with the state of the conversation that it belongs to. Postgres may have counted a newer state.
/// The model then gets that state soon, and the count is not used any more.
fn count_of(meta: &Meta, counted: &Unread) -> Count {
    Count {
        head: meta.head,
        change: meta.change,
        mark: counted.mark,
        last_read_seq: counted.last_read_seq,
        unread: counted.unread,
    }
}

fn entry(position: &ListPosition, meta: &Meta, membership: Membership, count: Count) -> Entry {
    Entry {
        activity: position.activity,
        begin: membership.text,
        last_read_seq: count.last_read_seq,
        unread: count.unread,
        last_message: meta.last.clone(),
        peer: store::peer(membership.peer, membership.profile, membership.is_seen),
    }
}
