//! Statements of this handler and what their answers mean.

use chat::membership::{self, Founding, Room, slug_taken};
use sdk::postgres::{self, Error};
use sdk::{Id, Problem, params, wake};

use crate::changes::Changes;

const EXISTING: &str = include_str!("sql/existing.sql");
const DETAIL: &str = include_str!("sql/detail.sql");
const CHANGE: &str = include_str!("sql/change.sql");

pub enum Create {
    Created(Id),
    /// Two people have one direct conversation.
    Existing(Id),
}

sdk::rows! {
    struct Existing { id: Id, hidden: bool }
}

pub fn create(plan: &Founding, owner: &str) -> Result<Create, Problem> {
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
    // Only a direct conversation can be there already.
    let Some((low, high)) = plan.pair(owner) else { return Err(Problem::internal()) };
    let existing: Option<Existing> = postgres::query(EXISTING, &params![low, high, owner])?.one()?;
    let existing = existing.ok_or_else(Problem::unavailable)?;
    if existing.hidden {
        // In sight again for who asks for it.
        let mut room = Room::lock(existing.id, owner, owner)?;
        room.show(owner, room.state.asker()?)?;
        room.commit()?;
    }
    Ok(Create::Existing(existing.id))
}

pub fn change(id: Id, changes: &Changes, by: &str) -> Result<(), Problem> {
    let mut room = Room::lock(id, by, by)?;
    changes.check(&room.state)?;
    if changes.is_empty() {
        return Ok(());
    }
    if let Some(Some(slug)) = &changes.slug {
        membership::must_be_free(&room.transaction, slug, by, Some(id))?;
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
        room.now,
    ];
    room.transaction.execute(CHANGE, &params).map_err(|error: Error| match error.constraint() {
        Some("conversations_slug_unique") => slug_taken(),
        _ => error.into(),
    })?;
    room.updated(by, None)?;
    room.commit()
}

pub fn detail(conversation: Id, user: &str) -> Result<String, Problem> {
    let found: Option<String> = postgres::query(DETAIL, &params![conversation, user])?.cell()?;
    found.ok_or_else(|| Problem::not_found("conversation"))
}
