//! Storing a message: one collected transaction, its verdict, and what a key already stands for.

use sdk::postgres::{self, Collected};
use sdk::{Id, Problem, clock, config, outbox, params, time, wake};

use crate::rules::Draft;

const LOCK: &str = include_str!("sql/lock.sql");
const APPEND: &str = include_str!("sql/append.sql");
const REPLAY: &str = include_str!("sql/replay.sql");

/// A message on its way back: JSON as every answer and push has it.
pub enum Append {
    Stored(String),
    /// Its key was used before, for this same message.
    Duplicate(String),
}

sdk::rows! {
    struct Outcome { verdict: String, shard: u32, message: Option<String> }
    struct Known { fingerprint: i64, message: String }
}

/// The outcome is known after COMMIT, and only then.
pub fn append(draft: &Draft, sender: &str) -> Result<Append, Problem> {
    let outcome: Option<Outcome> = postgres::collect(&collected(draft, sender))?.one()?;
    let Some(outcome) = outcome else { return Err(Problem::internal()) };
    match (outcome.verdict.as_str(), outcome.message) {
        ("accepted", Some(message)) => {
            wake::outbox(&[outcome.shard]);
            Ok(Append::Stored(message))
        }
        ("duplicate", _) => match replay(draft, sender)? {
            Some(message) => Ok(Append::Duplicate(message)),
            // The key's first user was rolled back while this call waited for it.
            None => Err(Problem::unavailable()),
        },
        ("forbidden", _) => Err(Problem::forbidden("observers read only")),
        ("archived", _) => Err(Problem::archived()),
        ("unknown_reply", _) => Err(Problem::invalid("reply_to_id", "is no message of this conversation")),
        ("not_found", _) => Err(Problem::not_found("conversation")),
        _ => Err(Problem::internal()),
    }
}

/// What the draft's key stands for: nothing, this message, or another one.
pub fn replay(draft: &Draft, sender: &str) -> Result<Option<String>, Problem> {
    let Some(key) = &draft.key else { return Ok(None) };
    let known: Option<Known> = postgres::query(REPLAY, &params![sender, key])?.one()?;
    match known {
        None => Ok(None),
        Some(known) if known.fingerprint == draft.fingerprint() => Ok(Some(known.message)),
        Some(_) => Err(Problem::idempotency_conflict()),
    }
}

fn collected(draft: &Draft, sender: &str) -> Collected {
    let now = clock::now_ms();
    let lanes = config::number("lanes", 2).max(1);
    Collected {
        statements: vec![LOCK.to_owned(), APPEND.to_owned()],
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
            Id::floor(time::month_start(now)),
        ]
        .to_vec(),
        lane: (draft.conversation_id.spread() % lanes) as u32,
    }
}
