//! Statements of this handler and what their answers mean.

use chat::{marks, membership};
use sdk::{Id, Problem, params, postgres};

use crate::rules::Question;

const READ: &str = include_str!("sql/read.sql");
const RECEIPTS: &str = include_str!("sql/receipts.sql");

sdk::rows! {
    /// Where a reader stands now.
    pub struct Standing { through_seq: u64, unread: u64, moved: bool, shard: u32 }
    struct Receipts { known: bool, answer: String }
}

pub fn read(conversation: Id, user: &str, up_to: u64) -> Result<Standing, Problem> {
    let marked = postgres::collect(&marks::collected(READ, user, "read", &[(conversation, up_to)].into()))?;
    let standing: Option<Standing> = marked.one()?;
    let standing = standing.ok_or_else(|| membership::unseen(conversation, user, "conversation"))?;
    marks::wake(standing.moved.then_some(standing.shard).into_iter());
    Ok(standing)
}

/// The whole answer. What is not yours is answered like a message that is not there.
pub fn receipts(conversation: Id, user: &str, question: &Question) -> Result<String, Problem> {
    let found = postgres::query(
        RECEIPTS,
        &params![conversation, user, question.seq, question.after.as_ref(), question.limit],
    )?;
    let receipts: Option<Receipts> = found.one()?;
    match receipts {
        Some(Receipts { known: true, answer }) => Ok(answer),
        _ => Err(membership::unseen(conversation, user, "message")),
    }
}
