//! Statements of this handler and what their answers mean.

use chat::keys;
use chat::membership::{self, Room};
use sdk::redis::{self, describe};
use sdk::{Id, Problem, log, params, postgres};

const PEOPLE: &str = include_str!("sql/people.sql");
const PARTICIPANT: &str = include_str!("sql/participant.sql");
const MUTE: &str = include_str!("sql/mute.sql");

sdk::rows! {
    struct Person { user_id: Option<String>, participant: Option<String> }
}

/// One more than `limit` when there is a next page.
pub fn people(
    conversation: Id,
    user: &str,
    after: &str,
    limit: u64,
) -> Result<Vec<(String, String)>, Problem> {
    let rows: Vec<Person> = postgres::query(PEOPLE, &params![conversation, user, after, limit + 1])?.all()?;
    if rows.is_empty() {
        return Err(membership::unseen(conversation, user, "conversation"));
    }
    Ok(rows.into_iter().filter_map(|row| row.user_id.zip(row.participant)).collect())
}

/// As answers show them, read inside the room's transaction.
pub fn participant(room: &Room, user: &str) -> Result<String, Problem> {
    let text: Option<String> = room.transaction.query(PARTICIPANT, &params![room.id, user])?.cell()?;
    text.ok_or_else(|| Problem::not_found("participant"))
}

pub fn mute(room: &Room, user: &str, notifications: &str) -> Result<(), Problem> {
    room.transaction.execute(MUTE, &params![room.id, user, notifications])?;
    Ok(())
}

/// A mute is nobody else's business, so no event tells of it: what Redis remembers of these people goes here.
pub fn forget(conversation: Id) {
    if let Err(error) = redis::command(&["UNLINK", &keys::participants(conversation)]) {
        log::warn("participants are cached as they were", &[("why", &describe(&error))]);
    }
}
