//! All Redis keys of the chat product, with their lifetimes. Redis only holds copies: a lost key is restored
//! from Postgres. A key begins with the prefix that grants name (`grants.redis = ["list:*"]`). Keys of
//! presence have the hash tag `{p:NN}`, because one script uses several of them. All other keys have no hash
//! tag, so a Redis Cluster can distribute them.

use sdk::Id;
use sdk::hash::fnv1a;

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

// ---- read model: projections without TTL come back by `switchboard rebuild` or on a miss ------------------

/// Sorted set of a user's newest [`LIST_MAX`] conversations. The score is the time of the last activity in
/// milliseconds, as of the time when the set was written; [`meta`] has the later activity. The set also has
/// the member `whole`, or `more` if the user has older conversations. A set without either is incomplete and
/// not used. A handler that adds or removes a conversation deletes the set (`lists`).
pub fn list(user: &str) -> String {
    format!("list:{user}")
}
/// The conversations that a list holds at most. Older ones are read from Postgres.
pub const LIST_MAX: usize = 500;

/// Hash of a conversation: `head` (the last seq), `activity` (the id of the last message), `last` (that
/// message as lists show it, JSON) and `change` (the number of the last change). A hash that lacks one of the
/// first three is not used.
pub fn meta(conversation: Id) -> String {
    format!("meta:{conversation}")
}

/// A page of a conversation's history. `name` contains everything that the page depends on, so a change leads
/// to another key. Only the display names in a page can be outdated.
pub fn page(conversation: Id, name: &str) -> String {
    format!("page:{conversation}:{name}")
}
pub const PAGE_TTL_S: u64 = 5 * MINUTE_S;

/// A key of former releases. Nothing writes it any more; three handlers still delete it, because their
/// recordings do so.
pub fn participants(conversation: Id) -> String {
    format!("participants:{conversation}")
}

/// Hash of a user's unread counts, by conversation. Each value contains what it was computed from, and is
/// used only while that has not changed. (Former releases kept them in `unread:{conversation}`, by user.)
pub fn counts(user: &str) -> String {
    format!("counts:{user}")
}
pub const COUNTS_TTL_S: u64 = HOUR_S;
/// A hash with more counts than this is deleted: those of conversations that the user has left stay in it.
pub const COUNTS_MAX: i64 = 2 * LIST_MAX as i64;

/// Hash of a user's directory entry as others see it: `version`, which only increases, and `entry`, JSON.
pub fn profile(user: &str) -> String {
    format!("profile:{user}")
}
pub const PROFILE_TTL_S: u64 = HOUR_S;

/// The ids that a search found.
pub fn search(user: &str, query_digest: &str) -> String {
    format!("search:{user}:{query_digest}")
}
pub const SEARCH_TTL_S: u64 = MINUTE_S;

/// Hash of a user's notifications: `newest`, JSON, and `version`. Every change sets a new version, so that a
/// reader does not store what it read before the change.
pub fn notifications(user: &str) -> String {
    format!("notifications:{user}")
}
pub const NOTIFICATIONS_NEWEST: &str = "newest";
pub const NOTIFICATIONS_VERSION: &str = "version";
pub const NOTIFICATIONS_TTL_S: u64 = 7 * DAY_S;
pub const NOTIFICATIONS_MAX: usize = 100;

/// Stream of recent events for analytics, with at most [`EVENTS_MAX`] entries.
pub const EVENTS: &str = "chat:logs:events";
pub const EVENTS_MAX: usize = 10_000;

// ---- presence: all keys of a partition have the same hash tag ---------------------------------------------

/// The number of partitions of presence.
pub const PRESENCE_PARTITIONS: u64 = 64;

/// The partition of a user's presence: FNV-1a of the id.
pub fn partition(user: &str) -> u64 {
    fnv1a(user.bytes()) % PRESENCE_PARTITIONS
}

/// Hash of a user's leases, by connection; a value is a [`crate::presence::Lease`].
pub fn leases(user: &str) -> String {
    format!("{{p:{:02}}}:leases:{user}", partition(user))
}

/// Hash of a user's presence; `presence.lua` documents the fields. It expires a day after the user went
/// offline.
pub fn presence(user: &str) -> String {
    format!("{{p:{:02}}}:presence:{user}", partition(user))
}

/// A sorted set of a partition; `presence.lua` documents their names and members.
pub fn presence_set(partition: u64, name: &str) -> String {
    format!("{{p:{partition:02}}}:{name}")
}

/// The time, in milliseconds, at which the presence keys were first written after Redis was empty.
pub const PRESENCE_EPOCH: &str = "presence-epoch";

/// Set of the partitions of presence that have entries, so that a sweep need not read all of them. It also
/// has the marks of `presence-sweep`. A partition without entries may be in it; one with entries may be
/// absent only for a moment.
pub const PRESENCE_BUSY: &str = "{p:busy}";

pub const LEASE_MS: u64 = 90_000;

/// Sorted set of nodes by the time at which their lease ends. A node that is absent or late is dead.
pub const NODES: &str = "nodes";
/// Renewed every 3 s.
pub const NODE_LEASE_MS: u64 = 9_000;
/// A node is removed this long after its lease has ended. By then, sweeps have ended its connections' leases.
pub const NODE_FORGOTTEN_MS: u64 = 18_000;

// ---- limits and ephemera ----------------------------------------------------------------------------------

/// Hash of the subscribers of a conversation who look at it: connection → user. An entry counts only while
/// the connection's lease has not expired and its node is alive. If the lease has a focus, the focus must be
/// on this conversation.
pub fn looking(conversation: Id) -> String {
    format!("looking:{conversation}")
}

/// Set of the conversations that a connection looks at, so that its close can remove it from all of them.
pub fn looks(connection: &str) -> String {
    format!("looks:{connection}")
}
/// A fallback: the close of a connection deletes its entries.
pub const LOOKING_TTL_S: u64 = 7 * DAY_S;

/// Hash of the connections that watch a user's presence: connection → its user.
pub fn watchers(user: &str) -> String {
    format!("watchers:{user}")
}

/// Set of the users whose presence a connection watches.
pub fn watches(connection: &str) -> String {
    format!("watches:{connection}")
}

/// The number of partitions of typing.
pub const TYPING_PARTITIONS: u64 = 8;

/// Sorted set of `conversation user`, by the time at which the typing signal expires.
pub fn typing(conversation: Id) -> String {
    typing_of(conversation.spread() % TYPING_PARTITIONS)
}
pub fn typing_of(partition: u64) -> String {
    format!("{{typing:{partition}}}:due")
}
/// Exists while there may be typing signals in any partition.
pub const TYPING_ANY: &str = "{typing:any}";
/// A signal is extended for at most half of [`TYPING_MS`] after its last push, and then expires. The key is
/// written at each push, and lives longer than that.
pub const TYPING_ANY_MS: u64 = 30_000;
/// The time after which a typing signal expires.
pub const TYPING_MS: u64 = 10_000;

/// The interval after which a connecting user is written to the directory again.
pub const LISTED_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_script_have_the_same_hash_tag() {
        let tag = |key: String| key[..=key.find('}').unwrap()].to_owned();
        for user in ["ana", "bo", "{odd}"] {
            assert_eq!(tag(leases(user)), tag(presence_set(partition(user), "due")));
            assert_eq!(tag(presence(user)), tag(presence_set(partition(user), "idle")));
        }
        assert_eq!(leases("ana"), "{p:05}:leases:ana");
    }
}
