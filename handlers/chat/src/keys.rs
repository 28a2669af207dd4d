//! Every Redis key of the chat product and how long it lives. Nothing here is the truth: what is gone comes back from
//! Postgres. A key begins with the word that grants name (`grants.redis = ["list:*"]`). Presence keys carry the hash tag
//! `{p:NN}`, because one script touches several of them; all others stand alone, so a Redis Cluster can spread them.

use sdk::Id;

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

// ---- read model: projections without TTL come back by `switchboard rebuild` or on a miss ------------------------------

/// Sorted set of a user's conversations, the newest [`LIST_MAX`], by the time of the last activity in milliseconds as it was
/// when the set was written; what has moved since is known by [`meta`]. Also in it: `whole`, or `more` where there are older
/// ones. Without either it is no list. Whatever adds or removes a conversation deletes it (`lists`).
pub fn list(user: &str) -> String {
    format!("list:{user}")
}
/// Older conversations still come from Postgres.
pub const LIST_MAX: usize = 500;

/// Hash of a conversation: `head` (its last seq), `activity` (the last message's id), `last` (that message as lists show it,
/// JSON) and `change` (the number of the last change). Without one of the first three it says nothing.
pub fn meta(conversation: Id) -> String {
    format!("meta:{conversation}")
}

/// A page of a conversation's history. The name says all that it depends on, so what changes makes another page; only the
/// names of people in it may be as old as it is.
pub fn page(conversation: Id, name: &str) -> String {
    format!("page:{conversation}:{name}")
}
pub const PAGE_TTL_S: u64 = 5 * MINUTE_S;

/// A conversation's participants with their profiles: JSON.
pub fn participants(conversation: Id) -> String {
    format!("participants:{conversation}")
}

/// Hash of a conversation's unread counts by user. Each says what it was made of, and holds for nothing else.
pub fn unread(conversation: Id) -> String {
    format!("unread:{conversation}")
}
pub const UNREAD_TTL_S: u64 = HOUR_S;

/// A user's directory entry as others see it: hash of `version`, which only rises, and `entry`, JSON.
pub fn profile(user: &str) -> String {
    format!("profile:{user}")
}
pub const PROFILE_TTL_S: u64 = HOUR_S;

/// Ids found by a search.
pub fn search(user: &str, query_digest: &str) -> String {
    format!("search:{user}:{query_digest}")
}
pub const SEARCH_TTL_S: u64 = MINUTE_S;

/// Hash of a user's notifications: the `newest` as JSON, and a `version` that every change replaces, so that nobody keeps
/// what was read before it.
pub fn notifications(user: &str) -> String {
    format!("notifications:{user}")
}
pub const NOTIFICATIONS_NEWEST: &str = "newest";
pub const NOTIFICATIONS_VERSION: &str = "version";
pub const NOTIFICATIONS_TTL_S: u64 = 7 * DAY_S;
pub const NOTIFICATIONS_MAX: usize = 100;

/// Capped stream of recent events, for analytics.
pub const EVENTS: &str = "chat:logs:events";
pub const EVENTS_MAX: usize = 10_000;

// ---- presence: one hash tag for a user's lease and the set it is due in ------------------------------------------------

/// Partitions of presence.
pub const PRESENCE_PARTITIONS: u64 = 64;

/// Which partition a user's presence is in: FNV-1a of the id.
pub fn partition(user: &str) -> u64 {
    let hash = user.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % PRESENCE_PARTITIONS
}

/// Hash of a user's leases, by connection; a value is a [`crate::presence::Lease`]. Never evicted while there is one.
pub fn leases(user: &str) -> String {
    format!("{{p:{:02}}}:leases:{user}", partition(user))
}

/// Hash of a user's aggregate; its fields stand in `presence.lua`. It ends a while after its user went offline.
pub fn presence(user: &str) -> String {
    format!("{{p:{:02}}}:presence:{user}", partition(user))
}

/// A sorted set of a partition; which there are, and what is in them, stands in `presence.lua`.
pub fn presence_set(partition: u64, name: &str) -> String {
    format!("{{p:{partition:02}}}:{name}")
}

/// When the keys of presence were first written since Redis was empty, in milliseconds.
pub const PRESENCE_EPOCH: &str = "presence-epoch";

pub const LEASE_MS: u64 = 90_000;

/// Sorted set of nodes by the time their lease ends: who is not in it, or late, is dead.
pub const NODES: &str = "nodes";
/// Renewed every 3 s.
pub const NODE_LEASE_MS: u64 = 9_000;
pub const NODE_FORGOTTEN_MS: u64 = 3_600_000;

// ---- limits and ephemera -----------------------------------------------------------------------------------------------

/// Hash of who is subscribed to a conversation: connection → user. An entry counts only while its lease stands, on a node
/// that lives, and, where the lease has a focus, while the focus is on this conversation.
pub fn looking(conversation: Id) -> String {
    format!("looking:{conversation}")
}

/// Set of the conversations a connection looks at, so that its end is noted everywhere.
pub fn looks(connection: &str) -> String {
    format!("looks:{connection}")
}
/// Behind the end of its connection, which takes all of it away.
pub const LOOKING_TTL_S: u64 = 7 * DAY_S;

/// Hash of who watches a user's presence: connection → its user.
pub fn watchers(user: &str) -> String {
    format!("watchers:{user}")
}

/// Set of the users whom a connection watches.
pub fn watches(connection: &str) -> String {
    format!("watches:{connection}")
}

/// Partitions of typing.
pub const TYPING_PARTITIONS: u64 = 8;

/// Sorted set of `conversation user` by the time at which it is over. One script touches it and its sibling.
pub fn typing(conversation: Id) -> String {
    typing_of(conversation.spread() % TYPING_PARTITIONS)
}
pub fn typing_of(partition: u64) -> String {
    format!("{{typing:{partition}}}:due")
}
pub const TYPING_MS: u64 = 10_000;

/// The directory is told again who somebody is, after this long.
pub const LISTED_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_script_touches_has_one_hash_tag() {
        let tag = |key: String| key[..=key.find('}').unwrap()].to_owned();
        for user in ["ana", "bo", "{odd}"] {
            assert_eq!(tag(leases(user)), tag(presence_set(partition(user), "due")));
            assert_eq!(tag(presence(user)), tag(presence_set(partition(user), "idle")));
        }
        assert_eq!(leases("ana"), "{p:05}:leases:ana");
    }
}
