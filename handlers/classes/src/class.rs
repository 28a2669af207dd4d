//! A class under the lock of its conversation: members and participants change together, or not at all. It writes what it
//! is told; who may is `standing`. Whatever changes something here also commits it.

use chat::membership::{Move, Room};
use chat::{conversation, outbox};
use sdk::{Id, Problem, params};

use crate::rules::{Changes, Code, Role};
use crate::standing::Standing;
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

pub struct Class {
    pub id: Id,
    pub room: Room,
    pub standing: Standing,
}

impl Class {
    /// `by` asks, and it is about `about`.
    pub fn lock(id: Id, by: &str, about: &str) -> Result<Self, Problem> {
        let no_class = || Problem::not_found("class");
        let room = match Room::lock(store::conversation(id)?, by, about) {
            Err(problem) if problem.status == 404 => return Err(no_class()),
            other => other?,
        };
        let read: Option<Read> = room.transaction.query(STANDING, &params![id, by, about])?.one()?;
        let read = read.ok_or_else(no_class)?;
        let role = |word: Option<String>| word.as_deref().and_then(Role::parse);
        let standing = Standing {
            name: read.name,
            code: read.code,
            description: read.description,
            archived: read.archived,
            asker: role(read.asker),
            subject: role(read.subject),
            oneself: by == about,
            heir: read.heir,
            room: room.state.clone(),
        };
        Ok(Self { id, room, standing })
    }

    pub fn member(&self, user: &str) -> Result<String, Problem> {
        let member: Option<String> = self.room.transaction.query(MEMBER, &params![self.id, user])?.cell()?;
        member.ok_or_else(|| Problem::not_found("member"))
    }

    pub fn enrol(mut self, user: &str, role: Role, by: &str) -> Result<String, Problem> {
        let params = params![self.id, user, role.as_str(), self.room.now];
        let member: Option<String> = self.room.transaction.query(ENROL, &params)?.cell()?;
        self.room.admit(Move { user, role: role.seat(), by })?;
        self.tell_of_member(outbox::CLASS_MEMBER_ADDED, user, role, by)?;
        self.room.commit()?;
        member.ok_or_else(Problem::internal)
    }

    /// The owner's place goes to the heir.
    pub fn withdraw(mut self, user: &str, role: Role, by: &str) -> Result<(), Problem> {
        let seat = self.room.state.subject()?;
        self.room.transaction.execute(WITHDRAW, &params![self.id, user, self.room.now])?;
        self.room.part(Move { user, role: seat, by })?;
        if let Some(heir) = self.heir_of(seat) {
            self.room.give(&[(&heir, conversation::Role::Owner)], by)?;
        }
        self.tell_of_member(outbox::CLASS_MEMBER_REMOVED, user, role, by)?;
        self.room.commit()
    }

    /// Likewise.
    pub fn turn(mut self, user: &str, role: Role, by: &str) -> Result<String, Problem> {
        let had = self.room.state.subject()?;
        self.room.transaction.execute(ASSIGN, &params![self.id, user, role.as_str()])?;
        match self.heir_of(had) {
            Some(heir) => {
                self.room.give(&[(user, role.seat()), (&heir, conversation::Role::Owner)], by)?;
            }
            None if had != role.seat() => self.room.give(&[(user, role.seat())], by)?,
            None => {}
        }
        let member = self.member(user)?;
        self.room.commit()?;
        Ok(member)
    }

    /// What its conversation is called, and whether anything may be said there, follows.
    pub fn change(mut self, changes: &Changes, by: &str) -> Result<(), Problem> {
        let params = params![
            self.id,
            changes.name.as_ref(),
            changes.code.as_ref().map(|Code(code)| code),
            changes.description.is_some(),
            changes.description.as_ref().and_then(Option::as_ref),
            changes.archived,
            self.room.now,
        ];
        self.room.transaction.execute(CHANGE, &params).map_err(store::code_taken)?;
        self.room.transaction.execute(RENAME, &params![self.id])?;
        self.room.updated(by, None)?;
        self.room.commit()
    }

    /// Nobody is in it any more, and its code is free.
    pub fn delete(mut self, by: &str) -> Result<(), Problem> {
        self.room.transaction.execute(DELETE, &params![self.id, by, self.room.now, Id::make()])?;
        self.room.told();
        self.room.commit()
    }

    fn heir_of(&self, seat: conversation::Role) -> Option<String> {
        self.standing.heir.clone().filter(|_| seat == conversation::Role::Owner)
    }

    fn tell_of_member(&mut self, event: &str, user: &str, role: Role, by: &str) -> Result<(), Problem> {
        let class: Option<String> = self.room.transaction.query(TEXT, &params![self.id])?.cell()?;
        let class = class.ok_or_else(Problem::internal)?;
        let people = serde_json::json!({ "user_id": user, "role": role.as_str(), "by": by }).to_string();
        // The fields of both objects in one.
        self.room.announce(event, &format!(r#"{{"class":{class},{}"#, &people[1..]))
    }
}
