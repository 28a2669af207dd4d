//! Statements of this handler and what their answers mean.

use sdk::postgres::{self, Rows, Value};
use sdk::{Id, config, params};
use serde::Serialize;

use crate::Trouble;
use crate::looking::Looker;
use crate::rules::Message;

const MESSAGES: &str = include_str!("sql/messages.sql");
const GIVEN: &str = include_str!("sql/given.sql");
const PEOPLE: &str = include_str!("sql/people.sql");

sdk::rows! {
    /// What is to be pushed to whom.
    pub struct Notification { user_id: String, notification: String }
    struct Person { user_id: String }
}

pub fn messages(messages: &[&Message], looking: &[Looker]) -> Result<Vec<Notification>, Trouble> {
    let most = config::number("participants_max", 1000);
    let rows = query(MESSAGES, &params![json(&messages), json(&looking), most])?;
    Ok(rows.all()?)
}

pub fn given<T: Serialize>(given: &[T]) -> Result<Vec<Notification>, Trouble> {
    Ok(query(GIVEN, &params![json(&given)])?.all()?)
}

/// Participants after somebody, by id.
pub fn people(conversation: Id, after: &str, most: usize) -> Result<Vec<String>, Trouble> {
    let rows: Vec<Person> = query(PEOPLE, &params![conversation, after, most as u64])?.all()?;
    Ok(rows.into_iter().map(|row| row.user_id).collect())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data becomes JSON")
}

fn query(statement: &str, params: &[Value]) -> Result<Rows, Trouble> {
    postgres::query(statement, params).map_err(|error| {
        let trouble = if error.passes() { Trouble::Away } else { Trouble::Failed };
        trouble(format!("{error:?}"))
    })
}

impl From<postgres::Mismatch> for Trouble {
    fn from(mismatch: postgres::Mismatch) -> Self {
        Self::Failed(mismatch.to_string())
    }
}
