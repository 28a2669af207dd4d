//! Reads pages from a cache, or from Postgres. Each request reads the caller's membership and the heads of
//! the conversation from Postgres. The name of a cached page contains the heads, so a cached page is never
//! outdated.

use chat::{keys, membership};
use sdk::{Id, Problem, clock, log, params, postgres, redis, time};

use crate::rules::{Heads, Page};

const STAND: &str = include_str!("sql/stand.sql");
const PAGE: &str = include_str!("sql/page.sql");
/// The size of the largest cached page. Larger ones are rare, and each would evict many small ones.
const CACHED_BYTES_MAX: usize = 256 * 1024;

sdk::rows! {
    struct Read { seq: u64, change: u64, epoch: u32 }
    /// A page; the messages are JSON.
    pub struct Answer { messages: String, has_more: bool }
}

pub(crate) fn read(conversation: Id, user: &str, page: &Page) -> Result<Answer, Problem> {
    let this_month = Id::floor(time::month_start(clock::now_ms()));
    let read: Option<Read> = postgres::query(STAND, &params![conversation, user, this_month])?.one()?;
    let read = read.ok_or_else(|| membership::unseen(conversation, user, "conversation"))?;
    let heads = Heads { seq: read.seq, change: read.change, epoch: read.epoch };
    let key = keys::page(conversation, &page.name(heads));
    if let Some(answer) = cached(&key) {
        return Ok(answer);
    }
    // Postgres plans a statement once, so each direction has a statement of its own, and so has the search
    // that uses the index of messages that no user wrote.
    let statement = PAGE
        .replace("{direction}", if page.is_forward() { "asc" } else { "desc" })
        .replace("{beside_texts}", if page.is_beside_texts() { "and message.type <> 'text'" } else { "" });
    let rows = postgres::query(
        &statement,
        &params![
            conversation,
            user,
            page.end(heads),
            page.after,
            page.kind.as_ref(),
            page.limit,
            page.form.bytes_max()
        ],
    )?;
    let answer: Option<Answer> = rows.one()?;
    let answer = answer.ok_or_else(|| membership::unseen(conversation, user, "conversation"))?;
    store(&key, &answer);
    Ok(answer)
}

/// Stores a page in the cache. If Redis fails, the next request reads the page from Postgres again.
fn store(key: &str, answer: &Answer) {
    if answer.messages.len() > CACHED_BYTES_MAX {
        return;
    }
    let (mark, ttl) = (if answer.has_more { "+" } else { "." }, keys::PAGE_TTL_S.to_string());
    if let Err(error) = redis::command(&["SET", key, &format!("{mark}{}", answer.messages), "EX", &ttl]) {
        log::warn("a page of history was not cached", &[("why", &redis::describe(&error))]);
    }
}

fn cached(key: &str) -> Option<Answer> {
    match redis::command(&["GET", key]) {
        Ok(reply) => {
            let (mark, messages) = reply.text()?.split_at_checked(1)?;
            Some(Answer { messages: messages.to_owned(), has_more: mark == "+" })
        }
        Err(error) => {
            log::warn(
                "reading history from Postgres: the cache failed",
                &[("why", &redis::describe(&error))],
            );
            None
        }
    }
}
