//! Gaps: requests of rooms for missed pushes, and the waits between repeated requests. They go through a
//! mailbox to a trigger, which calls the handler and answers with `Hub::fill` or `Hub::give_up`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;

use super::positions::Positions;
use switchboard_contract::connection::Gap;
use switchboard_core::ids::{Address, ConnectionId};
use switchboard_core::limits;

/// A gap: subscribers of an address lack the pushes after `after`. The receiver answers it once, by `fill` or
/// `give_up`.
#[derive(Clone, Debug)]
pub struct Missing {
    pub(super) address: Address,
    pub(super) reader: Reader,
    pub(super) after: Positions,
    /// 0 for the first request. Later requests follow a wait.
    pub(super) attempt: u32,
    /// Identifies the request. An answer with an older ticket is ignored.
    pub(super) ticket: u64,
}

/// The subscribers that lack the pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// All live subscribers of the address.
    Live,
    /// One connection, which is behind its gate.
    One(ConnectionId),
}

impl Missing {
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the argument for `connection.missed`.
    pub fn gap(&self) -> Gap {
        Gap {
            address: self.address.as_str().to_owned(),
            after: self.after.as_slice().to_vec(),
            bytes_max: limits::PAGE_BYTES_MAX as u32,
        }
    }

    /// Returns the wait before the request: it doubles with each attempt.
    pub(super) fn wait(&self) -> Duration {
        let doubled = self.attempt.saturating_sub(1).min(16);
        limits::MISSED_RETRY_AFTER * (1 << doubled)
    }
}

/// Where rooms put their requests. An address has at most one request for its live subscribers and one for
/// each subscriber that catches up, so the mailboxes are bounded by the number of subscriptions.
pub(super) struct Mailbox {
    tickets: AtomicU64,
    at_once: mpsc::UnboundedSender<Missing>,
    later: mpsc::UnboundedSender<Missing>,
}

impl Mailbox {
    pub(super) fn new(
        at_once: mpsc::UnboundedSender<Missing>,
        later: mpsc::UnboundedSender<Missing>,
    ) -> Self {
        Self { tickets: AtomicU64::new(1), at_once, later }
    }

    /// Sends a request. Returns its ticket, which the answer must carry.
    pub(super) fn ask(&self, address: &Address, reader: Reader, after: &Positions, attempt: u32) -> u64 {
        let ticket = self.tickets.fetch_add(1, Relaxed);
        let missing = Missing { address: address.clone(), reader, after: after.clone(), attempt, ticket };
        let mailbox = if attempt == 0 { &self.at_once } else { &self.later };
        // The receiver is dropped only when the process ends.
        let _ = mailbox.send(missing);
        ticket
    }
}
