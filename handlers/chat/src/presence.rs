//! Who is there, as the handlers of presence share it: one script in Redis decides, one statement in Postgres tells. It
//! reads nothing; `docs/decisions/presence.md` says why it is so.

use std::collections::BTreeMap;

use crate::{keys, outbox};
use sdk::postgres::{self, Collected};
use sdk::redis::{self, Error, Reply};
use sdk::{Id, Problem, clock, config, log, params, time, wake};

const ANNOUNCE: &str = include_str!("presence/announce.sql");

/// A person's new status, not yet told to anybody.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub user: String,
    pub status: String,
    /// Rises with every status of this person: what is older than what was told is not told any more.
    pub version: u64,
    pub last_seen_ms: u64,
}

/// What a connection's entry in [`keys::leases`] says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lease<'a> {
    pub node: &'a str,
    /// What the client says it looks at; absent when it never said.
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

    /// Whether somebody subscribed to the conversation on this connection looks at it.
    pub fn looks_at(&self, conversation: Id) -> bool {
        self.focus.is_none_or(|focus| focus == Focus::On(conversation))
    }
}

/// One operation of `presence.lua` on a partition, as the script answers it.
pub fn run(operation: &str, partition: u64, args: &[&str]) -> Result<Reply, Error> {
    let (now, idle) = (clock::now_ms().to_string(), config::number("idle_ms", 300_000).to_string());
    let head = [operation, &now, &idle];
    let args: Vec<&str> = head.iter().chain(args).copied().collect();
    redis::script("presence", &[&keys::presence_set(partition, "due")], &args)
}

/// What an operation wants to be told.
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

/// Tells: the events, and what Postgres knows. What fails here is told by the next sweep, as it is then.
pub fn announce(changes: &[Change]) -> Result<(), Problem> {
    if changes.is_empty() {
        return Ok(());
    }
    let rows = match changes {
        // Many who come at once are written at once.
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
            // Each made by itself would be two host calls; a node may take thousands with it.
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
    let told: Vec<Told> = rows.all()?;
    let mut shards: Vec<u32> = told.iter().map(|told| told.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    wake::outbox(&shards);
    settle(changes, &told);
    Ok(())
}

sdk::rows! {
    /// The version that Postgres has, whether it is ours or a newer one.
    struct Told { user_id: String, shard: u32, version: Option<u64> }
}

/// Redis learns what was told. What it does not learn is told again, and Postgres knows that it was.
fn settle(changes: &[Change], told: &[Told]) {
    let known: BTreeMap<&str, u64> =
        told.iter().filter_map(|told| Some((told.user_id.as_str(), told.version?))).collect();
    let mut partitions = BTreeMap::<u64, Vec<&Change>>::new();
    for change in changes {
        partitions.entry(keys::partition(&change.user)).or_default().push(change);
    }
    for (partition, changes) in partitions {
        let versions: Vec<[String; 2]> = changes
            .iter()
            .map(|change| {
                let known = known.get(change.user.as_str()).copied().unwrap_or(change.version);
                [change.version, known].map(|version| version.to_string())
            })
            .collect();
        let mut args = Vec::with_capacity(4 * changes.len());
        for (change, [version, known]) in changes.iter().zip(&versions) {
            args.extend([&*change.user, &*change.status, version, known]);
        }
        if let Err(error) = run("settle", partition, &args) {
            log::warn("told, and not noted so", &[("why", &redis::describe(&error))]);
        }
    }
}

/// As answers and pushes show it.
pub fn shown(user: &str, status: &str, last_seen_ms: Option<u64>) -> serde_json::Value {
    serde_json::json!({ "user_id": user, "status": status, "last_seen": last_seen_ms.map(time::rfc3339) })
}

/// The types of the events that [`announce`] writes.
pub const EVENTS: [&str; 3] = [outbox::USER_ONLINE, outbox::USER_OFFLINE, outbox::USER_STATUS];

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    #[test]
    fn a_lease_without_focus_looks_at_all_it_is_subscribed_to() {
        let (room, other) = (Id::parse(ROOM).unwrap(), Id::at(1, &[0; 10]));
        let lease = Lease::parse("node-1 - Mozilla/5.0 (X11)");
        assert_eq!((lease.node, lease.user_agent), ("node-1", "Mozilla/5.0 (X11)"));
        assert!(lease.looks_at(room) && lease.looks_at(other));
        let focused = format!("node-1 {ROOM} -");
        assert!(Lease::parse(&focused).looks_at(room) && !Lease::parse(&focused).looks_at(other));
        let nowhere = Lease::parse("node-1 none x");
        assert!(!nowhere.looks_at(room) && nowhere.focus == Some(Focus::Nothing));
        assert!(Lease::parse("node-1").looks_at(room));
    }

    #[test]
    fn changes_come_in_fours() {
        let text = |text: &str| Reply::Text(text.to_owned());
        let reply = Reply::Many(vec![text("bo c"), text("away"), text("17"), text("5"), text("cut short")]);
        let change = Change { user: "bo c".into(), status: "away".into(), version: 17, last_seen_ms: 5 };
        assert_eq!(changes(&reply), [change]);
        assert_eq!(changes(&Reply::Nil), []);
    }

    #[test]
    fn who_was_never_seen_has_no_last_seen() {
        let shown = shown("ana", "offline", None);
        assert_eq!(shown, serde_json::json!({ "user_id": "ana", "status": "offline", "last_seen": null }));
    }
}
