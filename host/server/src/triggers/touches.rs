//! Which connections sent something, so that one call reports many of them. A connection that only repeats
//! the same kind of action tells its handlers nothing new, so it is reported less often: a person who writes
//! ten messages in ten seconds makes one report, not ten.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use parking_lot::Mutex;

use switchboard_contract::connection::Touch;
use switchboard_core::ids::{ConnectionId, UserId};
use switchboard_core::{limits, timestamp};

/// Connections that sent something and were not reported yet, and those that were reported in the last
/// [`limits::TOUCH_REPEATED_AFTER`].
#[derive(Default)]
pub(super) struct Touches(Mutex<HashMap<ConnectionId, Touched>>);

struct Touched {
    user: UserId,
    /// Something is to be reported.
    is_pending: bool,
    /// When the person last acted, if that is to be reported.
    active_ms: Option<u64>,
    /// It is to be reported now, because the last report does not cover it.
    is_due: bool,
    /// The last kind of action: a digest of the type of its frame.
    kind: Option<u64>,
    /// The last report, and the last one of an action.
    reported: Option<Instant>,
    action_reported: Option<Instant>,
}

impl Touched {
    fn of(user: &UserId) -> Self {
        Self {
            user: user.clone(),
            is_pending: false,
            active_ms: None,
            is_due: false,
            kind: None,
            reported: None,
            action_reported: None,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let last = if self.active_ms.is_some() { self.action_reported } else { self.reported };
        let is_old = |last: Instant| now.duration_since(last) >= limits::TOUCH_REPEATED_AFTER;
        self.is_pending && (self.is_due || last.is_none_or(is_old))
    }
}

impl Touches {
    pub(super) fn add(&self, connection: ConnectionId, user: &UserId, active: bool) {
        let mut all = self.0.lock();
        let touched = all.entry(connection).or_insert_with(|| Touched::of(user));
        touched.is_pending = true;
        if active {
            touched.active_ms = Some(timestamp::now_ms());
        }
    }

    /// The person acted by a frame of this type. A type that differs from the one before is reported with the
    /// next report: it may change what the handlers conclude from an action.
    pub(super) fn acts(&self, connection: ConnectionId, frame_type: &str) {
        let mut hasher = DefaultHasher::new();
        frame_type.hash(&mut hasher);
        let kind = Some(hasher.finish());
        if let Some(touched) = self.0.lock().get_mut(&connection)
            && touched.kind != kind
        {
            touched.kind = kind;
            touched.is_due = true;
        }
    }

    /// The handlers may have lost what they knew of the connection, so it is reported with the next report.
    pub(super) fn add_again(&self, connection: ConnectionId, user: &UserId) {
        let mut all = self.0.lock();
        let touched = all.entry(connection).or_insert_with(|| Touched::of(user));
        (touched.is_pending, touched.is_due) = (true, true);
    }

    /// Removes a connection that has closed. A report after `close` would make it present again.
    pub(super) fn forget(&self, connection: ConnectionId) {
        self.0.lock().remove(&connection);
    }

    /// Takes what is due.
    pub(super) fn take(&self, now: Instant) -> Vec<Touch> {
        let mut taken = Vec::new();
        self.0.lock().retain(|connection, touched| {
            if touched.is_due(now) {
                touched.reported = Some(now);
                if touched.active_ms.is_some() {
                    touched.action_reported = Some(now);
                }
                (touched.is_pending, touched.is_due) = (false, false);
                taken.push(Touch {
                    connection: connection.to_string(),
                    user_id: touched.user.as_str().to_owned(),
                    active_ms: touched.active_ms.take(),
                });
            }
            // After this time, any touch is due, so nothing need be known of the last report.
            let is_recent = |last: Instant| now.duration_since(last) < limits::TOUCH_REPEATED_AFTER;
            touched.is_pending || touched.reported.is_some_and(is_recent)
        });
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOTHING: [bool; 0] = [];

    struct Fixture {
        touches: Touches,
        connection: ConnectionId,
        user: UserId,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let user = UserId::parse("ana").unwrap();
            Self {
                touches: Touches::default(),
                connection: ConnectionId::random(),
                user,
                start: Instant::now(),
            }
        }

        fn acts(&self, frame_type: &str) {
            self.touches.add(self.connection, &self.user, true);
            self.touches.acts(self.connection, frame_type);
        }

        fn pings(&self) {
            self.touches.add(self.connection, &self.user, false);
        }

        /// Takes what is due this many seconds after the start. Each report says whether it has an action.
        fn reported(&self, second: u64) -> Vec<bool> {
            let touches = self.touches.take(self.start + Duration::from_secs(second));
            touches.iter().map(|touch| touch.active_ms.is_some()).collect()
        }
    }

    #[test]
    fn an_action_that_is_repeated_is_reported_once_in_a_while_and_never_lost() {
        let ana = Fixture::new();
        let again = limits::TOUCH_REPEATED_AFTER.as_secs();
        ana.acts("message.send");
        assert_eq!(ana.reported(0), [true]);
        for second in 1..again {
            ana.acts("message.send");
            assert_eq!(ana.reported(second), NOTHING, "{second}");
        }
        // The last action is reported although nothing follows it.
        assert_eq!(ana.reported(again), [true]);
        assert_eq!(ana.reported(again + 1), NOTHING);
        assert_eq!(ana.reported(2 * again + 1), NOTHING);
        assert!(ana.touches.0.lock().is_empty(), "it keeps a connection that sends nothing");
        ana.acts("message.send");
        assert_eq!(ana.reported(2 * again + 2), [true]);
    }

    #[test]
    fn another_kind_of_action_is_reported_at_once() {
        let ana = Fixture::new();
        for (second, frame_type) in
            ["message.send", "presence.set", "message.send", "typing"].iter().enumerate()
        {
            ana.acts(frame_type);
            assert_eq!(ana.reported(second as u64), [true], "{frame_type}");
        }
    }

    #[test]
    fn an_action_does_not_wait_behind_a_sign_of_life() {
        let ana = Fixture::new();
        ana.pings();
        assert_eq!(ana.reported(0), [false]);
        ana.pings();
        assert_eq!(ana.reported(1), NOTHING);
        ana.acts("message.send");
        assert_eq!(ana.reported(2), [true]);
        ana.pings();
        assert_eq!(ana.reported(3), NOTHING);
    }

    #[test]
    fn after_a_loss_every_connection_is_reported_at_once() {
        let ana = Fixture::new();
        ana.acts("message.send");
        assert_eq!(ana.reported(0), [true]);
        ana.touches.add_again(ana.connection, &ana.user);
        assert_eq!(ana.reported(1), [false]);
        ana.acts("message.send");
        ana.touches.forget(ana.connection);
        assert_eq!(ana.reported(60), NOTHING);
    }
}
