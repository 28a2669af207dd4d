//! The presence of users: the handlers `presence` and `presence-sweep` share this module. One Lua script in
//! Redis decides the status, and one statement in Postgres stores and announces it.
//! `docs/decisions/presence.md` gives the reasons.

use std::collections::BTreeMap;

use crate::{keys, outbox};
use sdk::postgres::{self, Collected};
use sdk::redis::{self, Error, Reply, ScriptRun};
use sdk::{Id, Problem, clock, config, log, params, time, wake};

const ANNOUNCE: &str = include_str!("presence/announce.sql");

/// A new status of a user that has not been announced yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub user: String,
    pub status: String,
    /// Increases with every status of the user. A version below the announced one is not announced any more.
    pub version: u64,
    pub last_seen_ms: u64,
}

/// The value of a connection in [`keys::leases`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lease<'a> {
    pub node: &'a str,
    /// The conversation that the client says it looks at; `None` if the client has never said.
    pub focus: Option<Focus>,
    pub user_agent: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Focus {
    Nothing,
    On(Id),
}

impl<'a> Lease<'a> {
    pub fn parse(value: &'a str) -> Self {
        let mut words = value.splitn(3, ' ');
        let node = words.next().unwrap_or_default();
        let focus = match words.next() {
            None | Some("-") => None,
            Some(word) => Some(Id::parse(word).map_or(Focus::Nothing, Focus::On)),
        };
        Self { node, focus, user_agent: words.next().unwrap_or_default() }
    }

    /// Whether this connection looks at a conversation to which it is subscribed.
    pub fn looks_at(&self, conversation: Id) -> bool {
        self.focus.is_none_or(|focus| focus == Focus::On(conversation))
    }
}

/// Runs one operation of `presence.lua` on a partition and returns the script's reply.
pub fn run(operation: &str, partition: u64, args: &[&str]) -> Result<Reply, Error> {
    let (now, idle) = (clock::now_ms().to_string(), config::number("idle_ms", 300_000).to_string());
    let head = [operation, &now, &idle];
    let args: Vec<&str> = head.iter().chain(args).copied().collect();
    redis::script("presence", &[&keys::presence_set(partition, "due")], &args)
}

/// Runs one operation for each element of `runs`: a partition and the arguments. Returns one reply for each,
/// in order. It takes one round trip for all of them.
pub fn run_all(operation: &str, runs: &[(u64, Vec<&str>)]) -> Result<Vec<Reply>, Error> {
    if let [(partition, args)] = runs {
        return Ok(vec![run(operation, *partition, args)?]);
    }
    let (now, idle) = (clock::now_ms().to_string(), config::number("idle_ms", 300_000).to_string());
    let head = [operation, &now, &idle];
    let run = |(partition, args): &(u64, Vec<&str>)| ScriptRun {
        keys: vec![keys::presence_set(*partition, "due")],
        args: head.iter().chain(args).map(|arg| (*arg).to_owned()).collect(),
    };
    let runs: Vec<ScriptRun> = runs.iter().map(run).collect();
    redis::scripts("presence", &runs)
}

/// The changes in a reply of the script that are to be announced.
pub fn changes(reply: &Reply) -> Vec<Change> {
    let number = |reply: &Reply| reply.integer().unwrap_or(0).max(0) as u64;
    let change = |items: &[Reply]| match items {
        [user, status, version, seen] => Some(Change {
            user: user.text()?.to_owned(),
            status: status.text()?.to_owned(),
            version: number(version),
            last_seen_ms: number(seen),
        }),
        _ => None,
    };
    reply.items().chunks(4).filter_map(change).collect()
}

