//! How many may be here at once: connections of the node, and of each user. A place is given back when it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Gauge;

use crate::ids::UserId;

pub struct Places {
    connections: AtomicUsize,
    connections_max: usize,
    /// Only users who are here.
    users: Mutex<HashMap<UserId, usize>>,
    per_user_max: usize,
    gauge: Gauge,
}

/// One connection's.
pub struct Place(Arc<Places>);

/// One connection's among its user's.
pub struct UserPlace {
    places: Arc<Places>,
    user: UserId,
}

impl Places {
    pub fn new(connections_max: usize, per_user_max: usize) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            connections_max,
            users: Mutex::default(),
            per_user_max,
            gauge: metrics::gauge!("switchboard_connections"),
        })
    }

    pub fn taken(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// `None`: the node is full.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |taken| (taken < self.connections_max).then_some(taken + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.gauge.increment(1.0);
        Some(Place(self.clone()))
    }

    /// `None`: the user has as many connections as one may have.
    pub fn take_for(self: &Arc<Self>, user: &UserId) -> Option<UserPlace> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = users.get(user).copied().unwrap_or(0);
        if taken >= self.per_user_max {
            return None;
        }
        users.insert(user.clone(), taken + 1);
        Some(UserPlace { places: self.clone(), user: user.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.decrement(1.0);
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut users = self.places.users.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn a_place_is_free_again_when_its_holder_has_gone() {
        let places = Places::new(2, 1);
        let (first, second) = (places.take(), places.take());
        assert!(first.is_some() && second.is_some() && places.take().is_none());
        drop(first);
        assert!(places.take().is_some());

        let ana = UserId::parse("ana").unwrap();
        let place = places.take_for(&ana).unwrap();
        assert!(places.take_for(&ana).is_none());
        assert!(places.take_for(&UserId::parse("bo").unwrap()).is_some());
        drop(place);
        assert!(places.users.lock().unwrap().is_empty());
        assert!(places.take_for(&ana).is_some());
    }
}
