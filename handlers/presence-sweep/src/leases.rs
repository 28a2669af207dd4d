//! Leases in Redis: who has a connection, until when. Every step of one user is one script, so two nodes that see the same
//! user at once agree about who was first and who was last.

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
        &[&keys::leases(user), &keys::presence(user), &keys::due(partition), &keys::grace(partition)],
        &[
            &opened.connection,
            &opened.node,
            user,
            &keys::lease(&opened.node, &opened.connection, user),
            &now.to_string(),
            &(now + keys::LEASE_MS).to_string(),
            &keys::LISTED_MS.to_string(),
        ],
    )?;
    let flag = |index: usize| reply.items().get(index).and_then(Reply::integer) == Some(1);
    Ok(Begun { was_offline: flag(0), unlisted: flag(1) })
}

pub fn end(closed: &Closed, now: u64) -> Result<(), Error> {
    let user = &closed.user_id;
    let partition = keys::partition(user);
    redis::script(
        "close",
        &[&keys::leases(user), &keys::presence(user), &keys::due(partition), &keys::grace(partition)],
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
    let (now, end) = (now.to_string(), (now + keys::LEASE_MS).to_string());
    let mut pipeline = Pipeline::new();
    for touch in touches {
        let user = &touch.user_id;
        let lease = keys::lease(node, &touch.connection, user);
        pipeline.push(&["ZADD", &keys::due(keys::partition(user)), &end, &lease]);
        pipeline.push(&["HSET", &keys::leases(user), &touch.connection, node]);
        if touch.active {
            pipeline.push(&["HSET", &keys::presence(user), "status", "online", "active", &now]);
        }
    }
    pipeline.run().map(drop)
}

pub fn heartbeat(node: &str, now: u64) -> Result<(), Error> {
    redis::command(&["ZADD", keys::NODES, &(now + keys::NODE_LEASE_MS).to_string(), node]).map(drop)
}

/// Ends the leases of nodes that are silent for longer than theirs.
pub fn reap(now: u64) -> Result<u64, Error> {
    let dead = redis::command(&["ZRANGEBYSCORE", keys::NODES, "-inf", &now.to_string()])?;
    let mut ended = 0;
    for node in dead.texts() {
        for partition in 0..keys::PRESENCE_PARTITIONS {
            let keys = [keys::due(partition), keys::grace(partition)];
            let reply = redis::script("reap", &[&keys[0], &keys[1]], &[node, &now.to_string()])?;
            ended += reply.integer().unwrap_or(0).max(0) as u64;
        }
        // Last, so that a sweep that was cut short is done again.
        redis::command(&["ZREM", keys::NODES, node])?;
    }
    Ok(ended)
}

/// Who is offline now. One round trip finds the partitions that have anything due.
pub fn sweep(now: u64) -> Result<Vec<Gone>, Error> {
    let now = now.to_string();
    let mut pipeline = Pipeline::new();
    for partition in 0..keys::PRESENCE_PARTITIONS {
        pipeline.push(&["ZCOUNT", &keys::due(partition), "-inf", &now]);
        pipeline.push(&["ZCOUNT", &keys::grace(partition), "-inf", &now]);
    }
    let counts = pipeline.run()?;
    let mut gone = Vec::new();
    for (partition, counts) in counts.chunks(2).enumerate() {
        if counts.iter().all(|count| count.integer() == Some(0)) {
            continue;
        }
        let partition = partition as u64;
        let keys = [keys::due(partition), keys::grace(partition)];
        let reply = redis::script(
            "sweep",
            &[&keys[0], &keys[1]],
            &[&now, &SWEEP_MAX.to_string(), &keys::LEASE_MS.to_string()],
        )?;
        gone.extend(read_gone(reply.items()));
    }
    Ok(gone)
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
