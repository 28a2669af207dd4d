//! The SQL statements of this handler.

use chat::membership::{self, Founding, LockedConversation, slug_taken};
use sdk::postgres::{self, Error};
use sdk::{Id, Problem, params, wake};

use crate::changes::Changes;

const EXISTING: &str = include_str!("sql/existing.sql");
const DETAIL: &str = include_str!("sql/detail.sql");
const CHANGE: &str = include_str!("sql/change.sql");

pub(crate) enum Create {
    Created(Id),
    /// Two users have at most one direct conversation, and these two have one already.
    Existing(Id),
}

sdk::rows! {
    struct Existing { id: Id, hidden: bool }
}

pub(crate) fn create(plan: &Founding, owner: &str) -> Result<Create, Problem> {
    let founded = match &plan.slug {
        None => plan.found(owner, postgres::query)?,
        Some(slug) => {
            let transaction = postgres::begin()?;
            membership::must_be_free(&transaction, slug, owner, None)?;
            let founded = plan.found(owner, |statement, params| transaction.query(statement, params))?;
            transaction.commit()?;
            founded
        }
    };
    if let Some(founded) = founded {
        wake::outbox(&[founded.shard]);
        return Ok(Create::Created(founded.id));
    }
    // Only a direct conversation can exist already.
    let Some((low, high)) = plan.pair(owner) else { return Err(Problem::internal()) };
    let existing: Option<Existing> = postgres::query(EXISTING, &params![low, high, owner])?.one()?;
    let existing = existing.ok_or_else(Problem::unavailable)?;
    if existing.hidden {
        // The caller sees it again.
        let mut locked = LockedConversation::lock(existing.id, owner, owner)?;
        locked.show(owner, locked.state.caller_role()?)?;
        locked.commit()?;
    }
    Ok(Create::Existing(existing.id))
}

pub(crate) fn change(id: Id, changes: &Changes, by: &str) -> Result<(), Problem> {
    let mut locked = LockedConversation::lock(id, by, by)?;
    changes.check(&locked.state)?;
    if changes.is_empty() {
        return Ok(());
    }
    if let Some(Some(slug)) = &changes.slug {
        membership::must_be_free(&locked.transaction, slug, by, Some(id))?;
    }
    let visibility = changes.public.map(|public| if public { "public" } else { "private" });
    let params = params![
        id,
        changes.name.as_ref(),
        changes.slug.is_some(),
        changes.slug.as_ref().and_then(Option::as_ref),
        changes.description.is_some(),
        changes.description.as_ref().and_then(Option::as_ref),
        changes.settings.as_ref(),
        changes.capacity.is_some(),
        changes.capacity.flatten(),
        visibility,
        locked.now,
    ];
    locked.transaction.execute(CHANGE, &params).map_err(|error: Error| match error.constraint() {
        Some("conversations_slug_unique") => slug_taken(),
        _ => error.into(),
    })?;
    locked.announce_update(by, None)?;
    locked.commit()
}

pub(crate) fn detail(conversation: Id, user: &str) -> Result<String, Problem> {
    let found: Option<String> = postgres::query(DETAIL, &params![conversation, user])?.cell()?;
    found.ok_or_else(|| Problem::not_found("conversation"))
}
