//! How a conversation begins: itself, its people, the system message that says so and the events, in one statement.

use crate::conversation::Kind;
use sdk::postgres::{Error, Rows, Value};
use sdk::{Id, Problem, clock, params};

const FOUND: &str = include_str!("sql/found.sql");

/// A conversation that keeps the rules of its kind.
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
    /// The others: sorted, each once, without who asks.
    pub members: Vec<String>,
}

sdk::rows! {
    /// The conversation that was made, and the shard to be woken.
    pub struct Founded { id: Id, shard: u32 }
}

impl Founding {
    /// The two people of a direct conversation, in order.
    pub fn pair<'a>(&'a self, owner: &'a str) -> Option<(&'a str, &'a str)> {
        let other = self.members.first().filter(|_| self.kind == Kind::Direct)?.as_str();
        Some(if owner < other { (owner, other) } else { (other, owner) })
    }

    /// What the first message says.
    fn announcement(&self) -> &'static str {
        match self.kind {
            Kind::Direct => "Conversation started",
            Kind::Group => "Group created",
            Kind::Channel => "Channel created",
            Kind::Class => "Class created",
        }
    }

    /// `query` runs it: inside a transaction or not. Nothing comes back when this pair has its direct conversation.
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

/// Another conversation has it.
pub fn slug_taken() -> Problem {
    Problem::conflict("this slug is taken").with_field("slug")
}
