//! Storing a message: one collected transaction, its verdict, and what a key already stands for.

use chat::{membership, outbox, problem};
use sdk::postgres::{self, Collected};
use sdk::{Id, Problem, clock, config, log, params, time, wake};

use crate::rules::Draft;

const LOCK: &str = include_str!("sql/lock.sql");
const APPEND: &str = include_str!("sql/append.sql");
const REPLIED_TO: &str = include_str!("sql/replied_to.sql");
const REPLAY: &str = include_str!("sql/replay.sql");

/// A message on its way back: JSON as every answer and push has it.
pub enum Append {
    Stored(String),
    /// Its key was used before, for this same message.
    Duplicate(String),
}

sdk::rows! {
    struct Outcome { verdict: String, shard: u32, message: Option<String> }
    struct Known { fingerprint: i64, message: Option<String> }
}

/// Where the conversation's last message is looked for.
#[derive(Clone, Copy, PartialEq)]
enum Search {
    /// Among the ids from this month on: where it nearly always is.
    Recent,
    Everywhere,
}

/// The outcome is known after COMMIT, and only then.
pub fn append(draft: &Draft, sender: &str) -> Result<Append, Problem> {
    if let Some(original) = draft.reply_to_id {
        // Messages are never taken away, so this need not be asked under the lock.
        let asked = params![original, draft.conversation_id, sender];
        if postgres::query(REPLIED_TO, &asked)?.cell()? == Some(true) {
            return Err(Problem::invalid("reply_to_id", "is no message of this conversation"));
        }
    }
    match append_after(draft, sender, Search::Recent)? {
        Some(outcome) => Ok(outcome),
        // The first message of this month.
        None => append_after(draft, sender, Search::Everywhere)?.ok_or_else(Problem::internal),
    }
}

/// None: the conversation has no message where its last one was looked for.
fn append_after(draft: &Draft, sender: &str, search: Search) -> Result<Option<Append>, Problem> {
    let outcome: Option<Outcome> = postgres::collect(&collected(draft, sender, search))?.one()?;
    let Some(outcome) = outcome else { return Err(Problem::internal()) };
    match (outcome.verdict.as_str(), outcome.message) {
        ("accepted", Some(message)) => {
            wake::outbox(&[outcome.shard]);
            Ok(Some(Append::Stored(message)))
        }
        ("cold", _) => Ok(None),
        ("duplicate", _) => match replay(draft, sender)? {
            Some(message) => Ok(Some(Append::Duplicate(message))),
            // The key's first user was rolled back while this call waited for it.
            None => Err(Problem::unavailable()),
        },
        // What was stored before it came to this is stored.
        (refusal @ ("forbidden" | "archived"), _) => match replay(draft, sender)? {
            Some(message) => Ok(Some(Append::Duplicate(message))),
            None if refusal == "forbidden" => Err(Problem::forbidden("observers read only")),
            None => Err(problem::archived()),
        },
        ("not_found", _) => Err(membership::unseen(draft.conversation_id, sender, "conversation")),
        ("wrong_clock", _) => {
            log::error("this node's clock and the database's are more than a day apart", &[]);
            Err(Problem::unavailable())
        }
        _ => Err(Problem::internal()),
    }
}

/// What the draft's key stands for: nothing, this message, or another one.
pub fn replay(draft: &Draft, sender: &str) -> Result<Option<String>, Problem> {
    let Some(key) = &draft.key else { return Ok(None) };
    let known: Option<Known> = postgres::query(REPLAY, &params![sender, key])?.one()?;
    match known {
        None => Ok(None),
        Some(known) if known.fingerprint != draft.fingerprint() => Err(problem::idempotency_conflict()),
        Some(Known { message: Some(message), .. }) => Ok(Some(message)),
        Some(_) => Err(membership::unseen(draft.conversation_id, sender, "conversation")),
    }
}

fn collected(draft: &Draft, sender: &str, search: Search) -> Collected {
    let now = clock::now_ms();
    let lanes = config::number("lanes", 1).max(1);
    Collected {
        statements: vec![LOCK.to_owned(), statement(now, search)],
        // In the order of `$2`…, the columns of `asked`.
        row: params![
            outbox::key(draft.conversation_id),
            draft.conversation_id,
            sender,
            Id::at(now, &sdk::random::bytes()),
            draft.key.as_ref(),
            draft.fingerprint(),
            &draft.content,
            draft.reply_to_id,
            draft.attachments.as_ref(),
            draft.metadata.as_ref(),
            draft.mentions.as_ref(),
            now,
            draft.body(sender, now),
        ]
        .to_vec(),
        lane: (draft.conversation_id.spread() % lanes) as u32,
    }
}

/// The same text all month long: it is planned once, with the partitions that it names.
fn statement(now: u64, search: Search) -> String {
    let (recent, everywhere) = match search {
        Search::Recent => {
            // One bound alone. Of a table that was never analysed the planner believes that two leave next to nothing, and
            // then reads the whole month to look for one head.
            (format!("m.id >= '{}'", Id::floor(time::month_start(now))), "false")
        }
        Search::Everywhere => ("true".to_owned(), "true"),
    };
    APPEND.replace("{recent}", &recent).replace("{everywhere}", everywhere)
}
