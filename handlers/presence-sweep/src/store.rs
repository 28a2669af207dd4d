//! The SQL statements of this handler.

use chat::outbox;
use std::collections::BTreeSet;

use sdk::connection_batch::{Closed, Opened};
use sdk::postgres::{self, Collected, Rows};
use sdk::{Id, Problem, params, text, wake};
use serde_json::{Value, json};

const LIST: &str = include_str!("sql/list.sql");
const TELL: &str = include_str!("sql/tell.sql");
const HERE: &str = include_str!("sql/here.sql");

sdk::rows! {
    struct Person { user_id: String, last_seen_ms: u64 }
}

/// The event of a connection.
struct Event<'a> {
    user: &'a str,
    payload: Value,
    /// Whether to write the directory entry of the user, with the name in the token.
    unlisted: bool,
    name: Option<String>,
}

/// Writes the events of opened connections, and the directory entries of the users who are `unlisted`.
pub(crate) fn opened(node: &str, opened: &[Opened], unlisted: &[bool]) -> Result<(), Problem> {
    let events: Vec<_> = opened
        .iter()
        .zip(unlisted)
        .map(|(opened, &unlisted)| Event {
            user: &opened.caller.user_id,
            payload: json!({
                "connection": opened.connection,
                "user_id": opened.caller.user_id,
                "node": node,
                "user_agent": opened.user_agent,
            }),
            unlisted,
            // A name without a visible character counts as absent.
            name: text::name_in_token(opened.caller.name.as_deref()),
        })
        .collect();
    write(outbox::SOCKET_CONNECT, &events)
}

/// Writes the events of closed connections.
pub(crate) fn closed(node: &str, closed: &[Closed]) -> Result<(), Problem> {
    let events: Vec<_> = closed
        .iter()
        .map(|closed| Event {
            user: &closed.user_id,
            payload: json!({
                "connection": closed.connection,
                "user_id": closed.user_id,
                "node": node,
                "code": closed.code,
            }),
            unlisted: false,
            name: None,
        })
        .collect();
    write(outbox::SOCKET_DISCONNECT, &events)
}

fn write(event_type: &str, events: &[Event<'_>]) -> Result<(), Problem> {
    let rows = match events {
        [] => return Ok(()),
        // Single events of concurrent calls share one transaction.
        [one] => {
            // With null, the statement writes no directory entry.
            let listed = one.unlisted.then_some(one.user);
            postgres::collect(&Collected {
                statements: vec![LIST.to_owned(), TELL.to_owned()],
                row: params![
                    listed,
                    one.name.as_deref(),
                    Id::make(),
                    event_type,
                    one.user,
                    one.payload.to_string()
                ]
                .to_vec(),
                lane: 0,
            })?
        }
        many => return write_all(event_type, many),
    };
    wake(&rows)
}

fn wake(rows: &Rows) -> Result<(), Problem> {
    let shards = rows.iter().map(|row| row.get("shard")).collect::<Result<BTreeSet<u32>, _>>()?;
    if !shards.is_empty() {
        wake::outbox(&shards.into_iter().collect::<Vec<_>>());
    }
    Ok(())
}

/// Writes the directory entries of the users who are unlisted, and the events of all. The events are written
/// although the entries were not: most users have one already.
fn write_all(event_type: &str, events: &[Event<'_>]) -> Result<(), Problem> {
    let numbers: Vec<i64> = (0..events.len() as i64).collect();
    let texts = |of: fn(&Event<'_>) -> String| events.iter().map(of).collect::<Vec<_>>();
    let listing = if events.iter().any(|event| event.unlisted) {
        let listed = events.iter().map(|event| event.unlisted.then_some(event.user));
        let names = events.iter().map(|event| event.name.as_deref());
        let [listed, names] = [postgres::array_with_nulls(listed), postgres::array_with_nulls(names)];
        postgres::execute(LIST, &params![numbers.clone(), listed, names]).map(drop)
    } else {
        Ok(())
    };
    // `Id::make` would cost two host calls for each event.
    let (first, last) = (Id::make(), events.len() as u64);
    let ids: Vec<Id> = (0..last).map(|n| Id::derived(first, &n.to_be_bytes())).collect();
    let nobody: Vec<String> = Vec::new();
    let rows = postgres::query(
        TELL,
        &params![
            numbers,
            nobody.clone(),
            nobody,
            ids.as_slice(),
            vec![event_type.to_owned(); events.len()],
            texts(|event| event.user.to_owned()),
            texts(|event| event.payload.to_string()),
        ],
    )?;
    wake(&rows)?;
    Ok(listing?)
}

/// At most `most` users who are online in Postgres, each with the time when the user was last seen.
pub(crate) fn online(most: u64) -> Result<Vec<(String, u64)>, Problem> {
    let people: Vec<Person> = postgres::query(HERE, &params![most])?.all()?;
    Ok(people.into_iter().map(|person| (person.user_id, person.last_seen_ms)).collect())
}
