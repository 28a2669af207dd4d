//! Bounds the number of connections: of the node, and of each user. Dropping a permit returns it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Gauge;
use parking_lot::Mutex;

use switchboard_core::ids::UserId;

pub(super) struct ConnectionLimits {
    connections: AtomicUsize,
    connections_max: usize,
    /// Only users with a connection.
    users: Mutex<HashMap<UserId, usize>>,
    per_user_max: usize,
    gauge: Gauge,
}

/// The permit of one connection.
pub(super) struct ConnectionPermit(Arc<ConnectionLimits>);

/// The permit of one connection within its user's bound.
pub(super) struct UserPermit {
    limits: Arc<ConnectionLimits>,
    user: UserId,
}

impl ConnectionLimits {
    pub(super) fn new(connections_max: usize, per_user_max: usize) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            connections_max,
            users: Mutex::default(),
            per_user_max,
            gauge: metrics::gauge!("switchboard_connections"),
        })
    }

    pub(super) fn taken(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Takes a permit. `None` when the node is full.
    pub(super) fn take(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let more = |taken| (taken < self.connections_max).then_some(taken + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.gauge.increment(1.0);
        Some(ConnectionPermit(self.clone()))
    }

    /// Takes a permit for a user. `None` when the user has the maximum number of connections.
    pub(super) fn take_for(self: &Arc<Self>, user: &UserId) -> Option<UserPermit> {
        let mut users = self.users.lock();
        let taken = users.get(user).copied().unwrap_or(0);
        if taken >= self.per_user_max {
            return None;
        }
        users.insert(user.clone(), taken + 1);
        Some(UserPermit { limits: self.clone(), user: user.clone() })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.decrement(1.0);
    }
}

impl Drop for UserPermit {
    fn drop(&mut self) {
        let mut users = self.limits.users.lock();
        if let Some(taken) = users.get_mut(&self.user) {
            *taken -= 1;
            if *taken == 0 {
                users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_free_again_when_it_is_dropped() {
        let limits = ConnectionLimits::new(2, 1);
        let (first, second) = (limits.take(), limits.take());
        assert!(first.is_some() && second.is_some() && limits.take().is_none());
        drop(first);
        assert!(limits.take().is_some());

        let ana = UserId::parse("ana").unwrap();
        let permit = limits.take_for(&ana).unwrap();
        assert!(limits.take_for(&ana).is_none());
        assert!(limits.take_for(&UserId::parse("bo").unwrap()).is_some());
        drop(permit);
        assert!(limits.users.lock().is_empty());
        assert!(limits.take_for(&ana).is_some());
    }
}
