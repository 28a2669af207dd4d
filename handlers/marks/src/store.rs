//! The SQL statements of this handler.

use chat::{marks, membership};
use sdk::{Id, Problem, params, postgres};

use crate::rules::ReceiptsRequest;

const READ: &str = include_str!("sql/read.sql");
const RECEIPTS: &str = include_str!("sql/receipts.sql");

sdk::rows! {
    /// The user's read mark after the call.
    pub struct Marked { through_seq: u64, unread: u64, moved: bool, shard: u32 }
    struct Receipts { known: bool, answer: String }
}

/// Raises the user's read mark.
pub(crate) fn read(conversation: Id, user: &str, up_to: u64) -> Result<Marked, Problem> {
    let rows = postgres::collect(&marks::collected(READ, user, "read", &[(conversation, up_to)].into()))?;
    let marked: Option<Marked> = rows.one()?;
    let marked = marked.ok_or_else(|| membership::unseen(conversation, user, "conversation"))?;
    marks::wake(marked.moved.then_some(marked.shard).into_iter());
    Ok(marked)
}

/// The receipts of a message, as the JSON of the whole response. A message that the user cannot see does not
/// exist for them.
pub(crate) fn receipts(conversation: Id, user: &str, request: &ReceiptsRequest) -> Result<String, Problem> {
    let found = postgres::query(
        RECEIPTS,
        &params![conversation, user, request.seq, request.after.as_ref(), request.limit],
    )?;
    let receipts: Option<Receipts> = found.one()?;
    match receipts {
        Some(Receipts { known: true, answer }) => Ok(answer),
        _ => Err(membership::unseen(conversation, user, "message")),
    }
}
