//! Statements of this handler and what their answers mean.

use sdk::conversation::Kind;
use sdk::postgres;
use sdk::{Id, Problem, clock, params, wake};

use crate::rules::Plan;

const CREATE: &str = include_str!("sql/create.sql");
const EXISTING: &str = include_str!("sql/existing.sql");
const DETAIL: &str = include_str!("sql/detail.sql");
const LIST: &str = include_str!("sql/list.sql");
const PEOPLE: &str = include_str!("sql/people.sql");

pub enum Create {
    Created(Id),
    /// Two people have one direct conversation.
    Existing(Id),
}

sdk::rows! {
    struct Created { id: Id, shard: u32 }
    pub struct Listed { activity: Id, conversation: String }
    struct Person { user_id: Option<String>, participant: Option<String> }
}

pub fn create(plan: &Plan, owner: &str) -> Result<Create, Problem> {
    let pair = plan.pair(owner);
    let now = clock::now_ms();
    let rows = postgres::query(
        CREATE,
        &params![
            Id::make(),
            plan.kind.as_str(),
            plan.name.as_ref(),
            plan.slug.as_ref(),
            plan.description.as_ref(),
            &plan.settings,
            if plan.public { "public" } else { "private" },
            plan.capacity,
            pair.map(|(low, _)| low),
            pair.map(|(_, high)| high),
            owner,
            plan.members.as_slice(),
            Id::make(),
            plan.announcement(),
            Id::make(),
            now,
        ],
    );
    let rows = rows.map_err(|error| match error.constraint() {
        Some("conversations_slug_unique") => Problem::conflict("this slug is taken").with_field("slug"),
        _ => error.into(),
    })?;
    if let Some(created) = rows.one::<Created>()? {
        wake::outbox(&[created.shard]);
        return Ok(Create::Created(created.id));
    }
    debug_assert_eq!(plan.kind, Kind::Direct);
    let Some((low, high)) = pair else { return Err(Problem::internal()) };
    let existing: Option<Id> = postgres::query(EXISTING, &params![low, high, owner])?.cell()?;
    existing.map(Create::Existing).ok_or_else(Problem::unavailable)
}

pub fn detail(conversation: Id, user: &str) -> Result<String, Problem> {
    let found: Option<String> = postgres::query(DETAIL, &params![conversation, user])?.cell()?;
    found.ok_or_else(|| Problem::not_found("conversation"))
}

/// One more than `limit` when there is a next page.
pub fn list(user: &str, after: Option<Id>, limit: u64) -> Result<Vec<Listed>, Problem> {
    Ok(postgres::query(LIST, &params![user, after, limit + 1])?.all()?)
}

/// Likewise.
pub fn people(
    conversation: Id,
    user: &str,
    after: &str,
    limit: u64,
) -> Result<Vec<(String, String)>, Problem> {
    let rows: Vec<Person> = postgres::query(PEOPLE, &params![conversation, user, after, limit + 1])?.all()?;
    if rows.is_empty() {
        return Err(Problem::not_found("conversation"));
    }
    Ok(rows.into_iter().filter_map(|row| row.user_id.zip(row.participant)).collect())
}
