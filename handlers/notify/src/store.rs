//! The SQL statements of this handler.

use sdk::postgres::{self, Rows, Value};
use sdk::{Id, config, params};
use serde::Serialize;

use crate::Error;
use crate::looking::Looker;
use crate::rules::{BODY_CHARS_MAX, Departure, Edit, Message, Seen};

const MESSAGES: &str = include_str!("sql/messages.sql");
const GIVEN: &str = include_str!("sql/given.sql");
const PEOPLE: &str = include_str!("sql/people.sql");
const ORIGINALS: &str = include_str!("sql/originals.sql");
const MENTIONS: &str = include_str!("sql/mentions.sql");
const OUTDATED: &str = include_str!("sql/outdated.sql");
const UNREAD: &str = include_str!("sql/unread.sql");
const LEFT: &str = include_str!("sql/left.sql");

sdk::rows! {
    /// A notification to push, in JSON.
    pub struct Notification { user_id: String, notification: String }
    struct Person { user_id: String }
    /// The content and mentions (JSON) that an edit replaced.
    pub struct Original { id: String, content: String, mentions: Option<String> }
    /// A notification whose text differs from that of its message.
    pub struct Outdated { id: Id, user_id: String, deleted: bool, body: Option<String> }
    /// A notification of a conversation that its user has read or left.
    pub struct Affected { id: Id, user_id: String, conversation_id: Id }
}

pub fn messages(messages: &[&Message], looking: &[Looker]) -> Result<Vec<Notification>, Error> {
    let most = config::number("participants_max", 1000);
    let rows = query(MESSAGES, &params![json(&messages), json(&looking), most, BODY_CHARS_MAX as u64])?;
    Ok(rows.all()?)
}

/// The originals of these edits; `id` is the id of the edit's event.
pub fn originals(edits: &[&Message]) -> Result<Vec<Original>, Error> {
    let ids: Vec<String> = edits.iter().map(|edit| edit.event_id().to_owned()).collect();
    Ok(query(ORIGINALS, &params![ids])?.all()?)
}

pub fn mentions(edits: &[Edit<'_>]) -> Result<Vec<Notification>, Error> {
    Ok(query(MENTIONS, &params![json(&edits), BODY_CHARS_MAX as u64])?.all()?)
}

pub fn outdated(message: Id, most: usize) -> Result<Vec<Outdated>, Error> {
    Ok(query(OUTDATED, &params![message, BODY_CHARS_MAX as u64, most as u64])?.all()?)
}

pub fn unread(seen: &[Seen], most: usize) -> Result<Vec<Affected>, Error> {
    Ok(query(UNREAD, &params![json(&seen), most as u64])?.all()?)
}

pub fn left(departures: &[Departure], most: usize) -> Result<Vec<Affected>, Error> {
    Ok(query(LEFT, &params![json(&departures), most as u64])?.all()?)
}

pub fn given<T: Serialize>(given: &[T]) -> Result<Vec<Notification>, Error> {
    Ok(query(GIVEN, &params![json(&given)])?.all()?)
}

/// The participants after the user `after`, by id.
pub fn people(conversation: Id, after: &str, most: usize) -> Result<Vec<String>, Error> {
    let rows: Vec<Person> = query(PEOPLE, &params![conversation, after, most as u64])?.all()?;
    Ok(rows.into_iter().map(|row| row.user_id).collect())
}

pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data becomes JSON")
}

fn query(statement: &str, params: &[Value]) -> Result<Rows, Error> {
    Ok(postgres::query(statement, params)?)
}

impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Self {
        let make = if error.is_transient() { Self::Unavailable } else { Self::Failed };
        make(format!("{error:?}"))
    }
}

impl From<postgres::Mismatch> for Error {
    fn from(mismatch: postgres::Mismatch) -> Self {
        Self::Failed(mismatch.to_string())
    }
}
