//! The SQL statements of this handler.

use chat::keys;
use chat::membership::{self, LockedConversation};
use sdk::redis::{self, describe};
use sdk::{Id, Problem, log, params, postgres};

const PEOPLE: &str = include_str!("sql/people.sql");
const PARTICIPANT: &str = include_str!("sql/participant.sql");
const MUTE: &str = include_str!("sql/mute.sql");

sdk::rows! {
    struct Person { user_id: Option<String>, participant: Option<String> }
}

/// The participants, each with the user id and JSON; one more than `limit` if there is a next page.
pub(crate) fn people(
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

/// A participant as JSON, read inside the open transaction.
pub(crate) fn participant(locked: &LockedConversation, user: &str) -> Result<String, Problem> {
    let text: Option<String> = locked.transaction.query(PARTICIPANT, &params![locked.id, user])?.cell()?;
    text.ok_or_else(|| Problem::not_found("participant"))
}

pub(crate) fn mute(locked: &LockedConversation, user: &str, notifications: &str) -> Result<(), Problem> {
    locked.transaction.execute(MUTE, &params![locked.id, user, notifications])?;
    Ok(())
}

/// Deletes the cache key of former releases. A mute concerns nobody else, so no event announces it.
pub(crate) fn forget(conversation: Id) {
    if let Err(error) = redis::command(&["UNLINK", &keys::participants(conversation)]) {
        log::warn("cached participants were not deleted", &[("why", &describe(&error))]);
    }
}
