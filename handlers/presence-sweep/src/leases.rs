//! The leases of connections in Redis. Each change of a user's presence is one run of a script. So two nodes
//! that report the same user at once agree on the first and on the last connection.

use chat::keys;
use std::collections::{BTreeMap, BTreeSet};

use chat::presence::{self, Change};
use sdk::connection::Touch;
use sdk::connection_batch::{Closed, Opened};
use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Id, clock, config, log};

use crate::busy;

/// The entries of one partition that one sweep handles. The sweep a second later continues.
const SWEEP_MAX: &str = "500";
/// The part of the `user-agent` header that the lease stores.
const USER_AGENT_CHARS_MAX: usize = 100;
/// The close codes of a peer that was lost without notice. Its last sign of life is then the start of its
/// lease.
const LOST_IN_SILENCE: [u16; 2] = [4008, 4010];

/// The effect of a new connection.
pub(crate) struct Opening {
    pub changes: Vec<Change>,
    /// Whether the directory entry of the user has not been written for a while.
    pub unlisted: bool,
}

/// Writes the leases of new connections of a node.
pub(crate) fn open(node: &str, opened: &[Opened]) -> Result<Vec<Opening>, Error> {
    let now = clock::now_ms();
    let ends = [(now + keys::LEASE_MS).to_string(), (now + keys::NODE_LEASE_MS).to_string()];
    let listed = keys::LISTED_MS.to_string();
    let runs: Vec<_> = opened
        .iter()
        .map(|opened| {
            let user = &*opened.caller.user_id;
            let agent = opened.user_agent.as_deref().unwrap_or("-");
            let agent = sdk::text::cut(agent, USER_AGENT_CHARS_MAX);
            let args = vec![&*opened.connection, node, user, agent, &*ends[0], &*ends[1], &*listed];
            (keys::partition(user), args)
        })
        .collect();
    let replies = presence::run_all("open", &runs)?;
    let was_empty = |reply: &Reply| reply.items().get(2).and_then(Reply::integer) == Some(1);
    mark_first(
        runs.iter().zip(&replies).filter(|(_, reply)| was_empty(reply)).map(|((partition, _), _)| *partition),
    );
    let opening = |reply: &Reply| match reply {
        Reply::Failed(why) => {
            log::warn("no lease for a connection", &[("why", why)]);
            Opening { unlisted: true, changes: Vec::new() }
        }
        reply => Opening {
            unlisted: reply.items().first().and_then(Reply::integer) == Some(1),
            changes: reply.items().get(1).map(presence::changes).unwrap_or_default(),
        },
    };
    Ok(replies.iter().map(opening).collect())
}

/// Adds partitions to the busy ones if the script had to make their first entries. Without the addition, a
/// report of the connections adds them.
fn mark_first(partitions: impl Iterator<Item = u64>) {
    if let Err(error) = busy::add(partitions.collect::<BTreeSet<_>>()) {
        log::warn("a partition was not added to the busy ones", &[("why", &redis::describe(&error))]);
    }
}

/// The directory entries of these users could not be written, so their next connections have to write them.
pub(crate) fn unlist<'a>(users: impl Iterator<Item = &'a str>) {
    let mut pipeline = Pipeline::new();
    users.for_each(|user| {
        pipeline.push(&["HDEL", &keys::presence(user), "listed"]);
    });
    let _ = pipeline.run();
}

/// Ends the leases of closed connections of a node.
pub(crate) fn close(node: &str, closed: &[Closed]) -> Result<(), Error> {
    let grace_ends = (clock::now_ms() + config::number("grace_ms", 5_000)).to_string();
    let lease = keys::LEASE_MS.to_string();
    let runs: Vec<_> = closed
        .iter()
        .map(|closed| {
            let silence = if LOST_IN_SILENCE.contains(&closed.code) { &*lease } else { "0" };
            let args = vec![&*closed.connection, node, &*closed.user_id, &*grace_ends, silence];
            (keys::partition(&closed.user_id), args)
        })
        .collect();
    let replies = presence::run_all("close", &runs)?;
    let was_empty = |reply: &Reply| reply.items().first().and_then(Reply::integer) == Some(1);
    mark_first(
        runs.iter().zip(&replies).filter(|(_, reply)| was_empty(reply)).map(|((partition, _), _)| *partition),
    );
    // The others have ended. A lease that has not expires.
    let failed = replies.iter().find_map(|reply| match reply {
        Reply::Failed(why) => Some(why),
        _ => None,
    });
    if let Some(why) = failed {
        log::warn("a lease was not ended", &[("why", why)]);
    }
    Ok(())
}

