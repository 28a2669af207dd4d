//! Asks whether a user may do something in a conversation, by the one table of permissions (`conversation`).
//! A handler that reads the conversation anyway takes the role from its own row and asks `Role::must`.

use crate::conversation::{Act, Role};
use crate::{membership, problem};
use sdk::{Id, Problem, params, postgres};

const STANDING: &str = include_str!("permission/sql/standing.sql");

sdk::rows! {
    struct Row { role: String, archived: bool }
}

/// A participant to whom the table permits what was asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    pub role: Role,
    pub archived: bool,
}

/// Asks whether this user may do this in this conversation, by one query. The handler's Postgres role must be
/// able to read conversations and participants.
///
/// A user who is no participant gets the problem of [`membership::unseen`], a participant without the
/// permission `forbidden`.
pub fn may(user: &str, conversation: Id, act: Act) -> Result<Standing, Problem> {
    let row: Option<Row> = postgres::query(STANDING, &params![conversation, user])?.one()?;
    let row = row.ok_or_else(|| membership::unseen(conversation, user, "conversation"))?;
    judged(&row, act)
}

fn judged(row: &Row, act: Act) -> Result<Standing, Problem> {
    let role = Role::parse(&row.role).ok_or_else(Problem::internal)?;
    role.must(act)?;
    Ok(Standing { role, archived: row.archived })
}

impl Standing {
    /// Refuses a change of an archived conversation. Reading goes on there.
    pub fn must_be_open(self) -> Result<(), Problem> {
        if self.archived { Err(problem::archived()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(verdict: Result<T, Problem>) -> String {
        verdict.map_or_else(|problem| problem.code, |_| "ok".to_owned())
    }

    #[test]
    fn the_table_decides_and_an_archived_conversation_is_only_read() {
        let row = |role: &str, archived| Row { role: role.to_owned(), archived };
        for role in [Role::Owner, Role::Admin, Role::Member, Role::Observer] {
            for act in [Act::Read, Act::Send, Act::Manage, Act::Rule] {
                let standing = judged(&row(role.as_str(), false), act);
                assert_eq!(standing.is_ok(), role.may(act), "{role:?} {act:?}");
                assert!(standing.is_err() || standing == Ok(Standing { role, archived: false }));
            }
        }
        assert_eq!(code(judged(&row("observer", true), Act::Send)), "forbidden");
        let archived = judged(&row("member", true), Act::Send).and_then(Standing::must_be_open);
        assert_eq!(code(archived), "archived");
        assert_eq!(code(judged(&row("king", false), Act::Read)), "internal");
    }
}
