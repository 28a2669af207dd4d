//! What the calls of all releases on this node share: call slots, memory and long turns on a processor. The division is here;
//! how a share is counted is in `shares`, and how a turn passes on in `interfaces::turns`.

use crate::interfaces::turns::Turns;
use crate::limits;
use crate::quota::{Claim, Quota};
use crate::shares::Division;

pub(super) struct Budget {
    pub calls: Quota,
    pub memory: Quota,
    pub turns: Turns,
}

impl Budget {
    pub fn new(memory_mib: u32) -> Self {
        let calls = limits::CALLS_MAX as usize;
        let memory = memory_mib as usize * 1024 * 1024 / limits::MEMORY_UNIT_BYTES;
        Self {
            // Four fifths of what can be lent are more than a release may ask for: alone it is bounded by its own `concurrency`.
            calls: Quota::new(Division { total: calls, reserve: calls / 4, lent: 4 }),
            memory: Quota::new(Division { total: memory, reserve: memory / 4, lent: 2 }),
            turns: Turns::of_this_machine(),
        }
    }

    /// One release's part in it.
    pub fn claims(&self) -> Claims {
        Claims { calls: self.calls.claim(), memory: self.memory.claim(), turns: self.turns.queue() }
    }
}

/// What a release takes its calls' slots, memory and turns from.
pub(super) struct Claims {
    pub calls: Claim,
    pub memory: Claim,
    pub turns: crate::interfaces::turns::TurnQueue,
}
