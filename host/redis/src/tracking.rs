//! Lets the server report every change of the guard key, so that batches of commands need not ask for it
//! (*client-side caching*, `CLIENT TRACKING`). The server queues its report (a push of RESP3) on the same
//! connection, before the replies of all commands that it runs later. The driver handles pushes and replies
//! in the order in which they arrive. So when the replies of a batch are there, a change of the guard before
//! the batch has been counted here.
//!
//! The mode `OPTIN` keeps this order; `BCAST` does not. In it the server tracks only the key of a command
//! that follows `CLIENT CACHING YES`, and only until the first change. So any report concerns the guard, or
//! everything (`FLUSHALL`), and its content does not matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{Cmd, Pipeline, PushInfo, PushKind, Value};
use switchboard_core::limits;
use tokio::time::timeout;

use super::fault;
use super::packed;

/// Counts the reports of changes on one connection.
#[derive(Clone, Default)]
pub(super) struct Changes(Arc<AtomicU64>);

impl Changes {
    /// The number of reports until now.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Handles the pushes of the connection. The driver calls it before it hands out a later reply.
    pub(super) fn counter(&self) -> impl AsyncPushSender + use<> {
        let count = self.0.clone();
        move |push: PushInfo| {
            if push.kind == PushKind::Invalidate {
                count.fetch_add(1, Ordering::Release);
            }
            Ok::<(), redis::aio::SendError>(())
        }
    }
}

/// A value of the guard that was read, and whose changes the server reports.
#[derive(Clone)]
pub(super) struct TrackedGuard {
    changes: Changes,
    /// The number of reports before the guard was read.
    at: u64,
}

impl TrackedGuard {
    /// For a guard that is about to be read with the commands of [`read`].
    pub(super) fn before_read(changes: &Changes) -> Self {
        Self { at: changes.count(), changes: changes.clone() }
    }

    /// True until the server reports a change.
    pub(super) fn is_unchanged(&self) -> bool {
        self.changes.count() == self.at
    }
}

/// The commands that read a key and make the server report its next change. They must be neighbours in one
/// pipeline.
pub(super) fn read(key: &str) -> [Cmd; 2] {
    [packed(&["CLIENT", "CACHING", "YES"]), packed(&["GET", key])]
}

/// The result of an attempt to use tracking on a connection.
#[derive(Debug, PartialEq)]
pub(super) enum Attempt {
    /// The server reports changes in time.
    Works,
    /// The server or a proxy does not, for this reason.
    Refused(String),
    /// Unknown: Redis is full, or does not answer. Another attempt may succeed.
    Unknown,
}

/// Switches tracking on, and tests it with a counter: the node changes a key that it has read, and the report
/// must arrive before the reply of the next command.
pub(super) async fn start(
    connection: &mut MultiplexedConnection,
    changes: &Changes,
    counter: &str,
) -> Attempt {
    let before = changes.count();
    let [caching, get] = read(counter);
    let commands = [
        packed(&["CLIENT", "TRACKING", "ON", "OPTIN"]),
        caching,
        get,
        packed(&["INCR", counter]),
        packed(&["PING"]),
    ];
    let mut pipeline = Pipeline::new();
    let count = commands.len();
    for command in commands {
        pipeline.add_command(command);
    }
    let sent = connection.send_packed_commands(&pipeline, 0, count);
    let Ok(Ok(replies)) = timeout(limits::REDIS_SILENCE_MAX, sent).await else { return Attempt::Unknown };
    let mut errors = replies.iter().enumerate().filter_map(|(index, reply)| match reply {
        Value::ServerError(error) => Some((index, error)),
        _ => None,
    });
    match errors.next() {
        // The first two commands are those that a server may not know, or a user may not be allowed to use.
        Some((0 | 1, error)) if fault::code(error) != "BUSY" => Attempt::Refused(error.to_string()),
        Some(_) => Attempt::Unknown,
        None if changes.count() > before => Attempt::Works,
        None => Attempt::Refused("a change was not reported".to_owned()),
    }
}
