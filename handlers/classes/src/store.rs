//! The statements that read classes without a lock, and the one that creates a class.

use chat::conversation::Kind;
use chat::membership::Founding;
use sdk::postgres::{self, Error};
use sdk::{Id, Problem, clock, cursor, params, wake};

use crate::rules::{Code, Plan};

const FIND: &str = "select id from app.classes where code = $1 and deleted_at is null";
const CONVERSATION: &str =
    "select conversation_id from app.classes where id = $1::uuid and deleted_at is null";
const CREATE: &str = include_str!("sql/create.sql");
const CLASS: &str = include_str!("sql/class.sql");
const LIST: &str = include_str!("sql/list.sql");
const MEMBERS: &str = include_str!("sql/members.sql");

sdk::rows! {
    struct Listed { cursor: String, text: String }
    struct Member { user_id: Option<String>, text: Option<String> }
}

/// Creates a class with its conversation and its first teacher, in one transaction.
pub(crate) fn create(plan: &Plan, teacher: &str) -> Result<Id, Problem> {
    let founding = Founding {
        kind: Kind::Class,
        name: Some(plan.name.clone()),
        slug: None,
        description: None,
        settings: "{}".to_owned(),
        public: false,
        capacity: None,
        members: Vec::new(),
    };
    let transaction = postgres::begin()?;
    let founded = founding.found(teacher, |statement, params| transaction.query(statement, params))?;
    let founded = founded.ok_or_else(Problem::internal)?;
    let id = Id::make();
    let params = params![
        id,
        founded.id,
        &plan.name,
        &plan.code.0,
        plan.description.as_ref(),
        teacher,
        clock::now_ms(),
        Id::make(),
    ];
    transaction.execute(CREATE, &params).map_err(code_taken)?;
    transaction.commit()?;
    wake::outbox(&[founded.shard]);
    Ok(id)
}

pub(crate) fn code_taken(error: Error) -> Problem {
    match error.constraint() {
        Some("classes_code_unique") => Problem::conflict("this code is taken").with_field("code"),
        _ => error.into(),
    }
}

pub(crate) fn find(code: &Code) -> Result<Id, Problem> {
    let found: Option<Id> = postgres::query(FIND, &params![&code.0])?.cell()?;
    found.ok_or_else(|| Problem::not_found("class"))
}

pub(crate) fn conversation(class: Id) -> Result<Id, Problem> {
    let found: Option<Id> = postgres::query(CONVERSATION, &params![class])?.cell()?;
    found.ok_or_else(|| Problem::not_found("class"))
}

/// A class as its member `user` sees it, as JSON.
pub(crate) fn class(id: Id, user: &str) -> Result<String, Problem> {
    let found: Option<String> = postgres::query(CLASS, &params![id, user])?.cell()?;
    found.ok_or_else(|| Problem::not_found("class"))
}

/// The user's classes, each with its cursor and JSON; one more than `limit` if there is a next page.
pub(crate) fn list(user: &str, after: Option<Id>, limit: u64) -> Result<Vec<(String, String)>, Problem> {
    let rows: Vec<Listed> = postgres::query(LIST, &params![user, after, limit + 1])?.all()?;
    Ok(rows.into_iter().map(|row| (row.cursor, row.text)).collect())
}

/// The members of a class, each with its cursor and JSON; one more than `limit` if there is a next page.
pub(crate) fn members(
    class: Id,
    user: &str,
    after: &str,
    limit: u64,
) -> Result<Vec<(String, String)>, Problem> {
    let rows: Vec<Member> = postgres::query(MEMBERS, &params![class, user, after, limit + 1])?.all()?;
    if rows.is_empty() {
        return Err(Problem::not_found("class"));
    }
    Ok(rows.into_iter().filter_map(|row| Some((cursor::of_user(&row.user_id?), row.text?))).collect())
}
