//! Which connections sent something, so that one call reports many of them.

use std::collections::HashMap;

use parking_lot::Mutex;

use switchboard_contract::connection::Touch;
use switchboard_core::ids::{ConnectionId, UserId};
use switchboard_core::timestamp;

/// Connections that sent something since the last report.
#[derive(Default)]
pub(super) struct Touches(Mutex<HashMap<ConnectionId, (UserId, Option<u64>)>>);

impl Touches {
    pub(super) fn add(&self, connection: ConnectionId, user: &UserId, active: bool) {
        let mut touched = self.0.lock();
        let (_, active_ms) = touched.entry(connection).or_insert_with(|| (user.clone(), None));
        if active {
            *active_ms = Some(timestamp::now_ms());
        }
    }

    /// Removes a connection that has closed. A report after `close` would make it present again.
    pub(super) fn forget(&self, connection: ConnectionId) {
        self.0.lock().remove(&connection);
    }

    pub(super) fn take(&self) -> Vec<Touch> {
        let touched = std::mem::take(&mut *self.0.lock());
        touched
            .into_iter()
            .map(|(connection, (user, active_ms))| Touch {
                connection: connection.to_string(),
                user_id: user.as_str().to_owned(),
                active_ms,
            })
            .collect()
    }
}
