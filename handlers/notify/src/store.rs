//! Statements of this handler and what their answers mean.

use sdk::postgres::{self, Rows, Value};
use sdk::{Id, config, params};
use serde::Serialize;

use crate::Trouble;
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
    /// What is to be pushed to whom.
    pub struct Notification { user_id: String, notification: String }
    struct Person { user_id: String }
    /// What an edit replaced; the mentions are JSON.
    pub struct Original { id: String, content: String, mentions: Option<String> }
    /// A notification that does not say what its message says now.
    pub struct Outdated { id: Id, user_id: String, deleted: bool, body: Option<String> }
    /// A notification of a conversation that its person has read or left.
    pub struct Of { id: Id, user_id: String, conversation_id: Id }
}

pub fn messages(messages: &[&Message], looking: &[Looker]) -> Result<Vec<Notification>, Trouble> {
    let most = config::number("participants_max", 1000);
    let rows = query(MESSAGES, &params![json(&messages), json(&looking), most, BODY_CHARS_MAX as u64])?;
    Ok(rows.all()?)
}

/// By the ids of the events of the edits.
pub fn originals(edits: &[&Message]) -> Result<Vec<Original>, Trouble> {
    let ids: Vec<String> = edits.iter().map(|edit| edit.event_id().to_owned()).collect();
    Ok(query(ORIGINALS, &params![ids])?.all()?)
}

pub fn mentions(edits: &[Edit<'_>]) -> Result<Vec<Notification>, Trouble> {
    Ok(query(MENTIONS, &params![json(&edits), BODY_CHARS_MAX as u64])?.all()?)
}

pub fn outdated(message: Id, most: usize) -> Result<Vec<Outdated>, Trouble> {
    Ok(query(OUTDATED, &params![message, BODY_CHARS_MAX as u64, most as u64])?.all()?)
}

pub fn unread(seen: &[Seen], most: usize) -> Result<Vec<Of>, Trouble> {
    Ok(query(UNREAD, &params![json(&seen), most as u64])?.all()?)
}

pub fn left(departures: &[Departure], most: usize) -> Result<Vec<Of>, Trouble> {
    Ok(query(LEFT, &params![json(&departures), most as u64])?.all()?)
}

pub fn given<T: Serialize>(given: &[T]) -> Result<Vec<Notification>, Trouble> {
    Ok(query(GIVEN, &params![json(&given)])?.all()?)
}

/// Participants after somebody, by id.
pub fn people(conversation: Id, after: &str, most: usize) -> Result<Vec<String>, Trouble> {
    let rows: Vec<Person> = query(PEOPLE, &params![conversation, after, most as u64])?.all()?;
    Ok(rows.into_iter().map(|row| row.user_id).collect())
}

pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data becomes JSON")
}

fn query(statement: &str, params: &[Value]) -> Result<Rows, Trouble> {
    Ok(postgres::query(statement, params)?)
}

impl From<postgres::Error> for Trouble {
    fn from(error: postgres::Error) -> Self {
        let trouble = if error.is_transient() { Self::Away } else { Self::Failed };
        trouble(format!("{error:?}"))
    }
}

impl From<postgres::Mismatch> for Trouble {
    fn from(mismatch: postgres::Mismatch) -> Self {
        Self::Failed(mismatch.to_string())
    }
}
