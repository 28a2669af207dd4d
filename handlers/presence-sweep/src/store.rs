//! The SQL statements of this handler.

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

/// Writes the event of an opened connection, and the directory entry of its user if `unlisted`. Connections
/// that open at the same time share one transaction.
pub(crate) fn opened(opened: &Opened, unlisted: bool) -> Result<(), Problem> {
    let payload = json!({
        "connection": opened.connection,
        "user_id": opened.caller.user_id,
        "node": opened.node,
        "user_agent": opened.user_agent,
    });
    // With null, the statement writes no directory entry.
    let listed = unlisted.then_some(&opened.caller.user_id);
    // A name without a visible character counts as absent.
    let name = text::name_in_token(opened.caller.name.as_deref());
    write(outbox::SOCKET_CONNECT, &opened.caller.user_id, &payload, listed, name.as_ref())
}

/// Writes the event of a closed connection.
pub(crate) fn closed(closed: &Closed) -> Result<(), Problem> {
    let payload = json!({
        "connection": closed.connection,
        "user_id": closed.user_id,
        "node": closed.node,
        "code": closed.code,
    });
    write(outbox::SOCKET_DISCONNECT, &closed.user_id, &payload, None, None)
}

fn write(
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

/// At most `most` users who are online in Postgres, each with the time when the user was last seen.
pub(crate) fn online(most: u64) -> Result<Vec<(String, u64)>, Problem> {
    let people: Vec<Person> = postgres::query(HERE, &params![most])?.all()?;
    Ok(people.into_iter().map(|person| (person.user_id, person.last_seen_ms)).collect())
}
