//! The permissions in a class. They are decided from the state that was read under the lock. Pure: no host
//! calls, so plain `cargo test` runs it.
//!
//! | | teacher | ta, student, observer |
//! |---|---|---|
//! | see the class and its members, leave | ● | ● |
//! | change, archive, delete; add, remove, give roles | ● | |
//!
//! The last teacher of a class cannot leave or lose that role. An archived class can only be unarchived or
//! deleted.

use chat::membership::rules::State as ConversationState;
use chat::problem;
use sdk::Problem;

use crate::rules::{Changes, Code, Role};

/// A class, the caller, and the subject: the user whom the request is about.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    pub name: String,
    pub code: String,
    pub description: Option<String>,
    pub archived: bool,
    pub caller: Option<Role>,
    pub subject: Option<Role>,
    /// Whether the caller is the subject.
    pub is_self: bool,
    /// The teacher, other than the subject, who has been in the class for the longest time.
    pub heir: Option<String>,
    /// The state of the class's conversation.
    pub conversation: ConversationState,
}

/// Whether a request still needs a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Status {
    Done,
    Needed,
}

impl Status {
    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }
}

impl State {
    pub(crate) fn add(&self) -> Result<Status, Problem> {
        self.check_teacher()?;
        self.check_not_archived()?;
        self.check_addition(self.subject)
    }

    pub(crate) fn join(&self) -> Result<Status, Problem> {
        if self.caller.is_none() {
            self.check_not_archived()?;
        }
        self.check_addition(self.caller)
    }

    /// Returns the role of the member to be removed.
    pub(crate) fn remove(&self) -> Result<Role, Problem> {
        if self.is_self {
            self.caller_role()?;
        } else {
            self.check_teacher()?;
        }
        self.check_not_archived()?;
        let role = self.subject.ok_or_else(no_member)?;
        self.check_not_last_teacher(role)?;
        Ok(role)
    }

    pub(crate) fn change_role(&self, role: Role) -> Result<Status, Problem> {
        self.check_teacher()?;
        self.check_not_archived()?;
        match self.subject.ok_or_else(no_member)? {
            had if had == role => Ok(Status::Done),
            had => self.check_not_last_teacher(had).map(|()| Status::Needed),
        }
    }

    /// Returns whether the request changes anything.
    pub(crate) fn change(&self, changes: &Changes) -> Result<bool, Problem> {
        self.check_teacher()?;
        let differs = changes.name.as_ref().is_some_and(|name| *name != self.name)
            || changes.code.as_ref().is_some_and(|Code(code)| *code != self.code)
            || changes.description.as_ref().is_some_and(|description| *description != self.description);
        if differs && self.archived && changes.archived != Some(false) {
            return Err(problem::archived());
        }
        Ok(differs || changes.archived.is_some_and(|archived| archived != self.archived))
    }

    pub(crate) fn delete(&self) -> Result<(), Problem> {
        self.check_teacher()
    }

    fn caller_role(&self) -> Result<Role, Problem> {
        self.caller.ok_or_else(|| Problem::not_found("class"))
    }

    fn check_teacher(&self) -> Result<(), Problem> {
        if self.caller_role()? == Role::Teacher { Ok(()) } else { Err(Problem::forbidden("teachers only")) }
    }

    fn check_not_archived(&self) -> Result<(), Problem> {
        if self.archived { Err(problem::archived()) } else { Ok(()) }
    }

    fn check_addition(&self, had: Option<Role>) -> Result<Status, Problem> {
        if had.is_some() {
            return Ok(Status::Done);
        }
        self.conversation.check_capacity()?;
        Ok(Status::Needed)
    }

    /// Checks that the class has another teacher.
    fn check_not_last_teacher(&self, role: Role) -> Result<(), Problem> {
        if role == Role::Teacher && self.heir.is_none() {
            return Err(Problem::conflict("the last teacher of a class stays"));
        }
        Ok(())
    }
}

fn no_member() -> Problem {
    Problem::not_found("member")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Observer, Student, Ta, Teacher};
    use chat::conversation::Kind;

    fn class(caller: Option<Role>, subject: Option<Role>) -> State {
        State {
            name: "Algebra".into(),
            code: "A1".into(),
            description: None,
            archived: false,
            caller,
            subject,
            is_self: false,
            heir: Some("di".into()),
            conversation: ConversationState {
                kind: Kind::Class,
                public: false,
                archived: false,
                capacity: None,
                participants: 3,
                caller: None,
                subject: None,
                is_self: false,
            },
        }
    }

    fn code<T>(verdict: Result<T, Problem>) -> String {
        verdict.map_or_else(|problem| problem.code, |_| "ok".to_owned())
    }

    #[test]
    fn only_teachers_manage_a_class() {
        let rename = Changes { name: Some("x".into()), ..Changes::default() };
        for (caller, expected) in [
            (Some(Teacher), "ok"),
            (Some(Ta), "forbidden"),
            (Some(Student), "forbidden"),
            (Some(Observer), "forbidden"),
            (None, "not_found"),
        ] {
            let class = |subject| class(caller, subject);
            assert_eq!(code(class(None).add()), expected);
            assert_eq!(code(class(Some(Student)).remove()), expected);
            assert_eq!(code(class(Some(Student)).change_role(Ta)), expected);
            assert_eq!(code(class(None).change(&rename)), expected);
            assert_eq!(code(class(None).delete()), expected);
        }
        assert_eq!(code(class(Some(Teacher), None).remove()), "not_found");
    }

    #[test]
    fn everyone_but_the_last_teacher_may_leave() {
        for role in [Teacher, Ta, Student, Observer] {
            let alone = |heir: Option<&str>| State {
                is_self: true,
                heir: heir.map(str::to_owned),
                ..class(Some(role), Some(role))
            };
            assert_eq!(alone(Some("di")).remove(), Ok(role));
            let expected = if role == Teacher { "conflict" } else { "ok" };
            assert_eq!(code(alone(None).remove()), expected);
        }
        let last = State { heir: None, ..class(Some(Teacher), Some(Teacher)) };
        assert_eq!(
            (code(last.change_role(Student)), last.change_role(Teacher)),
            ("conflict".into(), Ok(Status::Done))
        );
    }

    #[test]
    fn an_archived_class_is_only_unarchived_or_deleted() {
        let archived = |caller| State { archived: true, ..class(caller, Some(Student)) };
        let teacher = archived(Some(Teacher));
        for verdict in [
            code(teacher.add()),
            code(teacher.remove()),
            code(teacher.change_role(Ta)),
            code(archived(None).join()),
        ] {
            assert_eq!(verdict, "archived");
        }
        let changes =
            |name: &str, archived| Changes { name: Some(name.into()), archived, ..Changes::default() };
        assert_eq!(code(teacher.change(&changes("other", None))), "archived");
        assert_eq!(code(teacher.change(&changes("other", Some(true)))), "archived");
        assert_eq!(teacher.change(&changes("Algebra", Some(true))), Ok(false));
        assert_eq!(teacher.change(&changes("other", Some(false))), Ok(true));
        assert_eq!(archived(Some(Student)).join(), Ok(Status::Done));
        assert!(teacher.delete().is_ok());
    }

    #[test]
    fn a_full_class_cannot_be_joined() {
        let mut full = class(None, None);
        full.conversation.capacity = Some(3);
        assert_eq!(code(full.join()), "conversation_full");
        full.conversation.capacity = Some(4);
        assert_eq!(full.join(), Ok(Status::Needed));
    }
}
