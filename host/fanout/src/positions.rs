//! How far a stream of pushes has come: the last number of each track. A room has such positions, its heads.
//! So has each subscriber behind a gate: the pushes that it has. The application decides about the tracks,
//! for instance one for new items (0) and one for changes of items (1). Each track counts by itself, so
//! numbers of different tracks are never compared.

use switchboard_contract::types::Position;

/// The last number of each track, at most one for each. A track is unknown until a push, or a position of a
/// subscriber, sets its number. An address seldom has more than two tracks, so this is a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Positions(Vec<Position>);

impl Positions {
    /// Takes positions in any order. If a track occurs twice, the higher number counts.
    pub(crate) fn new(positions: &[Position]) -> Self {
        let mut known = Self::default();
        for position in positions {
            known.raise(position);
        }
        known
    }

    /// The last number of a track. `None` if the track is unknown.
    pub(crate) fn number_of(&self, track: u8) -> Option<u64> {
        self.0.iter().find(|known| known.track == track).map(|known| known.number)
    }

    /// Returns true when the push at this position is not new: the last number of its track is not lower.
    pub(crate) fn includes(&self, position: &Position) -> bool {
        self.number_of(position.track).is_some_and(|number| position.number <= number)
    }

    /// Raises the last number of the track to this one, and never lowers it. Returns true when it changed.
    pub(crate) fn raise(&mut self, position: &Position) -> bool {
        match self.0.iter_mut().find(|known| known.track == position.track) {
            Some(known) if known.number >= position.number => false,
            Some(known) => {
                known.number = position.number;
                true
            }
            None => {
                // There is a list for every address in use, and most have one track, so none reserves more.
                self.0.reserve_exact(1);
                self.0.push(*position);
                true
            }
        }
    }

    /// Raises each track to the position in `others`. Returns true when at least one changed, which for the
    /// answer to a request for missed pushes means progress.
    pub(crate) fn raise_all(&mut self, others: &[Position]) -> bool {
        let mut changed = false;
        for other in others {
            changed |= self.raise(other);
        }
        changed
    }

    pub(crate) fn as_slice(&self) -> &[Position] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(track: u8, number: u64) -> Position {
        Position { track, number }
    }

    #[test]
    fn tracks_rise_separately_and_never_fall() {
        let mut positions = Positions::new(&[at(0, 5), at(1, 2), at(0, 4)]);
        assert_eq!(
            (positions.number_of(0), positions.number_of(1), positions.number_of(2)),
            (Some(5), Some(2), None)
        );
        assert!(
            positions.includes(&at(0, 5)) && !positions.includes(&at(0, 6)) && !positions.includes(&at(2, 0))
        );
        assert!(!positions.raise(&at(0, 3)));
        assert!(positions.raise_all(&[at(0, 3), at(2, 1)]));
        assert_eq!(positions, Positions::new(&[at(0, 5), at(1, 2), at(2, 1)]));
    }
}
