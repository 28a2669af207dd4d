//! The name by which a client addresses a conversation: its id or its slug. Every handler reads names in
//! paths, frames and bodies through this module.
//!
//! A slug is unique among the conversations that one user can see, not among all conversations. Otherwise
//! "this slug is taken" would tell strangers that a private conversation exists. A slug is therefore always
//! resolved for a user.

use std::collections::BTreeMap;

use super::slug_taken;
use sdk::json::{self, Object};
use sdk::postgres::{self, Transaction};
use sdk::{Id, Problem, params};

const FIND: &str = include_str!("sql/find.sql");
const FIND_ANY: &str = include_str!("sql/find_any.sql");
const TAKEN: &str = include_str!("sql/taken.sql");
const LOCK: &str = "select switchboard.lock($1::text[])";

pub(super) const SLUG_BYTES_MAX: usize = 100;

sdk::rows! {
    struct Found { slug: String, id: Id }
}

/// A valid name. The conversation may not exist.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConversationName {
    Id(Id),
    Slug(String),
}

impl ConversationName {
    /// Reads a name; `None` if the text is neither an id nor a slug.
    pub fn parse(raw: &str) -> Option<Self> {
        match Id::parse(raw) {
            Some(id) => Some(Self::Id(id)),
            None => is_slug(raw).then(|| Self::Slug(raw.to_owned())),
        }
    }

    /// The required field `conversation_id` of a frame or a body.
    pub fn of_field(body: &mut Object) -> Result<Self, Problem> {
        json::required("conversation_id", Self::of_optional(body)?)
    }

    /// The optional field `conversation_id` of a frame or a body.
    pub fn of_optional(body: &mut Object) -> Result<Option<Self>, Problem> {
        const FIELD: &str = "conversation_id";
        let Some(raw) = body.text(FIELD)? else { return Ok(None) };
        let rule = || Problem::invalid(body.name(FIELD), "is neither a UUID nor a slug");
        Self::parse(&raw).map(Some).ok_or_else(rule)
    }

    /// The conversation, as this user sees it.
    pub fn find(&self, user: &str) -> Result<Id, Problem> {
        self.find_for("conversation", user)
    }

    /// The same for a request about a `thing` of the conversation: `not_found` names the thing. An unknown
    /// slug then has the same answer as a conversation that the user cannot see.
    pub fn find_for(&self, thing: &str, user: &str) -> Result<Id, Problem> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::Slug(slug) => {
                slugs(vec![slug.clone()], user)?.remove(slug).ok_or_else(|| Problem::not_found(thing))
            }
        }
    }

    /// The conversation for a caller who is no participant, such as an auditor or an internal system. Returns
    /// `conflict` if several conversations have the slug. The handler's Postgres role must be able to read
    /// conversations.
    pub fn find_any(&self) -> Result<Id, Problem> {
        let slug = match self {
            Self::Id(id) => return Ok(*id),
            Self::Slug(slug) => slug,
        };
        let rows = postgres::query(FIND_ANY, &params![slug])?;
        let found: Vec<Id> = rows.iter().map(|row| row.get("id")).collect::<Result<_, _>>()?;
        match found[..] {
            [] => Err(Problem::not_found("conversation")),
            [one] => Ok(one),
            _ => Err(Problem::conflict(
                "several conversations have this slug; name the one you mean by its id",
            )),
        }
    }
}

/// Whether a text is a slug: lower-case letters, digits and dashes, and not an id.
pub fn is_slug(name: &str) -> bool {
    (1..=SLUG_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && Id::parse(name).is_none()
}

/// Finds several conversations, as this user sees them, with one query. The result lacks the names that the
/// user cannot see. The handler's Postgres role must be able to read conversations and participants.
pub fn find_all<'a>(
    names: impl IntoIterator<Item = &'a ConversationName>,
    user: &str,
) -> Result<BTreeMap<ConversationName, Id>, Problem> {
    let (mut known, mut unknown) = (BTreeMap::new(), Vec::new());
    for name in names {
        match name {
            ConversationName::Id(id) => drop(known.insert(name.clone(), *id)),
            ConversationName::Slug(slug) => unknown.push(slug.clone()),
        }
    }
    known.extend(slugs(unknown, user)?.into_iter().map(|(slug, id)| (ConversationName::Slug(slug), id)));
    Ok(known)
}

fn slugs(slugs: Vec<String>, user: &str) -> Result<BTreeMap<String, Id>, Problem> {
    if slugs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found: Vec<Found> = postgres::query(FIND, &params![slugs, user])?.all()?;
    Ok(found.into_iter().map(|found| (found.slug, found.id)).collect())
}

/// Refuses a slug that another conversation has which this user can see. It locks the slug until COMMIT, so
/// that two conversations cannot take the same slug at once. `conversation` is the existing conversation that
/// is to get the slug.
pub fn must_be_free(
    transaction: &Transaction,
    slug: &str,
    user: &str,
    conversation: Option<Id>,
) -> Result<(), Problem> {
    transaction.query(LOCK, &params![vec![format!("slug:{slug}")]])?;
    match transaction.query(TAKEN, &params![slug, user, conversation])?.cell()? {
        Some(false) => Ok(()),
        _ => Err(slug_taken()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &str = "019a9fd9-277b-7fff-bfff-ffffffffffff";

    #[test]
    fn a_slug_has_plain_characters_and_is_no_id() {
        assert!(is_slug("cs-101") && is_slug("a"));
        for bad in ["", "CS", "a b", "ü", CONVERSATION, &"x".repeat(101)] {
            assert!(!is_slug(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_field_names_a_conversation_by_id_or_slug() {
        let of = |json: &str| ConversationName::of_field(&mut Object::parse(json.as_bytes()).unwrap());
        let id = format!(r#"{{"conversation_id":"{}"}}"#, CONVERSATION.to_uppercase());
        assert_eq!(of(&id), Ok(ConversationName::Id(Id::parse(CONVERSATION).unwrap())));
        assert_eq!(of(r#"{"conversation_id":"lobby-2"}"#), Ok(ConversationName::Slug("lobby-2".to_owned())));
        for bad in [
            "{}",
            r#"{"conversation_id":"No Slug"}"#,
            r#"{"conversation_id":7}"#,
            r#"{"conversation_id":""}"#,
        ] {
            assert_eq!(of(bad).unwrap_err().field.as_deref(), Some("conversation_id"), "{bad}");
        }
    }
}
