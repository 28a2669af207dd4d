//! Where pages come from: a cache under a name that says all that a page depends on, and Postgres behind it. Who asks is
//! always looked up in Postgres, and so is where the conversation stands: a cached page is as current as any.

use chat::{keys, membership};
use sdk::{Id, Problem, clock, log, params, postgres, redis, time};

use crate::rules::{Page, Stand};

const STAND: &str = include_str!("sql/stand.sql");
const PAGE: &str = include_str!("sql/page.sql");
/// Larger pages are rare, and would push many small ones out.
const CACHED_BYTES_MAX: usize = 256 * 1024;

sdk::rows! {
    struct Standing { seq: u64, change: u64, epoch: u32 }
    /// The messages are JSON.
    pub struct Answer { messages: String, has_more: bool }
}

pub fn read(conversation: Id, user: &str, page: &Page) -> Result<Answer, Problem> {
    let this_month = Id::floor(time::month_start(clock::now_ms()));
    let standing: Option<Standing> =
        postgres::query(STAND, &params![conversation, user, this_month])?.one()?;
    let standing = standing.ok_or_else(|| membership::unseen(conversation, user, "conversation"))?;
    let stand = Stand { seq: standing.seq, change: standing.change, epoch: standing.epoch };
    let key = keys::page(conversation, &page.name(stand));
    if let Some(answer) = recall(&key) {
        return Ok(answer);
    }
    // Postgres plans a statement once, so each direction is its own; so is what an index of its own finds.
    let statement = PAGE
        .replace("{direction}", if page.is_forward() { "asc" } else { "desc" })
        .replace("{beside_texts}", if page.is_beside_texts() { "and message.type <> 'text'" } else { "" });
    let rows = postgres::query(
        &statement,
        &params![
            conversation,
            user,
            page.end(stand),
            page.after,
            page.kind.as_ref(),
            page.limit,
            page.form.bytes_max()
        ],
    )?;
    let answer: Option<Answer> = rows.one()?;
    let answer = answer.ok_or_else(|| membership::unseen(conversation, user, "conversation"))?;
    remember(&key, &answer);
    Ok(answer)
}

/// Without Redis a page is read anew; nobody waits for it to be kept.
fn remember(key: &str, answer: &Answer) {
    if answer.messages.len() > CACHED_BYTES_MAX {
        return;
    }
    let (mark, ttl) = (if answer.has_more { "+" } else { "." }, keys::PAGE_TTL_S.to_string());
    if let Err(error) = redis::command(&["SET", key, &format!("{mark}{}", answer.messages), "EX", &ttl]) {
        log::warn("a page was not kept", &[("why", &redis::describe(&error))]);
    }
}

fn recall(key: &str) -> Option<Answer> {
    match redis::command(&["GET", key]) {
        Ok(reply) => {
            let (mark, messages) = reply.text()?.split_at_checked(1)?;
            Some(Answer { messages: messages.to_owned(), has_more: mark == "+" })
        }
        Err(error) => {
            log::warn("no pages from Redis", &[("why", &redis::describe(&error))]);
            None
        }
    }
}
