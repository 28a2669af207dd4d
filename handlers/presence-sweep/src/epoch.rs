//! Detects that Redis has lost its data, and corrects the statuses that were announced before. A key has the
//! time since when leases are collected in this Redis. It is 0 once the former statuses are corrected.

use std::collections::BTreeSet;

use chat::keys;
use sdk::clock;
use sdk::redis::{self, Error, Pipeline};

use crate::{busy, store};

/// The age of the leases in Redis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Age {
    /// Nodes may still have connections that they have not reported.
    Young,
    /// All nodes have reported. A user who is online in Postgres and has no lease is offline.
    Collected,
    /// Nothing is to be corrected now.
    Settled,
    /// The former statuses are corrected. Nothing is left to do.
    Corrected,
}

/// The age for this value of the key.
pub(crate) fn age(epoch: u64, now: u64) -> Age {
    match now.saturating_sub(epoch) {
        _ if epoch == 0 => Age::Corrected,
        young if young < keys::NODE_LEASE_MS => Age::Young,
        collected if collected < keys::LEASE_MS => Age::Settled,
        _ => Age::Collected,
    }
}

pub(crate) fn read() -> Result<Age, Error> {
    let now = clock::now_ms();
    let reply = redis::command(&["GET", keys::PRESENCE_EPOCH])?;
    if let Some(epoch) = reply.integer() {
        return Ok(age(epoch.max(0) as u64, now));
    }
    // The key is absent, so Redis is new. If nobody is online in Postgres, nobody can be announced as offline
    // by mistake, and the leases need not be young.
    let epoch = match store::online(1) {
        Ok(people) if people.is_empty() => now.saturating_sub(keys::NODE_LEASE_MS),
        _ => now,
    };
    redis::command(&["SET", keys::PRESENCE_EPOCH, &epoch.to_string(), "NX"])?;
    Ok(age(epoch, now))
}

/// Puts the users who are online in Postgres into the grace, so that the next sweeps check them. A user whom
/// no node has reported went offline while Redis was unavailable.
pub(crate) fn check(people: &[(String, u64)]) -> Result<(), Error> {
    let now = clock::now_ms().to_string();
    busy::add(people.iter().map(|(user, _)| keys::partition(user)).collect::<BTreeSet<_>>())?;
    let mut pipeline = Pipeline::new();
    for (user, last_seen_ms) in people {
        pipeline.push(&["HSETNX", &keys::presence(user), "seen", &last_seen_ms.to_string()]);
        // `NX` keeps the grace of a user who has just gone.
        pipeline.push(&["ZADD", &keys::presence_set(keys::partition(user), "grace"), "NX", &now, user]);
    }
    pipeline.push(&["SET", keys::PRESENCE_EPOCH, "0"]);
    pipeline.run().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_young_for_a_node_lease_and_collected_after_a_connection_lease() {
        let epoch = 1_000_000;
        assert_eq!(age(epoch, epoch + keys::NODE_LEASE_MS - 1), Age::Young);
        assert_eq!(age(epoch, epoch + keys::NODE_LEASE_MS), Age::Settled);
        assert_eq!(age(epoch, epoch + keys::LEASE_MS), Age::Collected);
        assert_eq!(age(0, epoch), Age::Corrected);
        assert_eq!(age(epoch, epoch - 5), Age::Young, "a clock that lags");
    }
}
