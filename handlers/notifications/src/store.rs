//! The SQL statements of this handler.

use sdk::postgres::{self, Transaction};
use sdk::{Id, Problem, channels, clock, params, wake};

use crate::rules::PageRequest;

const LIST: &str = include_str!("sql/list.sql");
const LIST_TYPED: &str = include_str!("sql/list_typed.sql");
const LIST_UNREAD: &str = include_str!("sql/list_unread.sql");
const LOCK: &str = include_str!("sql/lock.sql");
const MARK: &str = include_str!("sql/mark.sql");
const MARK_ALL: &str = include_str!("sql/mark_all.sql");
const TELL_ALL: &str = include_str!("sql/tell_all.sql");
const DELETE: &str = include_str!("sql/delete.sql");

/// The rows that one statement marks.
const MARK_AT_ONCE: u64 = 5000;
/// The statements of one call. A client with more unread notifications calls again.
const MARK_STATEMENTS_MAX: usize = 40;

sdk::rows! {
    /// A JSON array, newest first, and the number of all unread notifications.
    pub struct Listed { unread: u64, notifications: String }
    /// A read notification, and the number of unread ones. The shard is present if this call marked it.
    struct Mark { notification: String, unread: u64, shard: Option<u32> }
}

/// A notification that is marked as read.
pub(crate) struct Marked {
    /// Its JSON text.
    pub notification: String,
    /// The number of all unread notifications of the user.
    pub unread: u64,
    /// Whether this call marked it.
    pub is_new: bool,
}

/// The `most` newest notifications.
pub(crate) fn newest(user: &str, most: u64) -> Result<Listed, Problem> {
    listed(postgres::query(LIST, &params![user, None::<Id>, most])?)
}

/// The notifications of a page; one more than `limit` if there is a next page.
pub(crate) fn list(user: &str, request: &PageRequest) -> Result<Listed, Problem> {
    let (after, most) = (request.after, request.limit + 1);
    let kind = request.kind.as_deref();
    listed(match kind {
        _ if request.only_unread => postgres::query(LIST_UNREAD, &params![user, after, most, kind])?,
        Some(kind) => postgres::query(LIST_TYPED, &params![user, after, most, kind])?,
        None => postgres::query(LIST, &params![user, after, most])?,
    })
}

fn listed(rows: postgres::Rows) -> Result<Listed, Problem> {
    rows.one()?.ok_or_else(Problem::internal)
}

pub(crate) fn mark_read(id: Id, user: &str) -> Result<Marked, Problem> {
    let transaction = locked(user)?;
    let row: Option<Mark> =
        transaction.query(MARK, &params![id, user, clock::now_ms(), Id::make()])?.one()?;
    let Some(row) = row else { return Err(Problem::not_found("notification")) };
    transaction.commit()?;
    wake::outbox(row.shard.as_slice());
    Ok(Marked { notification: row.notification, unread: row.unread, is_new: row.shard.is_some() })
}

/// Marks all present notifications as read. Returns how many were unread.
pub(crate) fn mark_all_read(user: &str) -> Result<u64, Problem> {
    let now = clock::now_ms();
    // Ids of one millisecond are not in the order of their creation, so the whole present millisecond is
    // included.
    let up_to = Id::floor(now + 1);
    let mut all = 0;
    for _ in 0..MARK_STATEMENTS_MAX {
        let transaction = locked(user)?;
        let marked =
            transaction.query(MARK_ALL, &params![user, up_to, now, MARK_AT_ONCE])?.cell()?.unwrap_or(0);
        if marked > 0 {
            let shard: Option<u32> =
                transaction.query(TELL_ALL, &params![user, up_to, now, Id::make()])?.cell()?;
            transaction.commit()?;
            wake::outbox(shard.as_slice());
        }
        all += marked;
        if marked < MARK_AT_ONCE {
            break;
        }
    }
    Ok(all)
}

pub(crate) fn delete(id: Id, user: &str) -> Result<(), Problem> {
    let transaction = locked(user)?;
    let shard: Option<u32> =
        transaction.query(DELETE, &params![id, user, clock::now_ms(), Id::make()])?.cell()?;
    let Some(shard) = shard else { return Err(Problem::not_found("notification")) };
    transaction.commit()?;
    wake::outbox(&[shard]);
    Ok(())
}

fn locked(user: &str) -> Result<Transaction, Problem> {
    let transaction = postgres::begin()?;
    transaction.execute(LOCK, &params![channels::user(user)])?;
    Ok(transaction)
}
