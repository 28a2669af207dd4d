//! The SQL statements of this handler that need no transaction. A function `insert_…` stores notifications
//! and returns those to push. A function `find_…` only reads; `follow` then makes the changes in a
//! transaction.

use std::borrow::Borrow;

use sdk::postgres::{self, Rows, Value};
use sdk::{Id, config, params};
use serde::Serialize;

use crate::Error;
use crate::looking::Looker;
use crate::rules::{BODY_CHARS_MAX, CompleteNotification, Departure, Edit, Message, ReadMark};

const MESSAGES: &str = include_str!("sql/messages.sql");
const COMPLETE: &str = include_str!("sql/complete.sql");
const PEOPLE: &str = include_str!("sql/people.sql");
const ORIGINALS: &str = include_str!("sql/originals.sql");
const MENTIONS: &str = include_str!("sql/mentions.sql");
const OUTDATED: &str = include_str!("sql/outdated.sql");
const UNREAD: &str = include_str!("sql/unread.sql");
const LEFT: &str = include_str!("sql/left.sql");

sdk::rows! {
    /// A stored notification to push, in JSON. If an earlier delivery of the event has stored it, it is
    /// pushed again until its user has read or deleted it: nobody knows whether it was pushed then.
    pub struct Notification { user_id: String, notification: String }
    /// A row about a message. Without a notification it says that the sender has unread notifications of
    /// messages up to this one.
    struct OfMessage { event_id: String, user_id: String, notification: Option<String> }
    struct Person { user_id: String }
    /// The content that an edit replaced, and its mentions: a JSON array of user ids. `id` is the id of the
    /// edit's event.
    pub struct Original { id: String, content: String, mentions: Option<String> }
    /// A notification whose text is not that of its message any more. `body` is the new text, which has no
    /// meaning if the message is `deleted`.
    pub struct Outdated { id: Id, user_id: String, deleted: bool, body: Option<String> }
    /// A notification of a conversation that its user has read or left, to mark as read or to retract.
    pub struct Affected { id: Id, user_id: String, conversation_id: Id }
}

/// Notifies participants of messages. A mentioned user gets a `mention`, unless they set the conversation's
/// notifications to `none`. Any other gets a `new_message` if the setting is `all`, they are not `looking`
/// and have not read the message, and the conversation has at most `participants_max` participants.
///
/// Also returns the ids of the events whose senders have unread notifications of messages up to theirs.
pub(crate) fn insert_for_messages(
    messages: &[&Message],
    looking: &[Looker],
) -> Result<(Vec<Notification>, Vec<String>), Error> {
    let participants_max = config::number("participants_max", 1000);
    let rows =
        query(MESSAGES, &params![json(&messages), json(&looking), participants_max, BODY_CHARS_MAX as u64])?;
    let (mut notifications, mut senders) = (Vec::new(), Vec::new());
    for OfMessage { event_id, user_id, notification } in rows.all()? {
        match notification {
            Some(notification) => notifications.push(Notification { user_id, notification }),
            None => senders.push(event_id),
        }
    }
    Ok((notifications, senders))
}

/// The contents that these edits replaced. An edit whose row housekeeping has removed has none.
pub(crate) fn find_originals(edits: &[&Message]) -> Result<Vec<Original>, Error> {
    let ids: Vec<String> = edits.iter().map(|edit| edit.event_id().to_owned()).collect();
    Ok(query(ORIGINALS, &params![ids])?.all()?)
}

/// Notifies the users whom these edits mention and the messages did not mention before.
pub(crate) fn insert_for_mentions(edits: &[Edit<'_>]) -> Result<Vec<Notification>, Error> {
    Ok(query(MENTIONS, &params![json(&edits), BODY_CHARS_MAX as u64])?.all()?)
}

/// The outdated notifications of a message, at most `limit`.
pub(crate) fn find_outdated(message: Id, limit: usize) -> Result<Vec<Outdated>, Error> {
    Ok(query(OUTDATED, &params![message, BODY_CHARS_MAX as u64, limit as u64])?.all()?)
}

/// The unread notifications of messages up to these marks, at most `limit`.
pub(crate) fn find_unread(marks: &[ReadMark], limit: usize) -> Result<Vec<Affected>, Error> {
    Ok(query(UNREAD, &params![json(&marks), limit as u64])?.all()?)
}

/// The notifications of conversations that their users have left and not joined again, at most `limit`.
pub(crate) fn find_left(departures: &[Departure], limit: usize) -> Result<Vec<Affected>, Error> {
    Ok(query(LEFT, &params![json(&departures), limit as u64])?.all()?)
}

/// Stores complete notifications, each for one user.
pub(crate) fn insert_complete<T: Borrow<CompleteNotification> + Serialize>(
    notifications: &[T],
) -> Result<Vec<Notification>, Error> {
    Ok(query(COMPLETE, &params![json(&notifications)])?.all()?)
}

/// The participants of a conversation, without those who set its notifications to `none`: by id, after the
/// user `after`, at most `limit`.
pub(crate) fn users_to_notify(conversation: Id, after: &str, limit: usize) -> Result<Vec<String>, Error> {
    let rows: Vec<Person> = query(PEOPLE, &params![conversation, after, limit as u64])?.all()?;
    Ok(rows.into_iter().map(|row| row.user_id).collect())
}

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data becomes JSON")
}

fn query(statement: &str, params: &[Value]) -> Result<Rows, Error> {
    Ok(postgres::query(statement, params)?)
}

/// An error that passes (no connection, a deadline, a deadlock) holds the events of the call. Any other error
/// means that the statement or the data of one event is wrong, so that event is rejected.
impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Self {
        let make = if error.is_transient() { Self::Unavailable } else { Self::Failed };
        make(format!("{error:?}"))
    }
}

/// A statement does not return the columns of its struct: a mistake of this release.
impl From<postgres::Mismatch> for Error {
    fn from(mismatch: postgres::Mismatch) -> Self {
        Self::Failed(mismatch.to_string())
    }
}
