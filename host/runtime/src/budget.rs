//! The resources that the calls of all releases on a node share: call slots, memory, fetches in flight, the
//! memory for their bodies, and turns for long calls.
//! This file sets their division. `shares` counts the shares, and `interfaces::turns` passes the turns.

use crate::interfaces::turns::Turns;
use switchboard_core::limits;
use switchboard_core::quota::{Claim, Quota};
use switchboard_core::shares::Division;
use switchboard_http::outbound;

pub(super) struct Budget {
    pub calls: Quota,
    pub memory: Quota,
    pub fetches: Quota,
    pub fetch_bodies: Quota,
    pub turns: Turns,
}

impl Budget {
    pub(crate) fn new(memory_mib: u32) -> Self {
        let calls = limits::CALLS_MAX as usize;
        let fetches = limits::FETCH_CONNECTIONS_MAX;
        let memory = memory_mib as usize * 1024 * 1024 / limits::MEMORY_UNIT_BYTES;
        Self {
            // A release may borrow four fifths of what can be lent. That is more than the maximum of
            // `concurrency`, so a release that runs alone is bounded by its own `concurrency`.
            calls: Quota::new(Division { total: calls, reserve: calls / 4, lent: 4 }),
            memory: Quota::new(Division { total: memory, reserve: memory / 4, lent: 2 }),
            // Two thirds of what can be lent are the maximum of `fetch_concurrency`.
            fetches: Quota::new(Division { total: fetches, reserve: fetches / 4, lent: 2 }),
            fetch_bodies: outbound::quota(),
            turns: Turns::of_this_machine(),
        }
    }

    /// Makes the claims of one release.
    pub(crate) fn claims(&self) -> Claims {
        Claims {
            calls: self.calls.claim(),
            memory: self.memory.claim(),
            fetches: self.fetches.claim(),
            fetch_bodies: self.fetch_bodies.claim(),
            turns: self.turns.queue(),
        }
    }
}

/// The claims from which a release takes slots, memory, fetches and turns for its calls.
pub(super) struct Claims {
    pub calls: Claim,
    pub memory: Claim,
    pub fetches: Claim,
    pub fetch_bodies: Claim,
    pub turns: crate::interfaces::turns::TurnQueue,
}
