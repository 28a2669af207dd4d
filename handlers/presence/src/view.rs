//! The presence of users as one viewer sees it. Redis has the present status. Postgres has the permissions
//! and the last announced status.

use chat::{keys, presence};
use std::collections::BTreeMap;

use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Problem, log, params, postgres};
use serde_json::Value;

const SEEN: &str = include_str!("sql/seen.sql");

sdk::rows! {
    struct Seen { user_id: String, status: Option<String>, last_seen_ms: Option<u64> }
}

/// The presence of each user, in order. A user whom the viewer may not see is offline, like one who was never
/// online.
pub(crate) fn of(viewer: &str, users: &[String]) -> Result<Vec<Value>, Problem> {
    let announced: Vec<Seen> = postgres::query(SEEN, &params![viewer, users])?.all()?;
    let mut visible: BTreeMap<&str, (&str, Option<u64>)> = announced
        .iter()
        .map(|seen| {
            let status = seen.status.as_deref().unwrap_or("offline");
            (seen.user_id.as_str(), (status, seen.last_seen_ms))
        })
        .collect();
    let present = present(visible.keys().copied());
    let present = present.unwrap_or_else(|error| {
        // Without Redis, the last announced status is used.
        log::warn("presence as it was last told", &[("why", &redis::describe(&error))]);
        BTreeMap::new()
    });
    for (user, (status, last_seen)) in &present {
        visible.insert(user, (status, *last_seen));
    }
    let shown = users.iter().map(|user| {
        let (status, last_seen) = visible.get(user.as_str()).copied().unwrap_or(("offline", None));
        presence::shown(user, status, last_seen)
    });
    Ok(shown.collect())
}

/// The status and last sign of life of the users whom Redis knows.
fn present<'a>(
    users: impl Iterator<Item = &'a str> + Clone,
) -> Result<BTreeMap<String, (String, Option<u64>)>, Error> {
    let mut pipeline = Pipeline::new();
    for user in users.clone() {
        pipeline.push(&["HMGET", &keys::presence(user), "status", "seen"]);
    }
    let replies = pipeline.run()?;
    let known = users.zip(&replies).filter_map(|(user, reply)| {
        let [status, seen] = reply.items() else { return None };
        let seen = seen.integer().and_then(|ms| u64::try_from(ms).ok());
        Some((user.to_owned(), (Reply::text(status)?.to_owned(), seen)))
    });
    Ok(known.collect())
}
