//! Words of notifications that several handlers share, and how their cache is kept true.

use crate::keys;
use sdk::{random, redis};

/// What a notification can be of.
pub const TYPES: [&str; 7] =
    ["new_message", "mention", "class_invite", "system", "progress", "tournament", "match"];
/// Those that internal systems may make.
pub const PUBLISHED_TYPES: [&str; 4] = ["system", "progress", "tournament", "match"];
pub const LEVELS: [&str; 3] = ["info", "warning", "alert"];

/// Pushes to a person's own connections: what was read or retracted, and what has another text.
pub const READ: &str = "notification.read";
pub const UPDATED: &str = "notification.updated";

pub const TITLE_CHARS_MAX: usize = 255;

/// Whoever changed something of these users says so after COMMIT: what is cached of them is dropped, and what a reader is
/// about to keep, read before, is not kept (the cache's version is another one).
pub fn changed<'a>(users: impl IntoIterator<Item = &'a str>) -> Result<(), redis::Error> {
    let version = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ttl = keys::NOTIFICATIONS_TTL_S.to_string();
    let mut pipeline = redis::Pipeline::new();
    let users: Vec<&str> = users.into_iter().collect();
    for user in &users {
        let key = keys::notifications(user);
        // The version first: whoever keeps something between the two has seen the old one.
        pipeline.push(&["HSET", &key, keys::NOTIFICATIONS_VERSION, &version]);
        pipeline.push(&["HDEL", &key, keys::NOTIFICATIONS_NEWEST]).push(&["EXPIRE", &key, &ttl]);
    }
    let replies = pipeline.run()?;
    // A Redis that is full takes no version; without a version nobody keeps anything either.
    let mut drops = redis::Pipeline::new();
    for (user, reply) in users.iter().zip(replies.iter().step_by(3)) {
        if matches!(reply, redis::Reply::Failed(_)) {
            drops.push(&["UNLINK", &keys::notifications(user)]);
        }
    }
    drops.run().map(drop)
}
