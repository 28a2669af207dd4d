//! Who may what in a class, from what stands there under its lock. Pure: no host calls, so plain `cargo test` runs it.
//!
//! | | teacher | ta, student, observer |
//! |---|---|---|
//! | see the class and its members, leave | ● | ● |
//! | change, archive, delete; add, remove, give roles | ● | |
//!
//! The last teacher stays a teacher. Archived: nothing changes but that, and the end of the class.

use chat::membership::rules::State;
use chat::problem;
use sdk::Problem;

use crate::rules::{Changes, Code, Role};

/// A class, who asks, and whom it is about.
#[derive(Debug, PartialEq)]
pub struct Standing {
    pub name: String,
    pub code: String,
    pub description: Option<String>,
    pub archived: bool,
    pub asker: Option<Role>,
    pub subject: Option<Role>,
    /// They are one person.
    pub oneself: bool,
    /// Somebody else than the subject who teaches: the one who has for the longest time.
    pub heir: Option<String>,
    /// What its conversation has room for.
    pub room: State,
}

/// Whether what was asked for is so already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Already {
    There,
    NotYet,
}

impl Already {
    pub fn is_there(self) -> bool {
        self == Self::There
    }
}

impl Standing {
    pub fn add(&self) -> Result<Already, Problem> {
        self.manages()?;
        self.changes()?;
        self.comes(self.subject)
    }

    pub fn join(&self) -> Result<Already, Problem> {
        if self.asker.is_none() {
            self.changes()?;
        }
        self.comes(self.asker)
    }

    /// The role that goes with them.
    pub fn remove(&self) -> Result<Role, Problem> {
        if self.oneself {
            self.member()?;
        } else {
            self.manages()?;
        }
        self.changes()?;
        let role = self.subject.ok_or_else(no_member)?;
        self.spares(role)?;
        Ok(role)
    }

    pub fn turn(&self, role: Role) -> Result<Already, Problem> {
        self.manages()?;
        self.changes()?;
        match self.subject.ok_or_else(no_member)? {
            had if had == role => Ok(Already::There),
            had => self.spares(had).map(|()| Already::NotYet),
        }
    }

    /// Whether anything is to be changed.
    pub fn change(&self, changes: &Changes) -> Result<bool, Problem> {
        self.manages()?;
        let differs = changes.name.as_ref().is_some_and(|name| *name != self.name)
            || changes.code.as_ref().is_some_and(|Code(code)| *code != self.code)
            || changes.description.as_ref().is_some_and(|description| *description != self.description);
        if differs && self.archived && changes.archived != Some(false) {
            return Err(problem::archived());
        }
        Ok(differs || changes.archived.is_some_and(|archived| archived != self.archived))
    }

    pub fn delete(&self) -> Result<(), Problem> {
        self.manages()
    }

    fn member(&self) -> Result<Role, Problem> {
        self.asker.ok_or_else(|| Problem::not_found("class"))
    }

    fn manages(&self) -> Result<(), Problem> {
        if self.member()? == Role::Teacher { Ok(()) } else { Err(Problem::forbidden("teachers only")) }
    }

    fn changes(&self) -> Result<(), Problem> {
        if self.archived { Err(problem::archived()) } else { Ok(()) }
    }

    fn comes(&self, had: Option<Role>) -> Result<Already, Problem> {
        if had.is_some() {
            return Ok(Already::There);
        }
        self.room.has_a_place()?;
        Ok(Already::NotYet)
    }

    /// Whether the class can do without them in this role.
    fn spares(&self, role: Role) -> Result<(), Problem> {
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

    fn class(asker: Option<Role>, subject: Option<Role>) -> Standing {
        Standing {
            name: "Algebra".into(),
            code: "A1".into(),
            description: None,
            archived: false,
            asker,
            subject,
            oneself: false,
            heir: Some("di".into()),
            room: State {
                kind: Kind::Class,
                public: false,
                archived: false,
                capacity: None,
                present: 3,
                asker: None,
                subject: None,
                oneself: false,
            },
        }
    }

    fn code<T>(verdict: Result<T, Problem>) -> String {
        verdict.map_or_else(|problem| problem.code, |_| "ok".to_owned())
    }

    #[test]
    fn teachers_manage_and_strangers_see_nothing() {
        let rename = Changes { name: Some("x".into()), ..Changes::default() };
        for (asker, expected) in [
            (Some(Teacher), "ok"),
            (Some(Ta), "forbidden"),
            (Some(Student), "forbidden"),
            (Some(Observer), "forbidden"),
            (None, "not_found"),
        ] {
            let class = |subject| class(asker, subject);
            assert_eq!(code(class(None).add()), expected);
            assert_eq!(code(class(Some(Student)).remove()), expected);
            assert_eq!(code(class(Some(Student)).turn(Ta)), expected);
            assert_eq!(code(class(None).change(&rename)), expected);
            assert_eq!(code(class(None).delete()), expected);
        }
        assert_eq!(code(class(Some(Teacher), None).remove()), "not_found");
    }

    #[test]
    fn everyone_may_go_but_the_last_teacher() {
        for role in [Teacher, Ta, Student, Observer] {
            let alone = |heir: Option<&str>| Standing {
                oneself: true,
                heir: heir.map(str::to_owned),
                ..class(Some(role), Some(role))
            };
            assert_eq!(alone(Some("di")).remove(), Ok(role));
            let expected = if role == Teacher { "conflict" } else { "ok" };
            assert_eq!(code(alone(None).remove()), expected);
        }
        let last = Standing { heir: None, ..class(Some(Teacher), Some(Teacher)) };
        assert_eq!((code(last.turn(Student)), last.turn(Teacher)), ("conflict".into(), Ok(Already::There)));
    }

    #[test]
    fn nothing_changes_in_an_archive_but_that_it_is_one() {
        let archived = |asker| Standing { archived: true, ..class(asker, Some(Student)) };
        let teacher = archived(Some(Teacher));
        for verdict in
            [code(teacher.add()), code(teacher.remove()), code(teacher.turn(Ta)), code(archived(None).join())]
        {
            assert_eq!(verdict, "archived");
        }
        let changes =
            |name: &str, archived| Changes { name: Some(name.into()), archived, ..Changes::default() };
        assert_eq!(code(teacher.change(&changes("other", None))), "archived");
        assert_eq!(code(teacher.change(&changes("other", Some(true)))), "archived");
        assert_eq!(teacher.change(&changes("Algebra", Some(true))), Ok(false));
        assert_eq!(teacher.change(&changes("other", Some(false))), Ok(true));
        assert_eq!(archived(Some(Student)).join(), Ok(Already::There));
        assert!(teacher.delete().is_ok());
    }

    #[test]
    fn joining_needs_a_place() {
        let mut full = class(None, None);
        full.room.capacity = Some(3);
        assert_eq!(code(full.join()), "conversation_full");
        full.room.capacity = Some(4);
        assert_eq!(full.join(), Ok(Already::NotYet));
    }
}
