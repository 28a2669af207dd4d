//! Types and levels of notifications, and the invalidation of their cache.

use crate::keys;
use sdk::{random, redis};

/// All types of notifications.
pub const TYPES: [&str; 7] =
    ["new_message", "mention", "class_invite", "system", "progress", "tournament", "match"];
/// The types that internal systems may publish.
pub const PUBLISHED_TYPES: [&str; 4] = ["system", "progress", "tournament", "match"];
pub const LEVELS: [&str; 3] = ["info", "warning", "alert"];

// Frame types of pushes to a user's own connections. `READ` lists notifications that were read or retracted;
// `UPDATED` has the new text of a notification.
pub const READ: &str = "notification.read";
pub const UPDATED: &str = "notification.updated";

pub const TITLE_CHARS_MAX: usize = 255;

/// Deletes the cached notifications of these users. A handler calls it after COMMIT when it changed them. It
/// also sets a new version, so that a reader that read before the change does not store its result.
pub fn invalidate_cache<'a>(users: impl IntoIterator<Item = &'a str>) -> Result<(), redis::Error> {
    let version = random::bytes::<8>().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ttl = keys::NOTIFICATIONS_TTL_S.to_string();
    let mut pipeline = redis::Pipeline::new();
    let users: Vec<&str> = users.into_iter().collect();
    for user in &users {
        let key = keys::notifications(user);
        // The version is set first: a reader that stores between the two commands has seen the old version
        // and fails.
        pipeline.push(&["HSET", &key, keys::NOTIFICATIONS_VERSION, &version]);
        pipeline.push(&["HDEL", &key, keys::NOTIFICATIONS_NEWEST]).push(&["EXPIRE", &key, &ttl]);
    }
    let replies = pipeline.run()?;
    // A full Redis refuses the new version. Then the key is deleted, and without a version no reader stores
    // anything.
    let mut drops = redis::Pipeline::new();
    for (user, reply) in users.iter().zip(replies.iter().step_by(3)) {
        if matches!(reply, redis::Reply::Failed(_)) {
            drops.push(&["UNLINK", &keys::notifications(user)]);
        }
    }
    drops.run().map(drop)
}
