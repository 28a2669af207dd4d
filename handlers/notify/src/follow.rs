//! Updates existing notifications after their message changed, or after their user read or left the
//! conversation.
//!
//! A transaction locks the users, updates their notifications and writes the events for their connections.
//! The work is done in steps of bounded size. Each step selects only notifications that still need the
//! update. So a repeated event finds nothing to do, and an interrupted one continues where it stopped.

use chat::notification;
use std::collections::BTreeMap;

use sdk::postgres::{self, Transaction};
use sdk::{Id, channels, clock, log, params, redis, time, wake};
use serde::Serialize;

use crate::Error;
use crate::rules::{Departure, ReadMark};
use crate::store::{self, Affected, Outdated};

const LOCK: &str = include_str!("sql/lock.sql");
const RETRACT: &str = include_str!("sql/retract.sql");
const REPLACE: &str = include_str!("sql/replace.sql");
const READ: &str = include_str!("sql/read.sql");
const TELL: &str = include_str!("sql/tell.sql");

/// The notifications of one step, and thus the users who are locked at once.
const CHANGED_AT_ONCE: usize = 500;

sdk::rows! {
    struct Touched { id: Id, user_id: String }
    struct Replaced { user_id: String, notification: String }
}

/// An event for a user's connections. The statement that writes it adds the unread count.
#[derive(Serialize)]
struct Announcement {
    n: usize,
    user_id: String,
    #[serde(rename = "type")]
    frame_type: &'static str,
    /// The fields of the payload, as JSON text without braces.
    members: String,
}

/// Updates the notifications of an edited message, and retracts those of a deleted one.
pub(crate) fn message(message: Id) -> Result<(), Error> {
    in_steps(|| {
        let outdated = store::find_outdated(message, CHANGED_AT_ONCE)?;
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

/// Marks notifications as read whose messages their users have read, according to these marks.
pub(crate) fn read(marks: &[ReadMark]) -> Result<(), Error> {
    if marks.is_empty() {
        return Ok(());
    }
    let up_to: BTreeMap<(&str, Id), u64> =
        marks.iter().map(|mark| ((mark.user_id.as_str(), mark.conversation_id), mark.up_to_seq)).collect();
    in_steps(|| {
        let unread = store::find_unread(marks, CHANGED_AT_ONCE)?;
        change_of_conversations(&unread, READ, |user, conversation, now| {
            let up_to = up_to.get(&(user, conversation)).copied().unwrap_or_default();
            format!(
                r#""conversation_id":"{conversation}","up_to_seq":{up_to},"read_at":"{}""#,
                time::rfc3339(now)
            )
        })
    })
}

/// Retracts the notifications of conversations that their users have left.
pub(crate) fn leave(departures: &[Departure]) -> Result<(), Error> {
    if departures.is_empty() {
        return Ok(());
    }
    in_steps(|| {
        let left = store::find_left(departures, CHANGED_AT_ONCE)?;
        change_of_conversations(&left, RETRACT, |_, conversation, _| {
            format!(r#""conversation_id":"{conversation}","deleted":true"#)
        })
    })
}

/// Repeats a step until it finds fewer notifications than it may take. A step returns how many it found.
fn in_steps(mut step: impl FnMut() -> Result<usize, Error>) -> Result<(), Error> {
    while step()? >= CHANGED_AT_ONCE {}
    Ok(())
}

/// Updates the notifications that were found, with one event per user and conversation.
fn change_of_conversations(
    found: &[Affected],
    statement: &str,
    members: impl Fn(&str, Id, u64) -> String,
) -> Result<usize, Error> {
    if !found.is_empty() {
        let ids: Vec<Id> = found.iter().map(|one| one.id).collect();
        let conversations: BTreeMap<Id, Id> = found.iter().map(|one| (one.id, one.conversation_id)).collect();
        change(found.iter().map(|one| one.user_id.as_str()), |transaction, now| {
            let touched = touch(transaction, statement, &ids, now)?;
            let mut pairs: Vec<_> = touched
                .into_iter()
                .filter_map(|touched| Some((touched.user_id, *conversations.get(&touched.id)?)))
                .collect();
            pairs.sort_unstable();
            pairs.dedup();
            let announcement = |(user, conversation): (String, Id)| {
                let members = members(&user, conversation, now);
                Announcement { n: 0, user_id: user, frame_type: notification::READ, members }
            };
            Ok(pairs.into_iter().map(announcement).collect())
        })?;
    }
    Ok(found.len())
}

fn touch(transaction: &Transaction, statement: &str, ids: &[Id], now: u64) -> Result<Vec<Touched>, Error> {
    let mut touched: Vec<Touched> = transaction.query(statement, &params![ids, now])?.all()?;
    touched.sort_unstable_by_key(|touched| touched.id);
    Ok(touched)
}

fn retracted(gone: Touched) -> Announcement {
    let members = format!(r#""id":"{}","deleted":true"#, gone.id);
    Announcement { n: 0, user_id: gone.user_id, frame_type: notification::READ, members }
}

fn updated(replaced: Replaced) -> Announcement {
    let members = format!(r#""notification":{}"#, replaced.notification);
    Announcement { n: 0, user_id: replaced.user_id, frame_type: notification::UPDATED, members }
}

/// Runs `write` in one transaction under the lock of these users, and writes the events that it returns.
fn change<'a>(
    people: impl Iterator<Item = &'a str>,
    write: impl FnOnce(&Transaction, u64) -> Result<Vec<Announcement>, Error>,
) -> Result<(), Error> {
    let mut people: Vec<&str> = people.collect();
    people.sort_unstable();
    people.dedup();
    let now = clock::now_ms();
    let transaction = postgres::begin()?;
    let keys: Vec<String> = people.iter().map(|user| channels::user(user)).collect();
    transaction.query(LOCK, &params![keys])?;
    let mut announcements = write(&transaction, now)?;
    if announcements.is_empty() {
        // Another call has done it. Nothing was written, so the rollback of the transaction loses nothing.
        return Ok(());
    }
    for (n, announcement) in announcements.iter_mut().enumerate() {
        announcement.n = n;
    }
    let shards = transaction.query(TELL, &params![store::json(&announcements), now])?;
    let shards: Vec<u32> = shards.iter().map(|row| row.get("shard")).collect::<Result<_, _>>()?;
    transaction.commit()?;
    wake::outbox(&shards);
    // The cache is invalidated before the connections get the event. If it fails, the consumer of the event
    // repeats it.
    if let Err(error) = notification::invalidate_cache(people) {
        log::warn("cached notifications are not dropped yet", &[("why", &redis::describe(&error))]);
    }
    Ok(())
}
