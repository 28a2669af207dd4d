//! Deliberate mistakes in the rooms' own code, which the simulation must notice. Only the library's tests can
//! enable one; in any other build the compiler removes them.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// The room treats a jump like the next position.
    JumpOverlooked,
    /// The room treats a refused push as delivered.
    RefusalForgotten,
}

#[cfg(not(test))]
pub(super) const fn made(_: Mistake) -> bool {
    false
}

#[cfg(test)]
pub(super) use switch::{made, make};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Mistake;

    thread_local!(static MADE: Cell<Option<Mistake>> = const { Cell::new(None) });

    impl Mistake {
        pub(crate) const ALL: [Self; 2] = [Self::JumpOverlooked, Self::RefusalForgotten];
    }

    pub(crate) fn made(mistake: Mistake) -> bool {
        MADE.get() == Some(mistake)
    }

    /// Enables a mistake on this thread, or none.
    pub(crate) fn make(mistake: Option<Mistake>) {
        MADE.set(mistake);
    }
}
