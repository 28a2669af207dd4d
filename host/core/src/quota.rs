//! A quota that all releases of a node share: a [`Shares`] behind a lock, a claim for each release, and
//! grants that return their units when they are dropped. Nothing waits here: a claim that cannot get its
//! units now fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::shares::{Division, Shares};
use parking_lot::{Mutex, MutexGuard};

/// The quota of one kind of units, for all releases of this node.
#[derive(Clone)]
pub struct Quota(Arc<Mutex<Shares<u64>>>);

impl Quota {
    pub fn new(division: Division) -> Self {
        Self(Arc::new(Mutex::new(Shares::new(division))))
    }

    /// Adds a claimant, which counts until the claim and its last grant are dropped.
    pub fn claim(&self) -> Claim {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.lock().add(&id);
        Claim(Arc::new(Claimant { quota: self.clone(), id }))
    }

    pub fn free(&self) -> usize {
        self.lock().free()
    }

    fn lock(&self) -> MutexGuard<'_, Shares<u64>> {
        // Every change is complete before anything can panic.
        self.0.lock()
    }
}

/// The right of one release to its share.
#[derive(Clone)]
pub struct Claim(Arc<Claimant>);

struct Claimant {
    quota: Quota,
    id: u64,
}

impl Claim {
    /// Takes this many units, or none.
    pub fn take(&self, units: usize) -> Option<Grant> {
        let mut grant = Grant { claim: self.clone(), units: 0 };
        grant.grow(units).then_some(grant)
    }
}

impl Drop for Claimant {
    fn drop(&mut self) {
        self.quota.lock().remove(&self.id);
    }
}

/// Units in use. Dropping it returns them.
pub struct Grant {
    claim: Claim,
    units: usize,
}

impl Grant {
    pub fn units(&self) -> usize {
        self.units
    }

    /// Adds so many units, or none.
    pub fn grow(&mut self, units: usize) -> bool {
        let Claimant { quota, id } = &*self.claim.0;
        let granted = quota.lock().take(id, units);
        if granted {
            self.units += units;
        }
        granted
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let Claimant { quota, id } = &*self.claim.0;
        quota.lock().give(id, self.units);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_returns_what_it_held_and_a_claim_is_forgotten_with_its_last_grant() {
        let quota = Quota::new(Division { total: 8, reserve: 4, lent: 1 });
        let (first, second) = (quota.claim(), quota.claim());
        let mut held = first.take(2).unwrap();
        assert!(held.grow(1), "beyond its share of two, from what can be lent");
        assert_eq!((held.units(), quota.free()), (3, 5));
        assert!(second.take(6).is_none());
        drop((first, second));
        // A single claimant has the whole reserve as its share.
        assert_eq!(quota.free(), 5);
        assert_eq!(quota.lock().share(), 4);
        drop(held);
        assert_eq!(quota.free(), 8);
        assert!(quota.claim().take(4).is_some());
    }
}
