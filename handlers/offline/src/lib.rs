//! Sends a user's next connection the messages that were sent while the user had no connection. There is no
//! queue that could be lost: Redis knows since when the user was away, and the messages are read from
//! Postgres. Live messages come by subscriptions, not from this handler.

mod rules;

use chat::{keys, marks};
use std::collections::BTreeMap;

use rules::{Delivery, Message, Waiting};
use sdk::connection_batch::{self, Opened, Opening};
use sdk::postgres::{self, Collected};
use sdk::redis::{self, Pipeline, Reply};
use sdk::{Id, Problem, Push, clock, frame, log, params, time};
use serde_json::json;

const WAITING: &str = include_str!("sql/waiting.sql");
const PAGE: &str = include_str!("sql/page.sql");

struct Offline;
connection_batch::export!(Offline);

sdk::rows! {
    struct Found { since: String, waiting: String }
    struct Place { n: u64 }
    struct Row { conversation_id: Id, seq: u64, frame: String }
}

impl connection_batch::Handler for Offline {
    /// Most users missed nothing, and one call finds that out for all connections of a batch. A connection
    /// whose user missed messages gets a call of its own, because these messages can be large.
    fn open(_: String, opened: Vec<Opened>) -> Vec<Opening> {
        match &opened[..] {
            [one] => vec![deliver(one).map_or_else(Opening::Failed, Opening::Pushes)],
            many => find(many),
        }
    }
}

/// Sends a connection what its user missed.
fn deliver(opened: &Opened) -> Result<Vec<Push>, Problem> {
    let absences = absences(std::slice::from_ref(opened));
    let Some(Absence::Since(gone_ms)) = absences.first() else { return Ok(Vec::new()) };
    let user = &opened.caller.user_id;
    let Some(Missed { since, waiting }) = missed(user, *gone_ms)? else { return Ok(Vec::new()) };
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

/// Finds the connections whose users missed messages. They are to be called alone, and so are all whose users
/// were away if it is unknown who missed something: one user may be the cause.
fn find(opened: &[Opened]) -> Vec<Opening> {
    let away: Vec<(usize, Option<u64>)> = absences(opened)
        .iter()
        .enumerate()
        .filter_map(|(place, absence)| match absence {
            Absence::None => None,
            Absence::Since(gone_ms) => Some((place, *gone_ms)),
        })
        .collect();
    let mut openings: Vec<Opening> = opened.iter().map(|_| Opening::Pushes(Vec::new())).collect();
    let places = missed_of_many(opened, &away).unwrap_or_else(|problem| {
        log::warn("not known who missed messages", &[("why", &problem.code)]);
        away.iter().map(|(place, _)| *place).collect()
    });
    places.into_iter().for_each(|place| openings[place] = Opening::Alone);
    openings
}

#[derive(Clone, Copy)]
enum Absence {
    /// The user has another connection.
    None,
    /// The user was away since this time, in milliseconds; `None` if it is unknown.
    Since(Option<u64>),
}

/// The absence of each connection's user, in one round trip.
fn absences(opened: &[Opened]) -> Vec<Absence> {
    let mut pipeline = Pipeline::new();
    for user in opened.iter().map(|opened| &opened.caller.user_id) {
        pipeline.push(&["HKEYS", &keys::leases(user)]);
        pipeline.push(&["HGET", &keys::presence(user), "gone"]);
    }
    let replies = pipeline.run().unwrap_or_else(|error| {
        // Without the time, a client may get messages again. It recognises them by their seq.
        log::warn("not known how long somebody was away", &[("why", &redis::describe(&error))]);
        Vec::new()
    });
    let absence = |(place, opened): (usize, &Opened)| match replies.get(2 * place..2 * place + 2) {
        Some([leases, _]) if leases.texts().any(|connection| connection != opened.connection) => {
            Absence::None
        }
        Some([_, gone]) => Absence::Since(Reply::integer(gone).and_then(|ms| u64::try_from(ms).ok())),
        _ => Absence::Since(None),
    };
    opened.iter().enumerate().map(absence).collect()
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

/// Returns the places of the connections whose users missed messages. `away` has the places of those who were
/// away, each with the time since then.
fn missed_of_many(opened: &[Opened], away: &[(usize, Option<u64>)]) -> Result<Vec<usize>, Problem> {
    if away.is_empty() {
        return Ok(Vec::new());
    }
    let month = Id::floor(time::month_start(clock::now_ms()));
    let users: Vec<String> = away.iter().map(|(place, _)| opened[*place].caller.user_id.clone()).collect();
    // Only the places, because what waits for 64 users can be more than an answer may have.
    let rows = postgres::query(
        &format!("select n from ({WAITING}) as found where waiting::text <> '[]' order by n"),
        &params![
            away.iter().map(|(place, _)| *place as i64).collect::<Vec<_>>(),
            users,
            postgres::array_with_nulls(away.iter().map(|(_, gone_ms)| *gone_ms)),
            vec![month; away.len()].as_slice(),
        ],
    )?;
    let places = rows.all::<Place>()?.into_iter().filter_map(|place| usize::try_from(place.n).ok());
    Ok(places.filter(|place| *place < opened.len()).collect())
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
