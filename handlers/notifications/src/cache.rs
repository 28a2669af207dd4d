//! Caches a user's newest notifications in Redis. The cache is never outdated: each change sets a new version
//! after its COMMIT (`chat::notification::invalidate_cache`), and a reader stores its result only under the
//! version that it saw before it read. If Redis fails, everything is read from Postgres.

use chat::keys;
use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{log, random};

/// The cached notifications of a user.
pub(crate) enum Cached {
    Newest(String),
    /// Nothing is cached. A result that is read now may be stored under this version.
    Missing(Version),
    /// Redis failed.
    Unknown,
}

/// The version that the cache had when it was read.
pub(crate) struct Version(String);

pub(crate) fn read(user: &str) -> Cached {
    match try_read(user) {
        Ok(cached) => cached,
        Err(error) => {
            log::warn("notifications are not read from the cache", &[("why", &redis::describe(&error))]);
            Cached::Unknown
        }
    }
}

fn try_read(user: &str) -> Result<Cached, Error> {
    let key = keys::notifications(user);
    let fields = [keys::NOTIFICATIONS_NEWEST, keys::NOTIFICATIONS_VERSION];
    let reply = redis::command(&["HMGET", &key, fields[0], fields[1]])?;
    match reply.items() {
        [Reply::Text(newest), _] => Ok(Cached::Newest(newest.clone())),
        [_, Reply::Text(version)] => Ok(Cached::Missing(Version(version.clone()))),
        _ => begin(&key),
    }
}

/// Sets the first version, so that a change after it can be noticed.
fn begin(key: &str) -> Result<Cached, Error> {
    let random = u64::from_be_bytes(random::bytes::<8>());
    let mut pipeline = Pipeline::new();
    pipeline.push(&["HSETNX", key, keys::NOTIFICATIONS_VERSION, &format!("{random:016x}")]);
    pipeline.push(&["EXPIRE", key, &keys::NOTIFICATIONS_TTL_S.to_string()]);
    pipeline.push(&["HGET", key, keys::NOTIFICATIONS_VERSION]);
    let replies = pipeline.run()?;
    let version = replies.get(2).and_then(Reply::text);
    Ok(version.map_or(Cached::Unknown, |version| Cached::Missing(Version(version.to_owned()))))
}

pub(crate) fn keep(user: &str, version: &Version, newest: &str) {
    let ttl = keys::NOTIFICATIONS_TTL_S.to_string();
    if let Err(error) = redis::script("keep", &[&keys::notifications(user)], &[&version.0, newest, &ttl]) {
        log::warn("notifications are not cached", &[("why", &redis::describe(&error))]);
    }
}
