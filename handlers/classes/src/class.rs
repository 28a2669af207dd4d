//! A class under the lock of its conversation. Members of the class and participants of the conversation
//! change in one transaction. This module does not check permissions; the caller does that with `state`. Each
//! function that changes something also commits.

use chat::membership::{LockedConversation, ParticipantChange};
use chat::{conversation, outbox};
use sdk::{Id, Problem, params};

use crate::rules::{Changes, Code, Role};
use crate::state::State;
use crate::store;

const STANDING: &str = include_str!("sql/standing.sql");
const MEMBER: &str = include_str!("sql/member.sql");
const ENROL: &str = include_str!("sql/enrol.sql");
const WITHDRAW: &str = include_str!("sql/withdraw.sql");
const ASSIGN: &str = include_str!("sql/assign.sql");
const CHANGE: &str = include_str!("sql/change.sql");
const RENAME: &str = include_str!("sql/rename.sql");
const DELETE: &str = include_str!("sql/delete.sql");
const TEXT: &str = "select app.class_text(class) from app.classes as class where id = $1::uuid";

sdk::rows! {
    struct Read {
        name: String, code: String, description: Option<String>, archived: bool,
        asker: Option<String>, subject: Option<String>, heir: Option<String>
    }
}

pub(crate) struct Class {
    pub id: Id,
    pub conversation: LockedConversation,
    pub state: State,
}

impl Class {
    /// Begins a transaction and locks the class. `by` is the caller, `about` the subject of the request.
    pub(crate) fn lock(id: Id, by: &str, about: &str) -> Result<Self, Problem> {
        let no_class = || Problem::not_found("class");
        let conversation = match LockedConversation::lock(store::conversation(id)?, by, about) {
            Err(problem) if problem.status == 404 => return Err(no_class()),
            other => other?,
        };
        let read: Option<Read> = conversation.transaction.query(STANDING, &params![id, by, about])?.one()?;
        let read = read.ok_or_else(no_class)?;
        let role = |word: Option<String>| word.as_deref().and_then(Role::parse);
        let state = State {
            name: read.name,
            code: read.code,
            description: read.description,
            archived: read.archived,
            caller: role(read.asker),
            subject: role(read.subject),
            is_self: by == about,
            heir: read.heir,
            conversation: conversation.state.clone(),
        };
        Ok(Self { id, conversation, state })
    }

    pub(crate) fn member(&self, user: &str) -> Result<String, Problem> {
        let member: Option<String> =
            self.conversation.transaction.query(MEMBER, &params![self.id, user])?.cell()?;
        member.ok_or_else(|| Problem::not_found("member"))
    }

    pub(crate) fn enrol(mut self, user: &str, role: Role, by: &str) -> Result<String, Problem> {
        let params = params![self.id, user, role.as_str(), self.conversation.now];
        let member: Option<String> = self.conversation.transaction.query(ENROL, &params)?.cell()?;
        self.conversation.add(ParticipantChange { user, role: role.in_conversation(), by })?;
        self.announce_member(outbox::CLASS_MEMBER_ADDED, user, role, by)?;
        self.conversation.commit()?;
        member.ok_or_else(Problem::internal)
    }

    /// Removes a member. If the member owns the conversation, the heir becomes the owner.
    pub(crate) fn withdraw(mut self, user: &str, role: Role, by: &str) -> Result<(), Problem> {
        let had = self.conversation.state.subject()?;
        self.conversation.transaction.execute(WITHDRAW, &params![self.id, user, self.conversation.now])?;
        self.conversation.remove(ParticipantChange { user, role: had, by })?;
        if let Some(heir) = self.heir_of(had) {
            self.conversation.set_roles(&[(&heir, conversation::Role::Owner)], by)?;
        }
        self.announce_member(outbox::CLASS_MEMBER_REMOVED, user, role, by)?;
        self.conversation.commit()
    }

    /// Changes a member's role. If the member owns the conversation, the heir becomes the owner.
    pub(crate) fn change_role(mut self, user: &str, role: Role, by: &str) -> Result<String, Problem> {
        let had = self.conversation.state.subject()?;
        self.conversation.transaction.execute(ASSIGN, &params![self.id, user, role.as_str()])?;
        match self.heir_of(had) {
            Some(heir) => {
                self.conversation
                    .set_roles(&[(user, role.in_conversation()), (&heir, conversation::Role::Owner)], by)?;
            }
            None if had != role.in_conversation() => {
                self.conversation.set_roles(&[(user, role.in_conversation())], by)?
            }
            None => {}
        }
        let member = self.member(user)?;
        self.conversation.commit()?;
        Ok(member)
    }

    /// Changes the class. The conversation takes over the new name, and whether it is archived.
    pub(crate) fn change(mut self, changes: &Changes, by: &str) -> Result<(), Problem> {
        let params = params![
            self.id,
            changes.name.as_ref(),
            changes.code.as_ref().map(|Code(code)| code),
            changes.description.is_some(),
            changes.description.as_ref().and_then(Option::as_ref),
            changes.archived,
            self.conversation.now,
        ];
        self.conversation.transaction.execute(CHANGE, &params).map_err(store::code_taken)?;
        self.conversation.transaction.execute(RENAME, &params![self.id])?;
        self.conversation.announce_update(by, None)?;
        self.conversation.commit()
    }

    /// Deletes the class with its memberships. Another class may then use its code.
    pub(crate) fn delete(mut self, by: &str) -> Result<(), Problem> {
        self.conversation
            .transaction
            .execute(DELETE, &params![self.id, by, self.conversation.now, Id::make()])?;
        self.conversation.mark_changed();
        self.conversation.commit()
    }

    fn heir_of(&self, role: conversation::Role) -> Option<String> {
        self.state.heir.clone().filter(|_| role == conversation::Role::Owner)
    }

    fn announce_member(&mut self, event: &str, user: &str, role: Role, by: &str) -> Result<(), Problem> {
        let class: Option<String> = self.conversation.transaction.query(TEXT, &params![self.id])?.cell()?;
        let class = class.ok_or_else(Problem::internal)?;
        let people = serde_json::json!({ "user_id": user, "role": role.as_str(), "by": by }).to_string();
        // One object that has the fields of both.
        self.conversation.announce(event, &format!(r#"{{"class":{class},{}"#, &people[1..]))
    }
}
