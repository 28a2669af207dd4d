//! Who of those that left is there again. Asked of Postgres, where it is true now; the event is from before.

use std::collections::BTreeSet;

use sdk::{Id, params, postgres};

use crate::events::Gone;

const RETURNED: &str = include_str!("sql/returned.sql");

sdk::rows! {
    struct Returned { conversation_id: Id, user_id: String }
}

/// Or why it is not known.
pub fn among(gone: &[&Gone]) -> Result<BTreeSet<(Id, String)>, String> {
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
