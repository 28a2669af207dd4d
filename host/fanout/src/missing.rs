//! Questions about what was missed, from rooms to whoever can call a handler, and the waits between repeated questions.
//! The edges answer them (`Hub::fill`, `Hub::give_up`); nothing here knows who that is.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;

use super::positions::Positions;
use crate::contract::connection::Gap;
use crate::ids::{Address, ConnectionId};
use crate::limits;

/// Readers of an address lack what follows a position. To be answered once, by `fill` or by `give_up`.
#[derive(Clone, Debug)]
pub struct Missing {
    pub(super) address: Address,
    pub(super) reader: Reader,
    pub(super) after: Positions,
    /// 0 the first time; then it comes after a wait.
    pub(super) attempt: u32,
    /// An answer to an older question is no answer.
    pub(super) ticket: u64,
}

/// Who lacks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Everybody who rides the common stream of the address.
    Live,
    /// One connection, behind its gate.
    One(ConnectionId),
}

impl Missing {
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What to ask `connection.missed`.
    pub fn gap(&self) -> Gap {
        Gap {
            address: self.address.as_str().to_owned(),
            after: self.after.as_slice().to_vec(),
            bytes_max: limits::PAGE_BYTES_MAX as u32,
        }
    }

    /// How long to wait before asking.
    pub(super) fn wait(&self) -> Duration {
        let doubled = self.attempt.saturating_sub(1).min(16);
        Duration::from_millis(limits::MISSED_RETRY_MS << doubled)
    }
}

/// Where rooms leave their questions. An address has at most one for all and one for each of its subscribers, so the
/// mailboxes are bounded by the subscriptions.
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

    /// Returns the ticket by which the answer is known.
    pub(super) fn ask(&self, address: &Address, reader: Reader, after: &Positions, attempt: u32) -> u64 {
        let ticket = self.tickets.fetch_add(1, Relaxed);
        let missing = Missing { address: address.clone(), reader, after: after.clone(), attempt, ticket };
        let mailbox = if attempt == 0 { &self.at_once } else { &self.later };
        // Whoever answers is gone only when the process ends.
        let _ = mailbox.send(missing);
        ticket
    }
}
