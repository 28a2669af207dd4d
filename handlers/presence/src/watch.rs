//! Who watches whom, by connection: in Redis, because it ends with the connection. Whoever asks to watch a stranger hears
//! nothing of them until both are engaged in a conversation; that is judged when there is something to hear.

use chat::keys;
use std::collections::{BTreeMap, BTreeSet};

use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Problem, params, postgres};

const WATCHING: &str = include_str!("sql/watching.sql");

sdk::rows! {
    struct Watching { watcher: String, watched: String }
}

/// In place of what this connection watched before.
pub fn replace(connection: &str, viewer: &str, users: &[String]) -> Result<(), Error> {
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
        // First what its end is found by.
        pipeline.push(&["SADD", &watches, user]);
        pipeline.push(&["HSET", &watchers, connection, viewer]).push(&["EXPIRE", &watchers, &ttl]);
    }
    pipeline.push(&["EXPIRE", &watches, &ttl]);
    // Whoever is told that they watch does: also where Redis is there and takes nothing more.
    let failed = pipeline.run()?.into_iter().find_map(|reply| match reply {
        Reply::Failed(why) => Some(why),
        _ => None,
    });
    failed.map_or(Ok(()), |why| Err(Error::Failed(why)))
}

/// For each of these users, the people who watch them and may.
pub fn watchers<'a>(
    users: impl Iterator<Item = &'a str> + Clone,
) -> Result<BTreeMap<String, Vec<String>>, Trouble> {
    let mut pipeline = Pipeline::new();
    for user in users.clone() {
        pipeline.push(&["HVALS", &keys::watchers(user)]);
    }
    let replies = pipeline.run().map_err(|error| Trouble::Redis(redis::describe(&error)))?;
    let mut pairs = BTreeSet::new();
    for (user, reply) in users.zip(&replies) {
        pairs.extend(reply.texts().map(|watcher| (watcher.to_owned(), user.to_owned())));
    }
    if pairs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (asking, watched): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let rows = postgres::query(WATCHING, &params![asking, watched]).map_err(Problem::from);
    let rows = rows.and_then(|rows| Ok(rows.all::<Watching>()?)).map_err(Trouble::Postgres)?;
    let mut watchers = BTreeMap::<String, Vec<String>>::new();
    for Watching { watcher, watched } in rows {
        watchers.entry(watched).or_default().push(watcher);
    }
    Ok(watchers)
}

pub enum Trouble {
    Redis(String),
    Postgres(Problem),
}
