//! A page of somebody's list: order from Redis, seats from Postgres, whatever Redis lacks from Postgres too and back into
//! it.

use chat::keys;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use sdk::redis::{self, Error};
use sdk::{Id, Problem};

use crate::entry::Entry;
use crate::model::{self, Count, Kept};
use crate::store::{self, Counted, Meta, Place, Seat};

/// Read at once at least, so that a list of much that is hidden is not read one by one.
const READ_MIN: usize = 20;
/// Put back into Redis by one call; each is a round trip. The rest has its turn.
const FILLS_MAX: usize = 100;

pub enum Trouble {
    /// No Redis: Postgres alone answers.
    Away(String),
    Problem(Problem),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Away(redis::describe(&error))
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// The newest `limit` from `after` on.
pub fn of(user: &str, after: Id, limit: usize) -> Result<Vec<Entry>, Trouble> {
    Reader { user, learned: BTreeMap::new() }.page(after, limit)
}

struct Reader<'a> {
    user: &'a str,
    /// What Redis did not know.
    learned: BTreeMap<Id, Meta>,
}

impl Reader<'_> {
    fn page(mut self, after: Id, limit: usize) -> Result<Vec<Entry>, Trouble> {
        let kept = match model::list(self.user)? {
            Some(kept) => kept,
            None => self.learn_list()?,
        };
        let mut places = self.places(&kept.ids)?;
        if kept.more {
            places.extend(store::older(self.user, &kept.ids, after, limit)?);
        }
        let places = ordered(places, after);

        let (mut entries, mut counts) = (Vec::new(), Vec::new());
        let mut rest = &places[..];
        while entries.len() < limit && !rest.is_empty() {
            // Some of them may be hidden, or not mine any more.
            let want = (limit - entries.len()).max(READ_MIN).min(rest.len());
            let (now, later) = rest.split_at(want);
            self.read(now, &mut entries, &mut counts)?;
            rest = later;
        }
        entries.truncate(limit);
        model::keep_counts(self.user, &counts)?;
        Ok(entries)
    }

    fn learn_list(&mut self) -> Result<Kept, Trouble> {
        let (places, more) = learn_list(self.user, false)?;
        Ok(Kept { ids: places.iter().map(|place| place.id).collect(), more })
    }

    fn places(&mut self, ids: &[Id]) -> Result<Vec<Place>, Trouble> {
        let known = model::activities(ids)?;
        let missing: Vec<Id> =
            ids.iter().zip(&known).filter(|(_, activity)| activity.is_none()).map(|(id, _)| *id).collect();
        self.learn(&missing)?;
        let place = |(id, activity): (&Id, Option<Id>)| {
            let activity = activity.or_else(|| self.learned.get(id).map(|meta| meta.activity))?;
            Some(Place { id: *id, activity })
        };
        Ok(ids.iter().zip(known).filter_map(place).collect())
    }

    fn learn(&mut self, ids: &[Id]) -> Result<(), Trouble> {
        if ids.is_empty() {
            return Ok(());
        }
        let claim = model::claim_metas(ids, false)?;
        let metas = store::metas(ids)?;
        for meta in metas.iter().take(FILLS_MAX) {
            model::fill_meta(&claim, meta)?;
        }
        self.learned.extend(metas.into_iter().map(|meta| (meta.id, meta)));
        Ok(())
    }

    /// Entries of these places, as far as they are mine and in sight, and the counts that Redis lacks.
    fn read(
        &mut self,
        places: &[Place],
        entries: &mut Vec<Entry>,
        counts: &mut Vec<(Id, Count)>,
    ) -> Result<(), Trouble> {
        let ids: Vec<Id> = places.iter().map(|place| place.id).collect();
        let known = model::read(self.user, &ids)?;
        let missing: Vec<Id> = ids
            .iter()
            .zip(&known)
            .filter(|(id, (meta, _))| meta.is_none() && !self.learned.contains_key(id))
            .map(|(id, _)| *id)
            .collect();
        self.learn(&missing)?;
        let known: Vec<_> = ids
            .iter()
            .zip(&known)
            .map(|(id, (meta, count))| {
                let meta = meta.as_ref().or_else(|| self.learned.get(id));
                (meta, count.filter(|count| meta.is_some_and(|meta| count.is_of(meta))))
            })
            .collect();
        let mut seats: BTreeMap<Id, Seat> =
            store::seats(self.user, &ids)?.into_iter().map(|seat| (seat.id, seat)).collect();
        let mut seen = Vec::new();
        for (place, (meta, count)) in places.iter().zip(known) {
            let (Some(meta), Some(seat)) = (meta, seats.remove(&place.id)) else { continue };
            if seat.hidden_seq.is_none_or(|hidden| hidden < meta.head) {
                let count = count.filter(|count| count.mark == seat.mark);
                seen.push((place, meta, seat, count));
            }
        }
        let uncounted = seen.iter().filter(|(.., count)| count.is_none()).map(|(place, ..)| place.id);
        let mut counted = self.count(uncounted.collect())?;
        for (place, meta, seat, count) in seen {
            let count = count.or_else(|| {
                let count = count_of(meta, &counted.remove(&place.id)?);
                counts.push((place.id, count));
                Some(count)
            });
            // Who left while this was read is not shown what they left.
            entries.extend(count.map(|count| entry(place, meta, seat, count)));
        }
        Ok(())
    }

    fn count(&self, ids: Vec<Id>) -> Result<BTreeMap<Id, Counted>, Problem> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        Ok(store::counts(self.user, &ids)?.into_iter().map(|counted| (counted.id, counted)).collect())
    }
}

/// From Postgres into Redis: the newest, and whether there are more.
pub fn learn_list(user: &str, anew: bool) -> Result<(Vec<Place>, bool), Trouble> {
    let claim = model::claim_list(user, anew)?;
    let mut places = store::mine(user, keys::LIST_MAX + 1)?;
    let more = places.len() > keys::LIST_MAX;
    places.truncate(keys::LIST_MAX);
    model::fill_list(user, &claim, &places, more)?;
    Ok((places, more))
}

/// Newest first, from the cursor on.
fn ordered(mut places: Vec<Place>, after: Id) -> Vec<Place> {
    places.retain(|place| place.activity < after);
    places.sort_unstable_by_key(|place| Reverse(place.activity));
    places
}

/// What Postgres counted just now is at least as new as what is known of the conversation. Where it is newer, the news
/// make the count void.
fn count_of(meta: &Meta, counted: &Counted) -> Count {
    Count {
        head: meta.head,
        change: meta.change,
        mark: counted.mark,
        last_read_seq: counted.last_read_seq,
        unread: counted.unread,
    }
}

fn entry(place: &Place, meta: &Meta, seat: Seat, count: Count) -> Entry {
    Entry {
        activity: place.activity,
        text: seat.text,
        role: seat.role,
        notifications: seat.notifications,
        last_read_seq: count.last_read_seq,
        unread: count.unread,
        last: meta.last.clone(),
        peer: store::peer(seat.peer, seat.profile, seat.is_seen),
    }
}