/// Stores the changes in Postgres and writes their events. If it fails, the next sweep announces the status
/// of that time.
pub fn announce(changes: &[Change]) -> Result<(), Problem> {
    if changes.is_empty() {
        return Ok(());
    }
    let rows = match changes {
        // Single changes of concurrent calls share one transaction.
        [one] => postgres::collect(&Collected {
            statements: vec![ANNOUNCE.to_owned()],
            row: params![
                Id::make(),
                &one.user,
                &one.status,
                one.version,
                one.last_seen_ms,
                time::rfc3339(one.last_seen_ms)
            ]
            .to_vec(),
            lane: 0,
        })?,
        many => {
            let texts = |of: fn(&Change) -> String| many.iter().map(of).collect::<Vec<_>>();
            let numbers = |of: fn(&Change) -> u64| many.iter().map(|c| of(c) as i64).collect::<Vec<_>>();
            // `Id::make` would cost two host calls per change, and the crash of a node can cause thousands of
            // changes.
            let first = Id::make();
            let ids: Vec<Id> = many.iter().map(|change| Id::derived(first, change.user.as_bytes())).collect();
            postgres::query(
                ANNOUNCE,
                &params![
                    (0..many.len() as i64).collect::<Vec<_>>(),
                    ids.as_slice(),
                    texts(|change| change.user.clone()),
                    texts(|change| change.status.clone()),
                    numbers(|change| change.version),
                    numbers(|change| change.last_seen_ms),
                    texts(|change| time::rfc3339(change.last_seen_ms)),
                ],
            )?
        }
    };
    let stored: Vec<Stored> = rows.all()?;
    let mut shards: Vec<u32> = stored.iter().map(|row| row.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    wake::outbox(&shards);
    settle(changes, &stored);
    Ok(())
}

sdk::rows! {
    /// The version that Postgres now has: the one of the change, or a newer one.
    struct Stored { user_id: String, shard: u32, version: Option<u64> }
}

/// Records in Redis that the changes were announced. If that fails, a sweep announces them again, and
/// Postgres ignores them.
fn settle(changes: &[Change], stored: &[Stored]) {
    let known: BTreeMap<&str, u64> =
        stored.iter().filter_map(|row| Some((row.user_id.as_str(), row.version?))).collect();
    let versions: Vec<[String; 2]> = changes
        .iter()
        .map(|change| {
            let known = known.get(change.user.as_str()).copied().unwrap_or(change.version);
            [change.version, known].map(|version| version.to_string())
        })
        .collect();
    let mut partitions = BTreeMap::<u64, Vec<&str>>::new();
    for (change, [version, known]) in changes.iter().zip(&versions) {
        let args = partitions.entry(keys::partition(&change.user)).or_default();
        args.extend([&*change.user, &*change.status, version, known]);
    }
    let runs: Vec<_> = partitions.into_iter().collect();
    let failed = run_all("settle", &runs).map_or_else(
        |error| Some(redis::describe(&error)),
        |replies| {
            replies.into_iter().find_map(|reply| match reply {
                Reply::Failed(why) => Some(why),
                _ => None,
            })
        },
    );
    if let Some(why) = failed {
        log::warn("told, and not noted so", &[("why", &why)]);
    }
}

/// A user's presence as responses and pushes show it.
pub fn shown(user: &str, status: &str, last_seen_ms: Option<u64>) -> serde_json::Value {
    serde_json::json!({ "user_id": user, "status": status, "last_seen": last_seen_ms.map(time::rfc3339) })
}

/// The types of the events that [`announce`] writes.
pub const EVENTS: [&str; 3] = [outbox::USER_ONLINE, outbox::USER_OFFLINE, outbox::USER_STATUS];

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    #[test]
    fn a_lease_without_focus_looks_at_every_subscribed_conversation() {
        let (conversation, other) = (Id::parse(CONVERSATION).unwrap(), Id::at(1, &[0; 10]));
        let lease = Lease::parse("node-1 - Mozilla/5.0 (X11)");
        assert_eq!((lease.node, lease.user_agent), ("node-1", "Mozilla/5.0 (X11)"));
        assert!(lease.looks_at(conversation) && lease.looks_at(other));
        let focused = format!("node-1 {CONVERSATION} -");
        assert!(Lease::parse(&focused).looks_at(conversation) && !Lease::parse(&focused).looks_at(other));
        let nowhere = Lease::parse("node-1 none x");
        assert!(!nowhere.looks_at(conversation) && nowhere.focus == Some(Focus::Nothing));
        assert!(Lease::parse("node-1").looks_at(conversation));
    }

    #[test]
    fn a_change_is_read_from_four_items() {
        let text = |text: &str| Reply::Text(text.to_owned());
        let reply = Reply::Many(vec![text("bo c"), text("away"), text("17"), text("5"), text("cut short")]);
        let change = Change { user: "bo c".into(), status: "away".into(), version: 17, last_seen_ms: 5 };
        assert_eq!(changes(&reply), [change]);
        assert_eq!(changes(&Reply::Nil), []);
    }

    #[test]
    fn a_user_who_was_never_online_has_no_last_seen() {
        let shown = shown("ana", "offline", None);
        assert_eq!(shown, serde_json::json!({ "user_id": "ana", "status": "offline", "last_seen": null }));
    }
}
