//! The two decisions on which the promise of a room rests. They are apart so that the simulation can replace
//! each with a wrong one, which it must notice.

/// The decisions of a room. [`Sound`] makes the right ones.
pub(crate) trait Rules {
    /// True when the push `number` is the next one of a track whose last delivered push is `head`.
    fn follows(head: Option<u64>, number: u64) -> bool {
        head.is_none_or(|head| head.checked_add(1) == Some(number))
    }

    /// True when a member stays live after a push. `accepted`: its outlet had space for the push.
    fn stays_live(accepted: bool) -> bool {
        accepted
    }
}

pub(crate) enum Sound {}

impl Rules for Sound {}
