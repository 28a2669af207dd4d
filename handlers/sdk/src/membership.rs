//! Who is in a conversation, and how people come and go: one transaction for the participant, the message that says so
//! and the events. Used by every handler that moves people, so that all of them follow the same rules (`rules`).

mod founding;
mod room;
pub mod rules;

pub use founding::{Founded, Founding, slug_taken};
pub use room::{Move, Room};

use crate::{Id, Problem, params, postgres};
use rules::Coming;

const FIND: &str = "select id from app.conversations where slug = $1 and deleted_at is null";
const OUTSIDE: &str = include_str!("membership/sql/outside.sql");

/// A conversation by its id or its slug.
pub fn find(name: &str) -> Result<Id, Problem> {
    find_for("conversation", name)
}

/// The same for who wants a `thing` of it: a slug that nobody has is answered like a conversation of others, where it is the
/// thing that is not found. So who is not in it learns nothing of its name.
pub fn find_for(thing: &str, name: &str) -> Result<Id, Problem> {
    if let Some(id) = Id::parse(name) {
        return Ok(id);
    }
    if !is_slug(name) {
        return Err(Problem::not_found(thing));
    }
    let found: Option<Id> = postgres::query(FIND, &params![name])?.cell()?;
    found.ok_or_else(|| Problem::not_found(thing))
}

/// Lower-case letters, digits and dashes; never the writing of an id.
pub fn is_slug(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && Id::parse(name).is_none()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_plain_and_never_look_like_ids() {
        assert!(is_slug("cs-101") && is_slug("a"));
        for bad in ["", "CS", "a b", "ü", "019a9fd9-277b-7fff-bfff-ffffffffffff", &"x".repeat(101)] {
            assert!(!is_slug(bad), "{bad:?}");
        }
    }
}
