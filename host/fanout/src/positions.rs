//! Positions of a stream or of a subscriber: the last number of each track. Numbers of different tracks are
//! never compared.

use switchboard_contract::types::Position;

/// The last number of each track. An address seldom has more than two tracks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Positions(Vec<Position>);

impl Positions {
    /// Builds the set. If a track occurs twice, the higher number counts.
    pub(crate) fn new(positions: &[Position]) -> Self {
        let mut known = Self::default();
        for position in positions {
            known.raise(position);
        }
        known
    }

    pub(crate) fn of(&self, track: u8) -> Option<u64> {
        self.0.iter().find(|known| known.track == track).map(|known| known.number)
    }

    /// Returns true when this push, and every push before it on its track, is already covered.
    pub(crate) fn includes(&self, position: &Position) -> bool {
        self.of(position.track).is_some_and(|number| position.number <= number)
    }

    /// Raises the number of one track, and never lowers it. Returns true when it changed.
    pub(crate) fn raise(&mut self, position: &Position) -> bool {
        match self.0.iter_mut().find(|known| known.track == position.track) {
            Some(known) if known.number >= position.number => false,
            Some(known) => {
                known.number = position.number;
                true
            }
            None => {
                // Most streams have one track, and every busy address has such a list.
                self.0.reserve_exact(1);
                self.0.push(*position);
                true
            }
        }
    }

    pub(crate) fn raise_all(&mut self, others: &[Position]) -> bool {
        others.iter().fold(false, |changed, other| self.raise(other) | changed)
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
        assert_eq!((positions.of(0), positions.of(1), positions.of(2)), (Some(5), Some(2), None));
        assert!(
            positions.includes(&at(0, 5)) && !positions.includes(&at(0, 6)) && !positions.includes(&at(2, 0))
        );
        assert!(!positions.raise(&at(0, 3)));
        assert!(positions.raise_all(&[at(0, 3), at(2, 1)]));
        assert_eq!(positions, Positions::new(&[at(0, 5), at(1, 2), at(2, 1)]));
    }
}
