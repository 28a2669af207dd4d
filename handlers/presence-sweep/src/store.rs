//! Statements of this handler and what their answers mean.

use chat::outbox;
use sdk::connection::{Closed, Opened};
use sdk::postgres::{self, Collected};
use sdk::{Id, Problem, params, text, wake};
use serde_json::{Value, json};

const LIST: &str = include_str!("sql/list.sql");
const TELL: &str = include_str!("sql/tell.sql");
const HERE: &str = include_str!("sql/here.sql");

sdk::rows! {
    struct Person { user_id: String, last_seen_ms: u64 }
}

/// A connection began: its event, and who this is where the directory has not heard of them for a while. Many who
/// connect at once are written at once.
pub fn arrived(opened: &Opened, unlisted: bool) -> Result<(), Problem> {
    let payload = json!({
        "connection": opened.connection,
        "user_id": opened.caller.user_id,
        "node": opened.node,
        "user_agent": opened.user_agent,
    });
    // Whom it has heard of is not listed again: a null is nobody.
    let listed = unlisted.then_some(&opened.caller.user_id);
    // A token's name in which nothing can be seen is no name.
    let name = text::name_in_token(opened.caller.name.as_deref());
    tell(outbox::SOCKET_CONNECT, &opened.caller.user_id, &payload, listed, name.as_ref())
}

pub fn left(closed: &Closed) -> Result<(), Problem> {
    let payload = json!({
        "connection": closed.connection,
        "user_id": closed.user_id,
        "node": closed.node,
        "code": closed.code,
    });
    tell(outbox::SOCKET_DISCONNECT, &closed.user_id, &payload, None, None)
}

fn tell(
    event_type: &str,
    user: &str,
    payload: &Value,
    listed: Option<&String>,
    name: Option<&String>,
) -> Result<(), Problem> {
    let rows = postgres::collect(&Collected {
        statements: vec![LIST.to_owned(), TELL.to_owned()],
        row: params![listed, name, Id::make(), event_type, user, payload.to_string()].to_vec(),
        lane: 0,
    })?;
    if let Some(row) = rows.iter().next() {
        wake::outbox(&[row.get("shard")?]);
    }
    Ok(())
}

/// Whom Postgres believes to be here, with when they were last seen; at most so many.
pub fn said_to_be_here(most: u64) -> Result<Vec<(String, u64)>, Problem> {
    let people: Vec<Person> = postgres::query(HERE, &params![most])?.all()?;
    Ok(people.into_iter().map(|person| (person.user_id, person.last_seen_ms)).collect())
}
