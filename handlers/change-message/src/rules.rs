//! The permissions to edit and delete messages. Pure: no host calls, so plain `cargo test` runs it.

use chat::conversation::{Act, Role};
use chat::{message, problem};
use sdk::json::{self, Object};
use sdk::{Id, Problem};

/// A message in a conversation, as the client names them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Target {
    pub conversation: Id,
    pub message: Id,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    Edit {
        /// NFC.
        content: String,
        /// The new mentions as JSON. `None` keeps the present ones, `Some(None)` removes them.
        mentions: Option<Option<String>>,
    },
    Delete,
}

impl Change {
    pub(crate) fn edit(mut body: Object) -> Result<Self, Problem> {
        Ok(Self::Edit {
            content: message::content(json::required("content", body.text("content")?)?)?,
            mentions: if body.has("mentions") { Some(message::mentions(&mut body)?) } else { None },
        })
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Edit { .. } => "edit",
            Self::Delete => "delete",
        }
    }
}

/// The present state of a message, and the caller's role.
#[derive(Clone, Debug)]
pub(crate) struct MessageState {
    pub role: Role,
    pub is_own: bool,
    pub is_text: bool,
    pub is_archived: bool,
    pub is_deleted: bool,
    pub content: String,
    pub mentions: Option<String>,
}

/// Whether a request still needs a change.
#[derive(Debug, PartialEq)]
pub(crate) enum Status {
    Needed,
    /// The message already has the requested state, for instance because the request is a retry.
    Done,
}

impl MessageState {
    pub(crate) fn check(&self, change: &Change) -> Result<Status, Problem> {
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
            Change::Delete if self.is_deleted => Ok(Status::Done),
            Change::Edit { .. } if self.is_deleted => Err(Problem::conflict("the message is deleted")),
            Change::Edit { content, mentions } => {
                let same = *content == self.content
                    && mentions.as_ref().is_none_or(|mentions| *mentions == self.mentions);
                Ok(if same { Status::Done } else { Status::Needed })
            }
            Change::Delete => Ok(Status::Needed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(role: Role, is_own: bool) -> MessageState {
        MessageState {
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

    fn code(result: Result<Status, Problem>) -> String {
        result.map_or_else(|problem| problem.code, |verdict| format!("{verdict:?}"))
    }

    #[test]
    fn each_role_edits_and_deletes_what_it_may() {
        for (role, is_own, edits, deletes) in [
            (Role::Owner, true, "Needed", "Needed"),
            (Role::Owner, false, "forbidden", "Needed"),
            (Role::Admin, true, "Needed", "Needed"),
            (Role::Admin, false, "forbidden", "Needed"),
            (Role::Member, true, "Needed", "Needed"),
            (Role::Member, false, "forbidden", "forbidden"),
            (Role::Observer, true, "forbidden", "forbidden"),
            (Role::Observer, false, "forbidden", "forbidden"),
        ] {
            let state = state(role, is_own);
            assert_eq!(code(state.check(&edit(r#"{"content":"new"}"#))), edits, "{state:?}");
            assert_eq!(code(state.check(&Change::Delete)), deletes, "{state:?}");
        }
    }

    #[test]
    fn archived_system_and_deleted_messages_cannot_be_edited() {
        let own = state(Role::Owner, true);
        let check = |state: &MessageState| {
            (code(state.check(&edit(r#"{"content":"new"}"#))), code(state.check(&Change::Delete)))
        };
        let archived = MessageState { is_archived: true, ..own.clone() };
        assert_eq!(check(&archived), ("archived".into(), "archived".into()));
        let system_message = MessageState { is_text: false, ..own.clone() };
        assert_eq!(check(&system_message), ("forbidden".into(), "forbidden".into()));
        let deleted = MessageState { is_deleted: true, ..own };
        assert_eq!(check(&deleted), ("conflict".into(), "Done".into()));
    }

    #[test]
    fn an_edit_to_the_present_content_is_done() {
        let own = state(Role::Member, true);
        for (body, verdict) in [
            (r#"{"content":"hi"}"#, "Done"),
            (r#"{"content":"hi","mentions":["bo"]}"#, "Done"),
            (r#"{"content":"hi","mentions":[]}"#, "Needed"),
            (r#"{"content":"hi","mentions":null}"#, "Needed"),
            (r#"{"content":"ho"}"#, "Needed"),
        ] {
            assert_eq!(code(own.check(&edit(body))), verdict, "{body}");
        }
    }

    #[test]
    fn an_edit_follows_the_rules_of_a_message() {
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
