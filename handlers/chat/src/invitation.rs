//! Rate limits of invitations. They protect people from invitations by strangers.

use sdk::{Problem, rate};

/// Counts one invitation of `invited` into a conversation or class. Two limits per minute apply: one on all
/// invitations of `user`, and one on the invitations of `user` to the same person. Returns `rate_limited`
/// when either is reached.
pub fn count(user: &str, invited: &str) -> Result<(), Problem> {
    rate::per_minute("invite", user, "invitations_per_minute", 300)?;
    rate::per_minute("invite-again", &format!("{user}:{invited}"), "invitations_per_person_per_minute", 20)
}
