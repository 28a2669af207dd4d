//! The watches of connections. Redis stores them, because a watch ends with its connection. The permission to
//! see a user is checked at each push, so a watch of a stranger has no effect until both are engaged in a
//! conversation.

use chat::keys;
use std::collections::{BTreeMap, BTreeSet};

use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Problem, params, postgres};

const WATCHING: &str = include_str!("sql/watching.sql");

sdk::rows! {
    struct Watching { watcher: String, watched: String }
}

/// Replaces the watches of a connection.
pub(crate) fn replace(connection: &str, viewer: &str, users: &[String]) -> Result<(), Error> {
    let watches = keys::watches(connection);
    let before = redis::command(&["SMEMBERS", &watches])?;
    let (before, after): (BTreeSet<&str>, BTreeSet<&str>) =
        (before.texts().collect(), users.iter().map(String::as_str).collect());
    let ttl = keys::LOOKING_TTL_S.to_string();
    let mut pipeline = Pipeline::new();
    for gone in before.difference(&after) {
        pipeline.push(&["HDEL", &keys::watchers(gone), connection]).push(&["SREM", &watches, gone]);
    }
    for user in &after {
        let watchers = keys::watchers(user);
        // The set of watches is written first, because the close of the connection uses it.
        pipeline.push(&["SADD", &watches, user]);
        pipeline.push(&["HSET", &watchers, connection, viewer]).push(&["EXPIRE", &watchers, &ttl]);
    }
    pipeline.push(&["EXPIRE", &watches, &ttl]);
    // A full Redis refuses single commands. The reply must not confirm a watch that was not stored.
    let failed = pipeline.run()?.into_iter().find_map(|reply| match reply {
        Reply::Failed(why) => Some(why),
        _ => None,
    });
    failed.map_or(Ok(()), |why| Err(Error::Failed(why)))
}

/// The watchers of each user who may see the user's presence.
pub(crate) fn watchers<'a>(
    users: impl Iterator<Item = &'a str> + Clone,
) -> Result<BTreeMap<String, Vec<String>>, ReadError> {
    let mut pipeline = Pipeline::new();
    for user in users.clone() {
        pipeline.push(&["HVALS", &keys::watchers(user)]);
    }
    let replies = pipeline.run().map_err(|error| ReadError::Redis(redis::describe(&error)))?;
    let mut pairs = BTreeSet::new();
    for (user, reply) in users.zip(&replies) {
        pairs.extend(reply.texts().map(|watcher| (watcher.to_owned(), user.to_owned())));
    }
    if pairs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (asking, watched): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let rows = postgres::query(WATCHING, &params![asking, watched]).map_err(Problem::from);
    let rows = rows.and_then(|rows| Ok(rows.all::<Watching>()?)).map_err(ReadError::Postgres)?;
    let mut watchers = BTreeMap::<String, Vec<String>>::new();
    for Watching { watcher, watched } in rows {
        watchers.entry(watched).or_default().push(watcher);
    }
    Ok(watchers)
}

/// Why the watchers could not be read.
pub(crate) enum ReadError {
    Redis(String),
    Postgres(Problem),
}
