//! Stores a message in one collected transaction, and finds the earlier message with the same key.

use chat::{membership, outbox, problem};
use sdk::postgres::{self, Collected};
use sdk::{Id, Problem, clock, config, log, params, time, wake};

use crate::rules::Draft;

const LOCK: &str = include_str!("sql/lock.sql");
const APPEND: &str = include_str!("sql/append.sql");
const REPLIED_TO: &str = include_str!("sql/replied_to.sql");
const REPLAY: &str = include_str!("sql/replay.sql");

/// The stored message as responses and pushes show it, in JSON.
pub(crate) enum Append {
    Stored(String),
    /// The key was used before for the same message, which is this one.
    Duplicate(String),
}

sdk::rows! {
    struct Outcome { verdict: String, shard: u32, message: Option<String> }
    struct Known { fingerprint: i64, message: Option<String> }
}

/// The partitions in which the last message of the conversation is searched.
#[derive(Clone, Copy, PartialEq)]
enum Search {
    /// The partitions from this month on, which almost always have it.
    Recent,
    Everywhere,
}

/// Stores a message. It returns only after COMMIT.
pub(crate) fn append(draft: &Draft, sender: &str) -> Result<Append, Problem> {
    if let Some(original) = draft.reply_to_id {
        // Message rows are never deleted, so this needs no lock.
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

/// Stores a message. `None` if the searched partitions have no message of the conversation.
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
            // The first call with this key was rolled back while this call waited for it.
            None => Err(Problem::unavailable()),
        },
        // A retry of a message that was stored earlier still succeeds.
        (refusal @ ("forbidden" | "archived"), _) => match replay(draft, sender)? {
            Some(message) => Ok(Some(Append::Duplicate(message))),
            None if refusal == "forbidden" => Err(Problem::forbidden("observers read only")),
            None => Err(problem::archived()),
        },
        ("not_found", _) => Err(membership::unseen(draft.conversation_id, sender, "conversation")),
        ("wrong_clock", _) => {
            log::error(
                "message refused: the clocks of this node and of the database differ by more than a day",
                &[],
            );
            Err(Problem::unavailable())
        }
        _ => Err(Problem::internal()),
    }
}

/// The stored message with the draft's key; `None` if there is none. A key of another message is a conflict.
pub(crate) fn replay(draft: &Draft, sender: &str) -> Result<Option<String>, Problem> {
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
        // The values are in the order of `$2`…, the columns of `asked`.
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

/// The statement. Its text is the same for a whole month, so Postgres plans it once, for the partitions that
/// it names.
fn statement(now: u64, search: Search) -> String {
    let (recent, everywhere) = match search {
        Search::Recent => {
            // Only one bound is used. In a table without statistics the planner assumes that two bounds leave
            // almost no rows, and would read the whole month to find one head.
            (format!("m.id >= '{}'", Id::floor(time::month_start(now))), "false")
        }
        Search::Everywhere => ("true".to_owned(), "true"),
    };
    APPEND.replace("{recent}", &recent).replace("{everywhere}", everywhere)
}

#[cfg(test)]
mod tests {
    use chat::Act;
    use chat::conversation::Role;

    use super::*;

    /// The statement decides this permission itself, because it appends for many senders at once.
    #[test]
    fn the_statement_refuses_exactly_the_roles_that_the_table_refuses() {
        for role in [Role::Owner, Role::Admin, Role::Member, Role::Observer] {
            let refusal = format!("participant.role = '{}' then 'forbidden'", role.as_str());
            assert_eq!(APPEND.contains(&refusal), !role.may(Act::Send), "{role:?}");
        }
    }
}
