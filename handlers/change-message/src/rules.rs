//! Who may change which message, and into what. Pure: no host calls, so plain `cargo test` runs it.

use chat::conversation::{Act, Role};
use chat::{message, problem};
use sdk::json::{self, Object};
use sdk::{Id, Problem};

/// A message, where it is said to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    pub conversation: Id,
    pub message: Id,
}

#[derive(Debug, PartialEq)]
pub enum Change {
    Edit {
        /// NFC.
        content: String,
        /// JSON; `None` leaves those that are there, `Some(None)` takes them away.
        mentions: Option<Option<String>>,
    },
    Delete,
}

impl Change {
    pub fn edit(mut body: Object) -> Result<Self, Problem> {
        Ok(Self::Edit {
            content: message::content(json::required("content", body.text("content")?)?)?,
            mentions: if body.has("mentions") { Some(message::mentions(&mut body)?) } else { None },
        })
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Edit { .. } => "edit",
            Self::Delete => "delete",
        }
    }
}

/// A message as it stands, and who wants to change it.
#[derive(Clone, Debug)]
pub struct Standing {
    pub role: Role,
    pub is_own: bool,
    pub is_text: bool,
    pub is_archived: bool,
    pub is_deleted: bool,
    pub content: String,
    pub mentions: Option<String>,
}

/// Whether there is something left to do.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Go,
    /// It is so already: a retry finds what the first try did.
    Done,
}

impl Standing {
    pub fn judge(&self, change: &Change) -> Result<Verdict, Problem> {
        self.role.must(Act::Send)?;
        if !self.is_own {
            match change {
                Change::Edit { .. } => return Err(Problem::forbidden("one edits one's own messages only")),
                Change::Delete => self.role.must(Act::Manage)?,
            }
        }
        if self.is_archived {
            return Err(problem::archived());
        }
        if !self.is_text {
            return Err(Problem::forbidden("what the system says stays"));
        }
        match change {
            Change::Delete if self.is_deleted => Ok(Verdict::Done),
            Change::Edit { .. } if self.is_deleted => Err(Problem::conflict("the message is deleted")),
            Change::Edit { content, mentions } => {
                let same = *content == self.content
                    && mentions.as_ref().is_none_or(|mentions| *mentions == self.mentions);
                Ok(if same { Verdict::Done } else { Verdict::Go })
            }
            Change::Delete => Ok(Verdict::Go),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(role: Role, is_own: bool) -> Standing {
        Standing {
            role,
            is_own,
            is_text: true,
            is_archived: false,
            is_deleted: false,
            content: "hi".into(),
            mentions: Some(r#"["bo"]"#.into()),
        }
    }

    fn edit(body: &str) -> Change {
        Change::edit(Object::parse(body.as_bytes()).unwrap()).unwrap()
    }

    fn code(result: Result<Verdict, Problem>) -> String {
        result.map_or_else(|problem| problem.code, |verdict| format!("{verdict:?}"))
    }

    #[test]
    fn who_may_edit_and_delete() {
        for (role, is_own, edits, deletes) in [
            (Role::Owner, true, "Go", "Go"),
            (Role::Owner, false, "forbidden", "Go"),
            (Role::Admin, true, "Go", "Go"),
            (Role::Admin, false, "forbidden", "Go"),
            (Role::Member, true, "Go", "Go"),
            (Role::Member, false, "forbidden", "forbidden"),
            (Role::Observer, true, "forbidden", "forbidden"),
            (Role::Observer, false, "forbidden", "forbidden"),
        ] {
            let standing = standing(role, is_own);
            assert_eq!(code(standing.judge(&edit(r#"{"content":"new"}"#))), edits, "{standing:?}");
            assert_eq!(code(standing.judge(&Change::Delete)), deletes, "{standing:?}");
        }
    }

    #[test]
    fn what_can_not_be_changed() {
        let own = standing(Role::Owner, true);
        let judge = |standing: &Standing| {
            (code(standing.judge(&edit(r#"{"content":"new"}"#))), code(standing.judge(&Change::Delete)))
        };
        let archived = Standing { is_archived: true, ..own.clone() };
        assert_eq!(judge(&archived), ("archived".into(), "archived".into()));
        let said_by_the_system = Standing { is_text: false, ..own.clone() };
        assert_eq!(judge(&said_by_the_system), ("forbidden".into(), "forbidden".into()));
        let deleted = Standing { is_deleted: true, ..own };
        assert_eq!(judge(&deleted), ("conflict".into(), "Done".into()));
    }

    #[test]
    fn an_edit_to_what_it_says_already_is_done() {
        let own = standing(Role::Member, true);
        for (body, verdict) in [
            (r#"{"content":"hi"}"#, "Done"),
            (r#"{"content":"hi","mentions":["bo"]}"#, "Done"),
            (r#"{"content":"hi","mentions":[]}"#, "Go"),
            (r#"{"content":"hi","mentions":null}"#, "Go"),
            (r#"{"content":"ho"}"#, "Go"),
        ] {
            assert_eq!(code(own.judge(&edit(body))), verdict, "{body}");
        }
    }

    #[test]
    fn an_edit_keeps_the_rules_of_a_message() {
        assert_eq!(edit("{\"content\":\"o\u{302}\"}"), Change::Edit { content: "ô".into(), mentions: None });
        for (bad, field) in [
            ("{}", "content"),
            (r#"{"content":""}"#, "content"),
            (r#"{"content":7}"#, "content"),
            (r#"{"content":"a\u0000"}"#, "content"),
            (r#"{"content":"x","mentions":"bo"}"#, "mentions"),
        ] {
            let problem = Change::edit(Object::parse(bad.as_bytes()).unwrap()).unwrap_err();
            assert_eq!((problem.status, problem.field.as_deref()), (422, Some(field)));
        }
    }
}
