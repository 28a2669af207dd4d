//! The participants of a conversation: how they are added and removed. One transaction writes the
//! participant, the system message and the events. Every handler that changes participants uses this module,
//! so all follow the same rules (`rules`).

mod founding;
mod locked;
mod name;
pub mod rules;

pub use founding::{Founded, Founding, slug_taken};
pub use locked::{LockedConversation, ParticipantChange};
pub use name::{ConversationName, find_all, is_slug, must_be_free};

use sdk::{Id, Problem, params, postgres};

const OUTSIDE: &str = include_str!("membership/sql/outside.sql");

/// The conversation that a path names, as this user sees it. `name` is an id or a slug.
pub fn find(name: &str, user: &str) -> Result<Id, Problem> {
    find_for("conversation", name, user)
}

/// The same for a request about a `thing` of the conversation: `not_found` then names the thing.
pub fn find_for(thing: &str, name: &str, user: &str) -> Result<Id, Problem> {
    ConversationName::parse(name).ok_or_else(|| Problem::not_found(thing))?.find_for(thing, user)
}

/// The problem for a user who found nothing in a conversation: the user is not a participant, or the `thing`
/// does not exist. It makes one query, and only this case needs it. The handler's Postgres role must be able
/// to read conversations and participants.
pub fn unseen(conversation: Id, user: &str, thing: &str) -> Problem {
    match postgres::query(OUTSIDE, &params![conversation, user]).map(|rows| rows.cell()) {
        Ok(Ok(outside)) => rules::unseen(outside.unwrap_or(false), thing),
        Ok(Err(error)) => error.into(),
        Err(error) => error.into(),
    }
}
