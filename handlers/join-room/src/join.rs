//! Lets users join public channels. The joins of concurrent calls share one collected transaction. The
//! statement applies the rules of `chat::membership::rules::State::join` to all of them at once.

use chat::membership::rules::{LARGE_ABOVE, PARTICIPANTS_MAX, unseen};
use chat::{outbox, problem};
use sdk::postgres::{self, Collected};
use sdk::{Id, Problem, clock, config, params, wake};

const LOCK: &str = include_str!("sql/lock.sql");
const JOIN: &str = include_str!("sql/join.sql");

sdk::rows! {
    struct Outcome { verdict: String, shard: u32, changes_shard: Option<u32> }
}

/// Adds the user to a public channel. If the user is a participant already, it changes nothing. It returns
/// only after COMMIT.
pub(crate) fn join(conversation: Id, user: &str) -> Result<(), Problem> {
    let outcome: Option<Outcome> = postgres::collect(&collected(conversation, user))?.one()?;
    let outcome = outcome.ok_or_else(Problem::internal)?;
    match outcome.verdict.as_str() {
        "joined" => {
            let shards: Vec<u32> = [outcome.shard].into_iter().chain(outcome.changes_shard).collect();
            wake::outbox(&shards);
            Ok(())
        }
        "already" => Ok(()),
        "not_found" => Err(unseen(false, "conversation")),
        "archived" => Err(problem::archived()),
        "full" => Err(problem::conversation_full()),
        _ => Err(Problem::internal()),
    }
}

fn collected(conversation: Id, user: &str) -> Collected {
    let lanes = config::number("lanes", 1).max(1);
    Collected {
        statements: vec![LOCK.to_owned(), statement()],
        // The values are in the order of `$2`…, the columns of `asked`.
        row: params![
            outbox::key(conversation),
            conversation,
            user,
            Id::make(),
            Id::make(),
            Id::make(),
            clock::now_ms(),
        ]
        .to_vec(),
        lane: (conversation.spread() % lanes) as u32,
    }
}

fn statement() -> String {
    JOIN.replace("{large_above}", &LARGE_ABOVE.to_string())
        .replace("{participants_max}", &PARTICIPANTS_MAX.to_string())
}
