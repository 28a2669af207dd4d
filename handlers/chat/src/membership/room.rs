//! A conversation under its lock: what is read here holds until COMMIT, and what is written here is seen whole or not at
//! all. It writes what it is told; who may is `rules`.

use serde_json::json;

use super::rules::{PARTICIPANTS_MAX, State};
use crate::conversation::{Kind, Role};
use crate::outbox;
use sdk::postgres::{self, Transaction};
use sdk::{Id, Problem, clock, params, time, wake};

const LOCK: &str = "select switchboard.lock($1::text[])";
const STATE: &str = include_str!("sql/state.sql");
const TEXT: &str = include_str!("sql/text.sql");
const ADMIT: &str = include_str!("sql/admit.sql");
const PART: &str = include_str!("sql/part.sql");
const HIDE: &str = include_str!("sql/hide.sql");
const SHOW: &str = include_str!("sql/show.sql");
const END: &str = include_str!("sql/end.sql");
const SAY: &str = include_str!("sql/say.sql");
const GIVE: &str = include_str!("sql/give.sql");
const ANNOUNCE: &str = include_str!("sql/announce.sql");

sdk::rows! {
    struct Read {
        kind: String, public: bool, archived: bool, capacity: Option<u64>, present: u64,
        asker: Option<String>, subject: Option<String>, head_seq: u64, head_id: Option<Id>, shard: u32
    }
}

/// One person comes or goes.
#[derive(Clone, Copy)]
pub struct Move<'a> {
    pub user: &'a str,
    /// The role they get, or had.
    pub role: Role,
    pub by: &'a str,
}

pub struct Room {
    pub id: Id,
    pub state: State,
    pub transaction: Transaction,
    pub now: u64,
    head_seq: u64,
    head_id: Option<Id>,
    shard: u32,
    changed: bool,
}

impl Room {
    /// Begins a transaction and locks: one room a call. `by` asks, and it is about `about`.
    pub fn lock(id: Id, by: &str, about: &str) -> Result<Self, Problem> {
        let transaction = postgres::begin()?;
        // A statement of its own, so that the next one sees what the last holder of the lock committed.
        transaction.query(LOCK, &params![vec![outbox::key(id)]])?;
        let now = clock::now_ms();
        let month = Id::floor(time::month_start(now));
        let read = transaction.query(STATE, &params![id, by, about, month, PARTICIPANTS_MAX])?;
        let read: Read = read.one()?.ok_or_else(|| Problem::not_found("conversation"))?;
        let role = |word: Option<String>| word.as_deref().and_then(Role::parse);
        let state = State {
            kind: Kind::parse(&read.kind).ok_or_else(Problem::internal)?,
            public: read.public,
            archived: read.archived,
            capacity: read.capacity,
            present: read.present,
            asker: role(read.asker),
            subject: role(read.subject),
            oneself: by == about,
        };
        let Read { head_seq, head_id, shard, .. } = read;
        Ok(Self { id, state, transaction, now, head_seq, head_id, shard, changed: false })
    }

    /// They come, or come back: anew. The participant, as JSON.
    pub fn admit(&mut self, coming: Move<'_>) -> Result<String, Problem> {
        let by_themself = coming.user == coming.by;
        let params =
            params![self.id, coming.user, coming.role.as_str(), self.head_seq + 1, self.now, by_themself];
        let participant: Option<String> = self.transaction.query(ADMIT, &params)?.cell()?;
        let content = if coming.user == coming.by { "joined" } else { "added" };
        self.say(coming, "join", content)?;
        participant.ok_or_else(Problem::internal)
    }

    /// They go; what they had subscribed to ends before the message that says so.
    pub fn part(&mut self, going: Move<'_>) -> Result<(), Problem> {
        self.transaction.execute(PART, &params![self.id, going.user, self.now])?;
        self.say(going, "leave", if going.user == going.by { "left" } else { "removed" })
    }

    /// Nobody is left and nobody could come back.
    pub fn end(&mut self) -> Result<(), Problem> {
        self.transaction.execute(END, &params![self.id, self.now])?;
        Ok(())
    }

    /// A direct conversation leaves somebody's list until its next message.
    pub fn hide(&mut self, user: &str, role: Role) -> Result<(), Problem> {
        self.transaction.execute(HIDE, &params![self.id, user, self.head_seq])?;
        self.quietly(outbox::PARTICIPANT_LEFT, user, role)
    }

    /// It is in their list again.
    pub fn show(&mut self, user: &str, role: Role) -> Result<(), Problem> {
        self.transaction.execute(SHOW, &params![self.id, user])?;
        self.quietly(outbox::PARTICIPANT_JOINED, user, role)
    }

    /// Their own connections learn it, nobody else.
    fn quietly(&mut self, event_type: &str, user: &str, role: Role) -> Result<(), Problem> {
        let event = json!({
            "conversation_id": self.id, "user_id": user, "role": role.as_str(), "by": user, "quiet": true,
        });
        self.announce(event_type, &event.to_string())
    }

    /// Roles change; in this order, because there is one owner at any moment. One event tells of all.
    pub fn give(&mut self, roles: &[(&str, Role)], by: &str) -> Result<(), Problem> {
        for (user, role) in roles {
            self.transaction.execute(GIVE, &params![self.id, *user, role.as_str()])?;
        }
        let people: Vec<_> =
            roles.iter().map(|(user, role)| json!({ "user_id": user, "role": role.as_str() })).collect();
        self.updated(by, Some(json!(people).to_string()))
    }

    /// The conversation is not what it was; `participants` is JSON of those whose role changed.
    pub fn updated(&mut self, by: &str, participants: Option<String>) -> Result<(), Problem> {
        let participants =
            participants.map_or_else(String::new, |people| format!(r#","participants":{people}"#));
        let event = format!(r#"{{"conversation":{},"by":{}{participants}}}"#, self.text()?, json!(by));
        self.announce(outbox::CONVERSATION_UPDATED, &event)
    }

    /// An event of this conversation, after those that were announced before it.
    pub fn announce(&mut self, event_type: &str, payload: &str) -> Result<(), Problem> {
        let params = params![self.id, Id::make(), event_type, payload];
        self.transaction.execute(ANNOUNCE, &params)?;
        self.changed = true;
        Ok(())
    }

    /// A statement of the caller has written events of this conversation.
    pub fn told(&mut self) {
        self.changed = true;
    }

    /// The conversation as answers show it, without its people: JSON.
    pub fn text(&self) -> Result<String, Problem> {
        let text: Option<String> = self.transaction.query(TEXT, &params![self.id])?.cell()?;
        text.ok_or_else(Problem::internal)
    }

    pub fn commit(self) -> Result<(), Problem> {
        self.transaction.commit()?;
        if self.changed {
            wake::outbox(&[self.shard]);
        }
        Ok(())
    }

    /// The message of type `join` or `leave`, sent by who acts, and the events of the move.
    fn say(&mut self, moved: Move<'_>, kind: &str, content: &str) -> Result<(), Problem> {
        let params = params![
            self.id,
            moved.user,
            moved.role.as_str(),
            moved.by,
            kind,
            content,
            self.head_seq + 1,
            self.head_id,
            Id::make(),
            Id::make(),
            self.now,
        ];
        let said: Option<Id> = self.transaction.query(SAY, &params)?.cell()?;
        self.head_id = Some(said.ok_or_else(Problem::internal)?);
        self.head_seq += 1;
        self.changed = true;
        Ok(())
    }
}
