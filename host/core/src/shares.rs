//! Fair shares of a scarce resource among claimants: call slots and memory among releases, Postgres
//! connections among roles, runs among schedules. Each claimant has a share that it always gets. It gets more
//! only while the rest is free. This module is pure: it counts and decides, and neither waits nor locks.

use std::collections::HashMap;
use std::hash::Hash;

/// The division of the units of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    pub total: usize,
    /// The part of the total that is never lent: it is for claimants below their share. A quarter is `total /
    /// 4`.
    pub reserve: usize,
    /// A claimant may borrow as long as what is left to lend, times this, is more than what it has borrowed.
    /// A single claimant thus ends at `lent / (lent + 1)` of what can be lent, and always leaves the rest to
    /// others.
    pub lent: usize,
}

/// The units of each claimant. At every moment:
///
/// * the units held are at most the total;
/// * as long as the shares of all claimants fit into the reserve, a claimant below its share gets a unit,
///   whatever the others hold.
#[derive(Debug)]
pub struct Shares<K> {
    division: Division,
    free: usize,
    /// The units of every known claimant, also of those with none.
    held: HashMap<K, usize>,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    pub fn new(division: Division) -> Self {
        Self { division, free: division.total, held: HashMap::new() }
    }

    /// Adds a claimant, which then counts for the shares. Taking a unit also adds the claimant.
    pub fn add(&mut self, claimant: &K) {
        if !self.held.contains_key(claimant) {
            self.held.insert(claimant.clone(), 0);
        }
    }

    /// Forgets a claimant, so that the shares of the others grow. One that still holds units stays until
    /// [`Self::give`] has returned the last.
    pub fn remove(&mut self, claimant: &K) {
        if self.held(claimant) == 0 {
            self.held.remove(claimant);
        }
    }

    pub fn free(&self) -> usize {
        self.free
    }

    pub fn taken(&self) -> usize {
        self.division.total - self.free
    }

    pub fn held(&self, claimant: &K) -> usize {
        self.held.get(claimant).copied().unwrap_or(0)
    }

    /// The share that each claimant always gets: at least one unit.
    pub fn share(&self) -> usize {
        (self.division.reserve / self.held.len().max(1)).max(1)
    }

    pub fn is_below_share(&self, claimant: &K) -> bool {
        self.held(claimant) < self.share()
    }

    /// Whether the claimant would get this many more units now, all or none. A claimant below its share may
    /// go beyond it only with units that can be lent.
    pub fn may_take(&self, claimant: &K, units: usize) -> bool {
        let holds = self.held(claimant);
        let (after, share) = (holds.saturating_add(units), self.share());
        if units > self.free {
            return false;
        }
        if after <= share || units == 0 {
            return true;
        }
        // Units of its own share do not count against the units that can be lent.
        let borrows = after - share.max(holds);
        let lendable = self.free.saturating_sub(self.division.reserve);
        borrows <= lendable && (lendable + 1 - borrows).saturating_mul(self.division.lent) > after - share - 1
    }

    pub fn take(&mut self, claimant: &K, units: usize) -> bool {
        let granted = self.may_take(claimant, units);
        if granted {
            self.free -= units;
            *self.held.entry(claimant.clone()).or_insert(0) += units;
        }
        granted
    }

    /// Returns units of the claimant.
    pub fn give(&mut self, claimant: &K, units: usize) {
        let Some(held) = self.held.get_mut(claimant) else { return };
        let given = units.min(*held);
        *held -= given;
        self.free += given;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quarters(total: usize, lent: usize) -> Division {
        Division { total, reserve: total.div_ceil(4), lent }
    }

    /// Takes one after the other until it is refused.
    fn take_all(shares: &mut Shares<u8>, claimant: u8) -> usize {
        (0..).take_while(|_| shares.take(&claimant, 1)).count()
    }

    #[test]
    fn one_claimant_leaves_the_reserve_and_a_part_of_the_rest() {
        let mut shares = Shares::new(quarters(32, 2));
        assert_eq!(take_all(&mut shares, 1), 19);
        // The second one gets its share and its part of the units left to lend, and so on.
        assert_eq!(take_all(&mut shares, 2), 5);
        assert!((3..=10).all(|claimant| shares.take(&claimant, 1)));
        assert_eq!(shares.free(), 0);
    }

    #[test]
    fn the_smallest_totals_serve_somebody() {
        let mut one = Shares::new(quarters(1, 2));
        assert_eq!((take_all(&mut one, 1), take_all(&mut one, 2)), (1, 0));
        one.give(&1, 1);
        assert_eq!(take_all(&mut one, 2), 1);
        // Of two units, one stays for another claimant.
        let mut two = Shares::new(quarters(2, 2));
        assert_eq!((take_all(&mut two, 1), take_all(&mut two, 2), take_all(&mut two, 3)), (1, 1, 0));
    }

    #[test]
    fn a_claimant_that_is_gone_no_longer_makes_shares_small() {
        let mut shares = Shares::new(quarters(64, 1));
        for claimant in 0..4 {
            shares.add(&claimant);
        }
        assert_eq!(shares.share(), 4);
        assert!(shares.take(&0, 1));
        for claimant in 0..4 {
            shares.remove(&claimant);
        }
        assert_eq!((shares.share(), shares.held(&0)), (16, 1));
        shares.give(&0, 1);
        shares.remove(&0);
        assert_eq!(shares.free(), 64);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take(u8, usize),
        Give(u8, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let one = (0..8_u8, 1..6_usize);
        prop_oneof![
            3 => one.clone().prop_map(|(claimant, units)| Step::Take(claimant, units)),
            2 => one.prop_map(|(claimant, units)| Step::Give(claimant, units)),
        ]
    }

    proptest! {
        #[test]
        fn never_over_the_total_and_nobody_is_kept_from_its_share(
            total in 8..200_usize,
            lent in 1..5_usize,
            steps in proptest::collection::vec(step(), 1..400),
        ) {
            let division = quarters(total, lent);
            let mut shares = Shares::new(division);
            let claimants: Vec<u8> = (0..8).collect();
            claimants.iter().for_each(|claimant| shares.add(claimant));
            let fit = shares.share() * claimants.len() <= division.reserve;
            for step in steps {
                match step {
                    Step::Take(claimant, units) => {
                        let could = shares.may_take(&claimant, units);
                        prop_assert_eq!(shares.take(&claimant, units), could);
                    }
                    Step::Give(claimant, units) => shares.give(&claimant, units),
                }
                let held: usize = claimants.iter().map(|claimant| shares.held(claimant)).sum();
                prop_assert_eq!(held + shares.free(), total);
                if fit {
                    let share = shares.share();
                    for claimant in &claimants {
                        let below = share.saturating_sub(shares.held(claimant));
                        prop_assert!(shares.may_take(claimant, below), "{claimant} lacks {below}: {shares:?}");
                    }
                    // All claimants together also get their shares.
                    let promised: usize = claimants
                        .iter()
                        .map(|claimant| share.saturating_sub(shares.held(claimant)))
                        .sum();
                    prop_assert!(promised <= shares.free(), "{shares:?}");
                }
            }
        }
    }
}
