//! Which connections sent something, so that one call reports many of them, and few calls report one.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;

use switchboard_contract::connection::Touch;
use switchboard_core::ids::{ConnectionId, UserId};
use switchboard_core::{limits, timestamp};

/// Connections that sent something, until they are reported and for [`limits::TOUCH_REPORTS_APART`] after
/// that.
#[derive(Default)]
pub(super) struct Touches(Mutex<HashMap<ConnectionId, Touched>>);

struct Touched {
    user: UserId,
    /// It sent something since its last report.
    is_touched: bool,
    /// When the person last acted, if that was after the last report.
    active_ms: Option<u64>,
    reported: Option<Instant>,
    /// The last report that the person acted.
    reported_active: Option<Instant>,
}

impl Touches {
    pub(super) fn add(&self, connection: ConnectionId, user: &UserId, active: bool) {
        let mut connections = self.0.lock();
        let touched = connections.entry(connection).or_insert_with(|| Touched {
            user: user.clone(),
            is_touched: false,
            active_ms: None,
            reported: None,
            reported_active: None,
        });
        touched.is_touched = true;
        if active {
            touched.active_ms = Some(timestamp::now_ms());
        }
    }

    /// Adds connections that are to be reported at once, whenever they were reported before.
    pub(super) fn add_unreported(&self, connections: &[(ConnectionId, UserId)]) {
        for (connection, user) in connections {
            self.add(*connection, user, false);
            if let Some(touched) = self.0.lock().get_mut(connection) {
                touched.reported = None;
            }
        }
    }

    /// Removes a connection that has closed. A report after `close` would make it present again.
    pub(super) fn forget(&self, connection: ConnectionId) {
        self.0.lock().remove(&connection);
    }

    /// Takes the touches that are to be reported at `now`. The others wait for a later report.
    pub(super) fn take(&self, now: Instant) -> Vec<Touch> {
        let mut due = Vec::new();
        self.0.lock().retain(|connection, touched| {
            if touched.is_due(now) {
                let active_ms = touched.active_ms.take();
                touched.is_touched = false;
                touched.reported = Some(now);
                if active_ms.is_some() {
                    touched.reported_active = Some(now);
                }
                due.push(Touch {
                    connection: connection.to_string(),
                    user_id: touched.user.as_str().to_owned(),
                    active_ms,
                });
            }
            touched.is_touched || is_recent(touched.reported, now)
        });
        due
    }
}

impl Touched {
    /// A person who acts is reported at once, although a report without an act was sent a moment ago: others
    /// may see the person as away.
    fn is_due(&self, now: Instant) -> bool {
        let acts = self.active_ms.is_some() && !is_recent(self.reported_active, now);
        self.is_touched && (acts || !is_recent(self.reported, now))
    }
}

fn is_recent(reported: Option<Instant>, now: Instant) -> bool {
    reported.is_some_and(|reported| now.saturating_duration_since(reported) < limits::TOUCH_REPORTS_APART)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const APART: Duration = limits::TOUCH_REPORTS_APART;

    /// Whether the only connection is reported at `now`, and whether with an act.
    fn report(touches: &Touches, now: Instant) -> Option<bool> {
        let mut taken = touches.take(now);
        assert!(taken.len() <= 1);
        taken.pop().map(|touch| touch.active_ms.is_some())
    }

    #[test]
    fn a_busy_connection_is_reported_once_in_an_interval_and_its_last_act_is_not_lost() {
        let (touches, start) = (Touches::default(), Instant::now());
        let (connection, user) = (ConnectionId::random(), UserId::parse("ana").unwrap());
        touches.add(connection, &user, true);
        assert_eq!(report(&touches, start), Some(true));
        assert_eq!(report(&touches, start + APART / 2), None);
        touches.add(connection, &user, true);
        assert_eq!(report(&touches, start + APART / 2), None);
        assert_eq!(report(&touches, start + APART), Some(true));
        assert_eq!(report(&touches, start + APART * 3), None);
        assert!(touches.0.lock().is_empty(), "a connection that is silent is forgotten");
    }

    #[test]
    fn the_first_act_is_reported_at_once() {
        let (touches, start) = (Touches::default(), Instant::now());
        let (connection, user) = (ConnectionId::random(), UserId::parse("ana").unwrap());
        touches.add(connection, &user, false);
        assert_eq!(report(&touches, start), Some(false));
        touches.add(connection, &user, true);
        assert_eq!(report(&touches, start + Duration::from_secs(1)), Some(true));
    }

    #[test]
    fn all_connections_are_reported_again_after_a_loss_of_redis() {
        let (touches, start) = (Touches::default(), Instant::now());
        let (connection, user) = (ConnectionId::random(), UserId::parse("ana").unwrap());
        touches.add(connection, &user, true);
        assert_eq!(report(&touches, start), Some(true));
        touches.add_unreported(&[(connection, user)]);
        assert_eq!(report(&touches, start), Some(false));
    }
}
