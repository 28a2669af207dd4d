//! Leases in Redis: who has a connection, until when. Every step of one user is one script, so two nodes that see the same
//! user at once agree about who was first and who was last.

use std::collections::{BTreeMap, BTreeSet};

use sdk::connection::{Closed, Opened, Touch};
use sdk::redis::{self, Error, Pipeline, Reply};
use sdk::{Id, keys};

/// Of one partition and one sweep; the rest has its turn a second later.
const SWEEP_MAX: usize = 500;

/// What a new connection changes.
pub struct Begun {
    pub was_offline: bool,
    /// The directory has not heard of them for a while.
    pub unlisted: bool,
}

/// Somebody who has no connection any more.
#[derive(Debug, PartialEq)]
pub struct Gone {
    pub user: String,
    pub last_seen_ms: u64,
}

pub fn begin(opened: &Opened, now: u64) -> Result<Begun, Error> {
    let user = &opened.caller.user_id;
    let partition = keys::partition(user);
    let reply = redis::script(
        "open",
        &[
            &keys::leases(user),
            &keys::presence(user),
            &keys::due(partition),
            &keys::grace(partition),
            &keys::nodes_of(partition),
        ],
        &[
            &opened.connection,
            &opened.node,
            user,
            &keys::lease(&opened.node, &opened.connection, user),
            &now.to_string(),
            &(now + keys::LEASE_MS).to_string(),
            &keys::LISTED_MS.to_string(),
            &(now + keys::NODE_LEASE_MS).to_string(),
        ],
    )?;
    let flag = |index: usize| reply.items().get(index).and_then(Reply::integer) == Some(1);
    Ok(Begun { was_offline: flag(0), unlisted: flag(1) })
}

/// The directory could not be told: the next connection tells it.
pub fn unlist(user: &str) {
    let _ = redis::command(&["HDEL", &keys::presence(user), "listed"]);
}

pub fn end(closed: &Closed, now: u64) -> Result<(), Error> {
    let user = &closed.user_id;
    let partition = keys::partition(user);
    redis::script(
        "close",
        &[
            &keys::leases(user),
            &keys::presence(user),
            &keys::due(partition),
            &keys::grace(partition),
            &keys::closed(partition),
        ],
        &[
            &closed.connection,
            user,
            &keys::lease(&closed.node, &closed.connection, user),
            &now.to_string(),
            &(now + keys::GRACE_MS).to_string(),
        ],
    )?;
    Ok(())
}

/// What the connection looked at is not looked at any more.
pub fn forget_looks(connection: &str) -> Result<(), Error> {
    let looks = keys::looks(connection);
    let reply = redis::command(&["SMEMBERS", &looks])?;
    let mut pipeline = Pipeline::new();
    for conversation in reply.texts().filter_map(Id::parse) {
        pipeline.push(&["HDEL", &keys::looking(conversation), connection]);
    }
    if !pipeline.is_empty() {
        pipeline.push(&["DEL", &looks]);
        pipeline.run()?;
    }
    Ok(())
}

/// Renews, and makes again what Redis lost: a node that reports its connections uploads their leases.
pub fn renew(node: &str, touches: &[Touch], now: u64) -> Result<(), Error> {
    let mut partitions: BTreeMap<u64, Vec<&Touch>> = BTreeMap::new();
    for touch in touches {
        partitions.entry(keys::partition(&touch.user_id)).or_default().push(touch);
    }
    let at = now.to_string();
    let ends = [(now + keys::LEASE_MS).to_string(), (now + keys::NODE_LEASE_MS).to_string()];
    for (partition, touches) in partitions {
        let keys = [keys::due(partition), keys::nodes_of(partition), keys::closed(partition)];
        let mut args = vec![node, &at, &ends[0], &ends[1]];
        for touch in touches {
            args.extend([&*touch.connection, &*touch.user_id, if touch.active { "1" } else { "0" }]);
        }
        redis::script("renew", &[&keys[0], &keys[1], &keys[2]], &args)?;
    }
    Ok(())
}

pub fn heartbeat(node: &str, now: u64) -> Result<(), Error> {
    let mut pipeline = Pipeline::new();
    pipeline.push(&["ZADD", keys::NODES, &(now + keys::NODE_LEASE_MS).to_string(), node]);
    // Who is dead for long has been reaped everywhere.
    pipeline.push(&[
        "ZREMRANGEBYSCORE",
        keys::NODES,
        "-inf",
        &now.saturating_sub(keys::NODE_FORGOTTEN_MS).to_string(),
    ]);
    pipeline.run().map(drop)
}

/// What a sweep did.
#[derive(Default)]
pub struct Swept {
    pub gone: Vec<Gone>,
    /// Leases ended because their node is dead.
    pub reaped: u64,
}

/// Ends what is over: the leases of dead nodes, those that nobody renewed, the graces. One round trip finds the
/// partitions that have any of it.
pub fn sweep(now: u64) -> Result<Swept, Error> {
    let at = now.to_string();
    let mut pipeline = Pipeline::new();
    pipeline.push(&["ZRANGEBYSCORE", keys::NODES, &at, "+inf"]);
    for partition in 0..keys::PRESENCE_PARTITIONS {
        pipeline.push(&["ZRANGEBYSCORE", &keys::nodes_of(partition), "-inf", &at]);
        pipeline.push(&["ZCOUNT", &keys::due(partition), "-inf", &at]);
        pipeline.push(&["ZCOUNT", &keys::grace(partition), "-inf", &at]);
    }
    let replies = pipeline.run()?;
    let Some((alive, replies)) = replies.split_first() else { return Ok(Swept::default()) };
    let alive: BTreeSet<&str> = alive.texts().collect();
    let mut swept = Swept::default();
    for (partition, found) in (0..).zip(replies.chunks(3)) {
        let [nodes, due, grace] = found else { break };
        let keys = [keys::due(partition), keys::grace(partition), keys::nodes_of(partition)];
        let mut over = due.integer() != Some(0) || grace.integer() != Some(0);
        for node in nodes.texts().filter(|node| !alive.contains(node)) {
            let reply = redis::script("reap", &[&keys[0], &keys[1], &keys[2]], &[node, &at])?;
            swept.reaped += reply.integer().unwrap_or(0).max(0) as u64;
            over = true;
        }
        if over {
            let bounds = [SWEEP_MAX.to_string(), keys::LEASE_MS.to_string()];
            let reply = redis::script("sweep", &[&keys[0], &keys[1]], &[&at, &bounds[0], &bounds[1]])?;
            swept.gone.extend(read_gone(reply.items()));
        }
    }
    Ok(swept)
}

fn read_gone(items: &[Reply]) -> impl Iterator<Item = Gone> {
    items.chunks(2).filter_map(|pair| {
        let user = pair.first()?.text()?.to_owned();
        let last_seen_ms = pair.get(1).and_then(Reply::integer).unwrap_or(0).max(0) as u64;
        Some(Gone { user, last_seen_ms })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_comes_in_pairs() {
        let text = |text: &str| Reply::Text(text.to_owned());
        let reply = [text("ana"), text("17"), text("bo c"), Reply::Nil];
        let gone: Vec<_> = read_gone(&reply).collect();
        assert_eq!(
            gone,
            [Gone { user: "ana".into(), last_seen_ms: 17 }, Gone { user: "bo c".into(), last_seen_ms: 0 }]
        );
    }
}
