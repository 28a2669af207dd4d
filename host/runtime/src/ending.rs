//! The outcome of a call, as the statistics, the log of calls and the observer count it.

use super::failure::Kind;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Answered,
    /// The answer is an error: a problem with a status from 500 on, a rejected event, or a failed run of a
    /// schedule.
    Error,
    Failed(Kind),
}

impl Ending {
    /// Returns true when the caller got no answer, or an error.
    pub fn is_bad(self) -> bool {
        self != Self::Answered
    }
}
