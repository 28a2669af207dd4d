//! Who is in a conversation, and how people come and go: one transaction for the participant, the message that says so
//! and the events. Used by every handler that moves people, so that all of them follow the same rules (`rules`).

mod founding;
mod name;
mod room;
pub mod rules;

pub use founding::{Founded, Founding, slug_taken};
pub use name::{Name, find_all, is_slug, must_be_free};
pub use room::{Move, Room};

use rules::Coming;
use sdk::{Id, Problem, params, postgres};

const OUTSIDE: &str = include_str!("membership/sql/outside.sql");

/// The conversation that a path names, as this user means it.
pub fn find(name: &str, user: &str) -> Result<Id, Problem> {
    find_for("conversation", name, user)
}

/// The same for a user who wants a `thing` of it.
pub fn find_for(thing: &str, name: &str, user: &str) -> Result<Id, Problem> {
    Name::parse(name).ok_or_else(|| Problem::not_found(thing))?.find_for(thing, user)
}

/// What a person is told who finds nothing in a conversation: neither themself nor, it may be, the `thing` they named.
/// Asked only then, so that finding something costs no more. The handler's role reads conversations and participants.
pub fn unseen(conversation: Id, user: &str, thing: &str) -> Problem {
    match postgres::query(OUTSIDE, &params![conversation, user]).map(|rows| rows.cell()) {
        Ok(Ok(outside)) => rules::unseen(outside.unwrap_or(false), thing),
        Ok(Err(error)) => error.into(),
        Err(error) => error.into(),
    }
}

/// Somebody comes into a public channel; whoever is in a conversation already just is. The conversation, as JSON.
pub fn join(conversation: Id, user: &str) -> Result<String, Problem> {
    let mut room = Room::lock(conversation, user, user)?;
    if let Coming::As(role) = room.state.join()? {
        room.admit(Move { user, role, by: user })?;
    }
    let text = room.text()?;
    room.commit()?;
    Ok(text)
}
