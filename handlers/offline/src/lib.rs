//! Sends a user's next connection the messages that were sent while the user had no connection. There is no
//! queue that could be lost: Redis knows since when the user was away, and the messages are read from
//! Postgres. Live messages come by subscriptions, not from this handler.

mod rules;

use chat::{keys, marks};
use std::collections::BTreeMap;

use rules::{Delivery, Message, Waiting};
use sdk::connection::{self, Opened};
use sdk::postgres::{self, Collected};
use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Id, Problem, Push, clock, frame, log, params, time};
use serde_json::json;

const WAITING: &str = include_str!("sql/waiting.sql");
const PAGE: &str = include_str!("sql/page.sql");

struct Offline;
connection::export!(Offline);

sdk::rows! {
    struct Found { since: String, waiting: String }
    struct Row { conversation_id: Id, seq: u64, frame: String }
}

impl connection::Handler for Offline {
    fn open(opened: Opened) -> Result<Vec<Push>, Problem> {
        let gone_ms = match absence(&opened) {
            Ok(Absence::None) => return Ok(Vec::new()),
            Ok(Absence::Since(gone_ms)) => gone_ms,
            // Without the time, the client may get messages again. It recognises them by their seq.
            Err(error) => {
                log::warn("not known how long somebody was away", &[("why", &redis::describe(&error))]);
                None
            }
        };
        let user = &opened.caller.user_id;
        let Some(Missed { since, waiting }) = missed(user, gone_ms)? else { return Ok(Vec::new()) };
        let messages = page(user, &waiting, &since)?;
        let heads = waiting.iter().map(|(id, waiting)| (*id, waiting.head)).collect();
        let Delivery { frames, delivered, resync } = rules::delivery(&heads, messages);
        // A failed mark does not keep the messages from being sent.
        if let Err(problem) = marks::deliver(user, &delivered) {
            log::warn("sent and not marked delivered", &[("why", &problem.code)]);
        }
        let resync = (!resync.is_empty())
            .then(|| frame::push("resync", &json!({ "conversation_ids": resync }).to_string()));
        Ok(frames.into_iter().chain(resync).map(|frame| Push { frame, position: None }).collect())
    }
}

enum Absence {
    /// The user has another connection.
    None,
    /// The user was away since this time, in milliseconds; `None` if it is unknown.
    Since(Option<u64>),
}

fn absence(opened: &Opened) -> Result<Absence, Error> {
    let user = &opened.caller.user_id;
    let mut pipeline = Pipeline::new();
    pipeline.push(&["HKEYS", &keys::leases(user)]);
    pipeline.push(&["HGET", &keys::presence(user), "gone"]);
    let replies = pipeline.run()?;
    let [leases, gone] = &replies[..] else { return Ok(Absence::Since(None)) };
    if leases.texts().any(|connection| connection != opened.connection) {
        return Ok(Absence::None);
    }
    Ok(Absence::Since(Reply::integer(gone).and_then(|ms| u64::try_from(ms).ok())))
}

/// The conversations with missed messages, and the smallest id of the absence.
struct Missed {
    since: String,
    waiting: BTreeMap<Id, Waiting>,
}

/// Reads what a user missed. Connections that open at the same time share one statement.
fn missed(user: &str, gone_ms: Option<u64>) -> Result<Option<Missed>, Problem> {
    let rows = postgres::collect(&Collected {
        statements: vec![WAITING.to_owned()],
        row: params![user, gone_ms, Id::floor(time::month_start(clock::now_ms()))].to_vec(),
        lane: 0,
    })?;
    let Some(found) = rows.one::<Found>()? else { return Ok(None) };
    let waiting: Vec<Waiting> = serde_json::from_str(&found.waiting).map_err(|error| {
        log::error("what waits is not what the code expects", &[("why", &error.to_string())]);
        Problem::internal()
    })?;
    let by_id = |waiting: Waiting| Some((Id::parse(&waiting.conversation_id)?, waiting));
    let waiting: BTreeMap<Id, Waiting> = waiting.into_iter().filter_map(by_id).collect();
    Ok((!waiting.is_empty()).then_some(Missed { since: found.since, waiting }))
}

fn page(user: &str, waiting: &BTreeMap<Id, Waiting>, since: &str) -> Result<Vec<Message>, Problem> {
    let conversations: Vec<Id> = waiting.keys().copied().collect();
    let after: Vec<i64> = waiting.values().map(|waiting| waiting.after as i64).collect();
    let most = rules::MESSAGES_MAX as u64 + 1;
    let rows = postgres::query(PAGE, &params![user, conversations.as_slice(), after, since, most])?;
    let rows: Vec<Row> = rows.all()?;
    let message = |row: Row| Message { conversation: row.conversation_id, seq: row.seq, frame: row.frame };
    Ok(rows.into_iter().map(message).collect())
}
