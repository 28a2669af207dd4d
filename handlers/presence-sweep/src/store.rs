//! Statements of this handler and what their answers mean.

use sdk::postgres::{self, Collected};
use sdk::{Id, Principal, Problem, params, wake};

const LIST: &str = include_str!("sql/list.sql");
const NUMBERS: &str = include_str!("sql/numbers.sql");
const ANNOUNCE: &str = include_str!("sql/announce.sql");

/// Somebody's presence changed.
pub struct Change {
    pub user: String,
    pub payload: String,
}

/// The directory learns who this is. Many who connect at once are written at once.
pub fn list(caller: &Principal) -> Result<(), Problem> {
    postgres::collect(&Collected {
        statements: vec![LIST.to_owned(), NUMBERS.to_owned()],
        row: params![&caller.user_id, caller.name.as_ref()].to_vec(),
        lane: 0,
    })?;
    Ok(())
}

pub fn announce(event_type: &str, changes: &[Change]) -> Result<(), Problem> {
    if changes.is_empty() {
        return Ok(());
    }
    let ids: Vec<Id> = changes.iter().map(|_| Id::make()).collect();
    let users: Vec<String> = changes.iter().map(|change| change.user.clone()).collect();
    let payloads: Vec<String> = changes.iter().map(|change| change.payload.clone()).collect();
    let rows = postgres::query(ANNOUNCE, &params![ids.as_slice(), users, payloads, event_type])?;
    let mut shards = rows.iter().map(|row| row.get("shard")).collect::<Result<Vec<u32>, _>>()?;
    shards.sort_unstable();
    shards.dedup();
    wake::outbox(&shards);
    Ok(())
}
