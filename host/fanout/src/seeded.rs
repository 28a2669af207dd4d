//! Mistakes inside the rooms' own code, for the simulation to notice. Only the library's tests can make one; elsewhere the
//! answer is known when it is compiled, and nothing of it is left.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// A jump is taken for what follows.
    JumpOverlooked,
    /// A reader that had no room is taken to have what it was refused.
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

    /// On this thread, until told otherwise.
    pub(crate) fn make(mistake: Option<Mistake>) {
        MADE.set(mistake);
    }
}
