//! Positions at or below a cursor's `high` that were not visible when they were passed. Pure.
//!
//! A position that is missing was given to a transaction that still runs or was rolled back. Its writer had
//! its transaction id before it had the position. A *horizon* is an id that was given out later. Once all
//! transactions with lower ids have ended, the missing positions will never come. A snapshot's own `xmax` is
//! no horizon: it is one past the last transaction that *ended*, and a running one may have a higher id.

use serde::{Deserialize, Serialize};

/// `from..=to`. Stored as `[from, to, horizon]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(i64, i64, Option<i64>)", from = "(i64, i64, Option<i64>)")]
struct Hole {
    from: i64,
    to: i64,
    /// `None` until the next read shows that the hole is still there. Most holes are filled before it.
    horizon: Option<i64>,
}

impl From<Hole> for (i64, i64, Option<i64>) {
    fn from(hole: Hole) -> Self {
        (hole.from, hole.to, hole.horizon)
    }
}

impl From<(i64, i64, Option<i64>)> for Hole {
    fn from((from, to, horizon): (i64, i64, Option<i64>)) -> Self {
        Self { from, to, horizon }
    }
}

/// Ascending, not overlapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Holes(Vec<Hole>);

impl Holes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bounds(&self) -> impl Iterator<Item = (i64, i64)> {
        self.0.iter().map(|hole| (hole.from, hole.to))
    }

    /// The first position that is missing, if there are holes.
    pub(super) fn first(&self) -> Option<i64> {
        self.0.first().map(|hole| hole.from)
    }

    pub(super) fn contain(&self, position: i64) -> bool {
        self.bounds().any(|(from, to)| (from..=to).contains(&position))
    }

    /// The number of positions that are missing.
    pub(super) fn missing(&self) -> i64 {
        self.bounds().map(|(from, to)| to - from + 1).sum()
    }

    /// True when the same positions are missing. The horizons may differ: each of them is valid for both.
    pub(super) fn are_those_of(&self, other: &Self) -> bool {
        self.ranges().eq(other.ranges())
    }

    /// Like `bounds`, with holes that touch each other as one.
    fn ranges(&self) -> impl Iterator<Item = (i64, i64)> {
        let mut bounds = self.bounds().peekable();
        std::iter::from_fn(move || {
            let (from, mut to) = bounds.next()?;
            while let Some((_, end)) = bounds.next_if(|(from, _)| *from == to + 1) {
                to = end;
            }
            Some((from, to))
        })
    }

    /// Moves `high` over the positions that a snapshot showed, ascending, with those in holes. If the
    /// snapshot showed no further ones, `head` is the last position that the sequence had given out before
    /// it. All transactions below `xmin` had ended. Returns how many of the positions may be handled, which
    /// is fewer than all if there would be more than `most` holes.
    pub(super) fn advance(
        &mut self,
        high: &mut i64,
        positions: impl IntoIterator<Item = i64>,
        head: Option<i64>,
        xmin: i64,
        most: usize,
    ) -> usize {
        let mut kept = 0;
        for position in positions {
            if position <= *high {
                self.fill(position);
            } else if position > *high + 1 && self.0.len() >= most {
                return kept;
            } else {
                self.pass(high, position);
            }
            kept += 1;
        }
        if let Some(head) = head {
            self.0.retain(|hole| hole.horizon.is_none_or(|horizon| xmin < horizon));
            if head > *high && self.0.len() < most {
                self.0.push(Hole { from: *high + 1, to: head, horizon: None });
                *high = head;
            }
        }
        kept
    }

    /// True when a hole without a horizon was there before already.
    pub(super) fn want_horizon(&self, before: &Self) -> bool {
        let last_before = before.0.last().map_or(i64::MIN, |hole| hole.to);
        self.0.iter().any(|hole| hole.horizon.is_none() && hole.from <= last_before)
    }

    pub(super) fn set_horizon(&mut self, horizon: i64) {
        for hole in self.0.iter_mut().filter(|hole| hole.horizon.is_none()) {
            hole.horizon = Some(horizon);
        }
    }

    /// Moves `high` to `position`. The positions between them were not visible, so they become a hole.
    fn pass(&mut self, high: &mut i64, position: i64) {
        if position > *high + 1 {
            self.0.push(Hole { from: *high + 1, to: position - 1, horizon: None });
        }
        *high = position;
    }

    fn fill(&mut self, position: i64) {
        let Some(at) = self.0.iter().position(|hole| (hole.from..=hole.to).contains(&position)) else {
            return;
        };
        let hole = self.0.remove(at);
        let rest = [Hole { to: position - 1, ..hole }, Hole { from: position + 1, ..hole }];
        self.0.splice(at..at, rest.into_iter().filter(|part| part.from <= part.to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(holes: &[(i64, i64, Option<i64>)]) -> Holes {
        Holes(holes.iter().copied().map(Hole::from).collect())
    }

    #[test]
    fn what_was_not_visible_is_a_hole_until_it_comes() {
        let (mut holes, mut high) = (Holes::default(), 0);
        assert_eq!(holes.advance(&mut high, [1, 2, 5, 9], None, 0, 10), 4);
        assert_eq!((high, &holes), (9, &of(&[(3, 4, None), (6, 8, None)])));
        assert_eq!(holes.advance(&mut high, [3, 7, 10], None, 0, 10), 3);
        assert_eq!((high, &holes), (10, &of(&[(4, 4, None), (6, 6, None), (8, 8, None)])));
    }

    #[test]
    fn a_hole_is_forgotten_when_every_writer_of_its_time_has_ended() {
        let (mut holes, mut high) = (of(&[(3, 4, Some(100)), (6, 6, None)]), 9);
        holes.advance(&mut high, [], None, 500, 10);
        assert_eq!(holes.0.len(), 2, "a page that was full says nothing about what is missing");
        holes.advance(&mut high, [], Some(9), 99, 10);
        assert_eq!(holes.0.len(), 2, "transaction 99 may still fill it");
        holes.advance(&mut high, [], Some(9), 100, 10);
        assert_eq!(holes, of(&[(6, 6, None)]), "without a horizon nothing is known");
    }

    #[test]
    fn what_the_sequence_gave_out_is_waited_for() {
        let (mut holes, mut high) = (Holes::default(), 4);
        holes.advance(&mut high, [5], Some(7), 0, 10);
        assert_eq!((high, &holes), (7, &of(&[(6, 7, None)])));
        let before = holes.clone();
        holes.advance(&mut high, [6, 9], None, 0, 10);
        assert!(holes.want_horizon(&before), "7 was missed twice");
        holes.set_horizon(50);
        assert_eq!(holes, of(&[(7, 7, Some(50)), (8, 8, Some(50))]));
    }

    #[test]
    fn holes_are_those_of_others_if_the_same_positions_are_missing() {
        let apart = of(&[(3, 3, None), (5, 5, Some(9)), (6, 7, None)]);
        assert!(apart.are_those_of(&of(&[(3, 3, None), (5, 7, None)])));
        for others in [vec![(3, 3, None), (5, 6, None)], vec![(3, 7, None)], vec![(5, 7, None)]] {
            assert!(!apart.are_those_of(&of(&others)) && !of(&others).are_those_of(&apart), "{others:?}");
        }
    }

    #[test]
    fn too_many_holes_stop_the_cursor() {
        let (mut holes, mut high) = (of(&[(1, 1, None), (3, 3, None)]), 4);
        assert_eq!(holes.advance(&mut high, [3, 5, 7, 9], None, 0, 2), 3, "filling makes room for one");
        assert_eq!((high, &holes), (7, &of(&[(1, 1, None), (6, 6, None)])));
    }
}
