//! Whether Redis was emptied a moment ago, and what was told before that still holds. A key says since when the leases in
//! it are gathered; 0 once everything before is accounted for.

use chat::keys;
use sdk::clock;
use sdk::redis::{self, Error, Pipeline};

use crate::store;

/// How old the leases are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Age {
    /// Nodes may still have connections to tell of.
    Young,
    /// Every node has told. Who is still only said to be here may be asked about.
    Gathered,
    Settled,
}

/// Judges what the key says; absent, Redis is new.
pub fn age(epoch: u64, now: u64) -> Age {
    match now.saturating_sub(epoch) {
        _ if epoch == 0 => Age::Settled,
        young if young < keys::NODE_LEASE_MS => Age::Young,
        gathered if gathered < keys::LEASE_MS => Age::Settled,
        _ => Age::Gathered,
    }
}

pub fn read() -> Result<Age, Error> {
    let now = clock::now_ms();
    let reply = redis::command(&["GET", keys::PRESENCE_EPOCH])?;
    if let Some(epoch) = reply.integer() {
        return Ok(age(epoch.max(0) as u64, now));
    }
    // Where nobody was told to be here, nobody can be announced as gone by mistake: no need to be young.
    let epoch = match store::said_to_be_here(1) {
        Ok(people) if people.is_empty() => now.saturating_sub(keys::NODE_LEASE_MS),
        _ => now,
    };
    redis::command(&["SET", keys::PRESENCE_EPOCH, &epoch.to_string(), "NX"])?;
    Ok(age(epoch, now))
}

/// Who is said to be here is looked at once more by the next sweeps: whoever no node told of has gone while Redis was away.
pub fn account(people: &[(String, u64)]) -> Result<(), Error> {
    let now = clock::now_ms().to_string();
    let mut pipeline = Pipeline::new();
    for (user, last_seen_ms) in people {
        pipeline.push(&["HSETNX", &keys::presence(user), "seen", &last_seen_ms.to_string()]);
        // Who has just gone keeps the grace that they have.
        pipeline.push(&["ZADD", &keys::presence_set(keys::partition(user), "grace"), "NX", &now, user]);
    }
    pipeline.push(&["SET", keys::PRESENCE_EPOCH, "0"]);
    pipeline.run().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_redis_is_young_for_the_lease_of_a_node_and_gathered_after_that_of_a_connection() {
        let epoch = 1_000_000;
        assert_eq!(age(epoch, epoch + keys::NODE_LEASE_MS - 1), Age::Young);
        assert_eq!(age(epoch, epoch + keys::NODE_LEASE_MS), Age::Settled);
        assert_eq!(age(epoch, epoch + keys::LEASE_MS), Age::Gathered);
        assert_eq!(age(0, epoch), Age::Settled);
        assert_eq!(age(epoch, epoch - 5), Age::Young, "a clock that lags");
    }
}
