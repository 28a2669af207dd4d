//! Creates a conversation: one statement writes the conversation, its participants, the system message and
//! the events.

use crate::conversation::Kind;
use sdk::postgres::{Error, Rows, Value};
use sdk::{Id, Problem, clock, params};

const FOUND: &str = include_str!("sql/found.sql");

/// A conversation that is to be created. The caller has checked the rules of its kind.
#[derive(Debug, PartialEq)]
pub struct Founding {
    pub kind: Kind,
    pub name: Option<String>,
    pub slug: Option<String>,
    pub description: Option<String>,
    /// JSON text of an object.
    pub settings: String,
    pub public: bool,
    pub capacity: Option<u64>,
    /// The other participants: sorted, without duplicates and without the creator.
    pub members: Vec<String>,
}

sdk::rows! {
    /// The new conversation, and the outbox shard to wake.
    pub struct Founded { id: Id, shard: u32 }
}

impl Founding {
    /// The two participants of a direct conversation, sorted; `None` for other kinds.
    pub fn pair<'a>(&'a self, owner: &'a str) -> Option<(&'a str, &'a str)> {
        let other = self.members.first().filter(|_| self.kind == Kind::Direct)?.as_str();
        Some(if owner < other { (owner, other) } else { (other, owner) })
    }

    /// The content of the system message.
    fn announcement(&self) -> &'static str {
        match self.kind {
            Kind::Direct => "Conversation started",
            Kind::Group => "Group created",
            Kind::Channel => "Channel created",
            Kind::Class => "Class created",
        }
    }

    /// Creates the conversation. `query` runs the statement, inside a transaction or not. Returns `None` if
    /// the two users have a direct conversation already.
    pub fn found(
        &self,
        owner: &str,
        query: impl FnOnce(&str, &[Value]) -> Result<Rows, Error>,
    ) -> Result<Option<Founded>, Problem> {
        let pair = self.pair(owner);
        let params = params![
            Id::make(),
            self.kind.as_str(),
            self.name.as_ref(),
            self.slug.as_ref(),
            self.description.as_ref(),
            &self.settings,
            if self.public { "public" } else { "private" },
            self.capacity,
            pair.map(|(low, _)| low),
            pair.map(|(_, high)| high),
            owner,
            self.members.as_slice(),
            Id::make(),
            self.announcement(),
            Id::make(),
            clock::now_ms(),
        ];
        let rows = query(FOUND, &params).map_err(|error| match error.constraint() {
            Some("conversations_slug_unique") => slug_taken(),
            _ => error.into(),
        })?;
        Ok(rows.one()?)
    }
}

/// The problem for a slug that another conversation has.
pub fn slug_taken() -> Problem {
    Problem::conflict("this slug is taken").with_field("slug")
}
