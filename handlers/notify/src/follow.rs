//! Changes of notifications that are there: they follow what became of their message, and how far their person has read.
//!
//! A change is written under the lock of its people, together with the events that tell their connections, in steps of a
//! bounded size. Each step finds what is not yet as it should be, so an event that comes again finds nothing left to do, and
//! one that is cut off half way goes on where it was.

use chat::{address, notification};
use std::collections::BTreeMap;

use sdk::postgres::{self, Transaction};
use sdk::{Id, clock, log, params, redis, time, wake};
use serde::Serialize;

use crate::Trouble;
use crate::rules::{Departure, Seen};
use crate::store::{self, Of, Outdated};

const LOCK: &str = include_str!("sql/lock.sql");
const RETRACT: &str = include_str!("sql/retract.sql");
const REPLACE: &str = include_str!("sql/replace.sql");
const READ: &str = include_str!("sql/read.sql");
const TELL: &str = include_str!("sql/tell.sql");

/// Notifications of one step, and so people who are locked at once. The next step takes the rest.
const CHANGED_AT_ONCE: usize = 500;

sdk::rows! {
    struct Touched { id: Id, user_id: String }
    struct Replaced { user_id: String, notification: String }
}

/// An event for a person's connections; their unread count is added where it is written.
#[derive(Serialize)]
struct Told {
    n: usize,
    user_id: String,
    #[serde(rename = "type")]
    frame_type: &'static str,
    /// Members of the payload, as JSON text without the braces.
    members: String,
}

/// The notifications of a message say what it says now; those of a deleted message are retracted.
pub fn message(message: Id) -> Result<(), Trouble> {
    in_steps(|| {
        let outdated = store::outdated(message, CHANGED_AT_ONCE)?;
        if let Some(Outdated { deleted, body, .. }) = outdated.first() {
            let people = outdated.iter().map(|one| one.user_id.as_str());
            let ids: Vec<Id> = outdated.iter().map(|one| one.id).collect();
            change(people, |transaction, now| {
                if *deleted {
                    let gone = touch(transaction, RETRACT, &ids, now)?;
                    return Ok(gone.into_iter().map(retracted).collect());
                }
                let replaced = transaction.query(REPLACE, &params![ids.as_slice(), body.as_ref()])?;
                Ok(replaced.all::<Replaced>()?.into_iter().map(updated).collect())
            })?;
        }
        Ok(outdated.len())
    })
}

/// Whoever has read a conversation has read its notifications.
pub fn read(seen: &[Seen]) -> Result<(), Trouble> {
    if seen.is_empty() {
        return Ok(());
    }
    let up_to: BTreeMap<(&str, Id), u64> =
        seen.iter().map(|seen| ((seen.user_id.as_str(), seen.conversation_id), seen.up_to_seq)).collect();
    in_steps(|| {
        let unread = store::unread(seen, CHANGED_AT_ONCE)?;
        change_of_conversations(&unread, READ, |user, conversation, now| {
            let up_to = up_to.get(&(user, conversation)).copied().unwrap_or_default();
            format!(
                r#""conversation_id":"{conversation}","up_to_seq":{up_to},"read_at":"{}""#,
                time::rfc3339(now)
            )
        })
    })
}

/// Whoever is no longer in a conversation is shown no text of it.
pub fn leave(departures: &[Departure]) -> Result<(), Trouble> {
    if departures.is_empty() {
        return Ok(());
    }
    in_steps(|| {
        let left = store::left(departures, CHANGED_AT_ONCE)?;
        change_of_conversations(&left, RETRACT, |_, conversation, _| {
            format!(r#""conversation_id":"{conversation}","deleted":true"#)
        })
    })
}

/// Until a step finds less than it may take. Returns of each step how many it found.
fn in_steps(mut step: impl FnMut() -> Result<usize, Trouble>) -> Result<(), Trouble> {
    while step()? >= CHANGED_AT_ONCE {}
    Ok(())
}

/// One event for a person and conversation, however many of its notifications changed.
fn change_of_conversations(
    found: &[Of],
    statement: &str,
    members: impl Fn(&str, Id, u64) -> String,
) -> Result<usize, Trouble> {
    if !found.is_empty() {
        let ids: Vec<Id> = found.iter().map(|one| one.id).collect();
        let conversations: BTreeMap<Id, Id> = found.iter().map(|one| (one.id, one.conversation_id)).collect();
        change(found.iter().map(|one| one.user_id.as_str()), |transaction, now| {
            let touched = touch(transaction, statement, &ids, now)?;
            let mut places: Vec<_> = touched
                .into_iter()
                .filter_map(|touched| Some((touched.user_id, *conversations.get(&touched.id)?)))
                .collect();
            places.sort_unstable();
            places.dedup();
            let told = |(user, conversation): (String, Id)| {
                let members = members(&user, conversation, now);
                Told { n: 0, user_id: user, frame_type: notification::READ, members }
            };
            Ok(places.into_iter().map(told).collect())
        })?;
    }
    Ok(found.len())
}

fn touch(transaction: &Transaction, statement: &str, ids: &[Id], now: u64) -> Result<Vec<Touched>, Trouble> {
    let mut touched: Vec<Touched> = transaction.query(statement, &params![ids, now])?.all()?;
    touched.sort_unstable_by_key(|touched| touched.id);
    Ok(touched)
}

fn retracted(gone: Touched) -> Told {
    let members = format!(r#""id":"{}","deleted":true"#, gone.id);
    Told { n: 0, user_id: gone.user_id, frame_type: notification::READ, members }
}

fn updated(replaced: Replaced) -> Told {
    let members = format!(r#""notification":{}"#, replaced.notification);
    Told { n: 0, user_id: replaced.user_id, frame_type: notification::UPDATED, members }
}

/// One transaction under the lock of these people: what `write` changes and tells, all or nothing.
fn change<'a>(
    people: impl Iterator<Item = &'a str>,
    write: impl FnOnce(&Transaction, u64) -> Result<Vec<Told>, Trouble>,
) -> Result<(), Trouble> {
    let mut people: Vec<&str> = people.collect();
    people.sort_unstable();
    people.dedup();
    let now = clock::now_ms();
    let transaction = postgres::begin()?;
    let keys: Vec<String> = people.iter().map(|user| address::user(user)).collect();
    transaction.query(LOCK, &params![keys])?;
    let mut told = write(&transaction, now)?;
    if told.is_empty() {
        // Somebody else has done it: nothing was written, and the transaction may end as it likes.
        return Ok(());
    }
    for (n, told) in told.iter_mut().enumerate() {
        told.n = n;
    }
    let shards = transaction.query(TELL, &params![store::json(&told), now])?;
    let shards: Vec<u32> = shards.iter().map(|row| row.get("shard")).collect::<Result<_, _>>()?;
    transaction.commit()?;
    wake::outbox(&shards);
    // Before the connections hear of it. Should this be lost, the event does it again.
    if let Err(error) = notification::changed(people) {
        log::warn("cached notifications are not dropped yet", &[("why", &redis::describe(&error))]);
    }
    Ok(())
}
