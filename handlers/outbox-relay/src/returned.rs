//! Finds the users who left a conversation and have joined again. Postgres has the present state; the event
//! is older.

use std::collections::BTreeSet;

use sdk::{Id, params, postgres};

use crate::events::Departure;

const RETURNED: &str = include_str!("sql/returned.sql");

sdk::rows! {
    struct Returned { conversation_id: Id, user_id: String }
}

/// The users who are participants again; an error has the reason.
pub(crate) fn among(gone: &[&Departure]) -> Result<BTreeSet<(Id, String)>, String> {
    if gone.is_empty() {
        return Ok(BTreeSet::new());
    }
    let conversations: Vec<Id> = gone.iter().map(|gone| gone.conversation).collect();
    let users: Vec<String> = gone.iter().map(|gone| gone.user.clone()).collect();
    let rows = postgres::query(RETURNED, &params![conversations.as_slice(), users])
        .map_err(|error| format!("who came back: {error:?}"))?;
    let rows: Vec<Returned> = rows.all().map_err(|mismatch| format!("who came back: {mismatch}"))?;
    Ok(rows.into_iter().map(|row| (row.conversation_id, row.user_id)).collect())
}