/// Deletes what these connections looked at and watched.
pub(crate) fn forget<'a>(connections: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    let connections: Vec<_> = connections.into_iter().collect();
    let mut pipeline = Pipeline::new();
    for connection in &connections {
        pipeline.push(&["SMEMBERS", &keys::looks(connection)]);
        pipeline.push(&["SMEMBERS", &keys::watches(connection)]);
    }
    let replies = pipeline.run()?;
    let mut pipeline = Pipeline::new();
    for (connection, seen) in connections.iter().zip(replies.chunks(2)) {
        let [looks, watches] = seen else { break };
        for conversation in looks.texts().filter_map(Id::parse) {
            pipeline.push(&["HDEL", &keys::looking(conversation), connection]);
        }
        for user in watches.texts() {
            pipeline.push(&["HDEL", &keys::watchers(user), connection]);
        }
        for (set, key) in [(looks, keys::looks(connection)), (watches, keys::watches(connection))] {
            if !set.items().is_empty() {
                pipeline.push(&["UNLINK", &key]);
            }
        }
    }
    pipeline.run().map(drop)
}

/// Renews the leases of a node's connections. It also restores leases that Redis lost.
pub(crate) fn renew(node: &str, touches: &[Touch]) -> Result<Vec<Change>, Error> {
    let mut partitions: BTreeMap<u64, Vec<&Touch>> = BTreeMap::new();
    for touch in touches {
        partitions.entry(keys::partition(&touch.user_id)).or_default().push(touch);
    }
    let now = clock::now_ms();
    let ends = [(now + keys::LEASE_MS).to_string(), (now + keys::NODE_LEASE_MS).to_string()];
    let mut changes = Vec::new();
    for (&partition, touches) in &partitions {
        let mut args = vec![node.to_owned(), ends[0].clone(), ends[1].clone()];
        for touch in touches {
            args.extend([touch.connection.clone(), touch.user_id.clone()]);
            args.push(touch.active_ms.map_or("-".to_owned(), |ms| ms.to_string()));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        changes.extend(presence::changes(&presence::run("renew", partition, &args)?));
    }
    // After the entries: a sweep may just have removed a partition.
    busy::add(partitions.into_keys())?;
    Ok(changes)
}

pub(crate) fn heartbeat(node: &str) -> Result<(), Error> {
    let now = clock::now_ms();
    let mut pipeline = Pipeline::new();
    pipeline.push(&["ZADD", keys::NODES, &(now + keys::NODE_LEASE_MS).to_string(), node]);
    // The leases of a node that died long ago have been ended in all partitions.
    pipeline.push(&[
        "ZREMRANGEBYSCORE",
        keys::NODES,
        "-inf",
        &now.saturating_sub(keys::NODE_FORGOTTEN_MS).to_string(),
    ]);
    pipeline.run().map(drop)
}

/// The result of a sweep in one partition.
#[derive(Default)]
pub(crate) struct Swept {
    pub changes: Vec<Change>,
    /// The connections of dead nodes.
    pub reaped: Vec<String>,
}

/// Ends leases of dead nodes, expired leases, graces and activity, and returns changes that were not
/// announced. One round trip finds the partitions with work. `each` gets the result of one partition before
/// the next one is swept. So a sweep makes progress even if it finds more work than one run can do. While
/// Redis is young, the sweep announces nobody as offline, because not all nodes have reported their
/// connections.
pub(crate) fn sweep(
    is_young: bool,
    partitions: &BTreeSet<u64>,
    mut each: impl FnMut(Swept) -> Result<(), String>,
) -> Result<(), String> {
    if partitions.is_empty() {
        return Ok(());
    }
    let describe = |error| redis::describe(&error);
    let now = clock::now_ms().to_string();
    let mut pipeline = Pipeline::new();
    pipeline.push(&["ZRANGEBYSCORE", keys::NODES, &now, "+inf"]);
    for &partition in partitions {
        pipeline.push(&["ZRANGEBYSCORE", &keys::presence_set(partition, "nodes"), "-inf", &now]);
        for set in ["due", "grace", "idle"] {
            pipeline.push(&["ZCOUNT", &keys::presence_set(partition, set), "-inf", &now]);
        }
        pipeline.push(&["ZCARD", &keys::presence_set(partition, "changed")]);
    }
    let replies = pipeline.run().map_err(describe)?;
    let Some((alive, replies)) = replies.split_first() else { return Ok(()) };
    let alive: BTreeSet<&str> = alive.texts().collect();
    let (lease, young) = (keys::LEASE_MS.to_string(), if is_young { "1" } else { "0" });
    for (&partition, found) in partitions.iter().zip(replies.chunks(5)) {
        let Some((nodes, counts)) = found.split_first() else { break };
        let mut swept = Swept::default();
        let mut over = counts.iter().any(|count| count.integer() != Some(0));
        for node in nodes.texts().filter(|node| !alive.contains(node)) {
            let reply = presence::run("reap", partition, &[node, &keys::NODE_LEASE_MS.to_string()]);
            let reply = reply.map_err(describe)?;
            swept.reaped.extend(reply.texts().map(str::to_owned));
            over = true;
        }
        if over {
            let reply = presence::run("sweep", partition, &[SWEEP_MAX, &lease, young]).map_err(describe)?;
            swept.changes.extend(presence::changes(&reply));
            each(swept)?;
        }
    }
    Ok(())
}
