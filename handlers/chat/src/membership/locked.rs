//! A conversation under its lock. No other call can change what was read here until COMMIT. This module does
//! not check permissions; the caller does that with `rules`.

use serde_json::json;

use super::rules::{LARGE_ABOVE, PARTICIPANTS_MAX, State};
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
const COUNT: &str = include_str!("sql/count.sql");
const GIVE: &str = include_str!("sql/give.sql");
const ANNOUNCE: &str = include_str!("sql/announce.sql");

sdk::rows! {
    struct Read {
        kind: String, public: bool, archived: bool, capacity: Option<u64>, present: u64,
        asker: Option<String>, subject: Option<String>, head_seq: u64, head_id: Option<Id>, shard: u32
    }
}

/// One user is added to a conversation or removed from it.
#[derive(Clone, Copy)]
pub struct ParticipantChange<'a> {
    pub user: &'a str,
    /// The role that the user gets, or had before the removal.
    pub role: Role,
    /// The user who makes the change.
    pub by: &'a str,
}

/// A locked conversation with its open transaction. Dropping it without `commit` rolls back.
pub struct LockedConversation {
    pub id: Id,
    pub state: State,
    pub transaction: Transaction,
    pub now: u64,
    head_seq: u64,
    head_id: Option<Id>,
    /// The number of participants, with the changes of this transaction.
    participants: u64,
    /// The shard of the conversation's events.
    shard: u32,
    changed: bool,
    /// The shard of the event that announces the changes of a large conversation.
    changes_shard: Option<u32>,
}

impl LockedConversation {
    /// Begins a transaction and locks the conversation. A call may lock only one. `by` is the caller, `about`
    /// the subject of the request.
    pub fn lock(id: Id, by: &str, about: &str) -> Result<Self, Problem> {
        let transaction = postgres::begin()?;
        // The lock is a statement of its own, so that the next statement sees what the previous holder
        // committed.
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
            participants: read.present,
            caller: role(read.asker),
            subject: role(read.subject),
            is_self: by == about,
        };
        let Read { head_seq, head_id, shard, present, .. } = read;
        Ok(Self {
            id,
            state,
            transaction,
            now,
            head_seq,
            head_id,
            participants: present,
            shard,
            changed: false,
            changes_shard: None,
        })
    }

    /// Adds a participant, possibly one who had left before. Returns the participant as JSON.
    pub fn add(&mut self, added: ParticipantChange<'_>) -> Result<String, Problem> {
        let by_themself = added.user == added.by;
        // The seq of the system message, or the head if there is none.
        let seq = if self.is_large() { self.head_seq } else { self.head_seq + 1 };
        let params = params![self.id, added.user, added.role.as_str(), seq, self.now, by_themself];
        let participant: Option<String> = self.transaction.query(ADMIT, &params)?.cell()?;
        let participants = self.participants + 1;
        let content = if added.user == added.by { "joined" } else { "added" };
        self.announce_participant(added, "join", content, participants)?;
        participant.ok_or_else(Problem::internal)
    }

    /// Removes a participant. The event that ends the user's subscriptions precedes the system message.
    pub fn remove(&mut self, removed: ParticipantChange<'_>) -> Result<(), Problem> {
        self.transaction.execute(PART, &params![self.id, removed.user, self.now, self.head_seq + 1])?;
        let participants = self.participants.saturating_sub(1);
        let content = if removed.user == removed.by { "left" } else { "removed" };
        self.announce_participant(removed, "leave", content, participants)
    }

    /// Whether the next change is announced together with others.
    fn is_large(&self) -> bool {
        self.participants > LARGE_ABOVE
    }

    /// Deletes the conversation, because nobody is left in it and nobody can join it.
    pub fn end(&mut self) -> Result<(), Problem> {
        self.transaction.execute(END, &params![self.id, self.now])?;
        Ok(())
    }

    /// Hides a direct conversation from the user's list until its next message.
    pub fn hide(&mut self, user: &str, role: Role) -> Result<(), Problem> {
        self.transaction.execute(HIDE, &params![self.id, user, self.head_seq])?;
        self.announce_to_user(outbox::PARTICIPANT_LEFT, user, role)
    }

    /// Shows a hidden conversation in the user's list again.
    pub fn show(&mut self, user: &str, role: Role) -> Result<(), Problem> {
        self.transaction.execute(SHOW, &params![self.id, user])?;
        self.announce_to_user(outbox::PARTICIPANT_JOINED, user, role)
    }

    /// Announces a change to the user's own connections only.
    fn announce_to_user(&mut self, event_type: &str, user: &str, role: Role) -> Result<(), Problem> {
        let event = json!({
            "conversation_id": self.id, "user_id": user, "role": role.as_str(), "by": user, "quiet": true,
        });
        self.announce(event_type, &event.to_string())
    }

    /// Sets roles, in the given order, because at most one participant may be the owner at any time. One
    /// event announces all of them.
    pub fn set_roles(&mut self, roles: &[(&str, Role)], by: &str) -> Result<(), Problem> {
        for (user, role) in roles {
            self.transaction.execute(GIVE, &params![self.id, *user, role.as_str()])?;
        }
        let people: Vec<_> =
            roles.iter().map(|(user, role)| json!({ "user_id": user, "role": role.as_str() })).collect();
        self.announce_update(by, Some(json!(people).to_string()))
    }

    /// Announces that the conversation changed. `participants` is JSON of the participants whose role
    /// changed.
    pub fn announce_update(&mut self, by: &str, participants: Option<String>) -> Result<(), Problem> {
        let participants =
            participants.map_or_else(String::new, |people| format!(r#","participants":{people}"#));
        let event = format!(r#"{{"conversation":{},"by":{}{participants}}}"#, self.to_json()?, json!(by));
        self.announce(outbox::CONVERSATION_UPDATED, &event)
    }

    /// Writes an event of this conversation. Consumers get it after the events that were announced before it.
    pub fn announce(&mut self, event_type: &str, payload: &str) -> Result<(), Problem> {
        let params = params![self.id, Id::make(), event_type, payload];
        self.transaction.execute(ANNOUNCE, &params)?;
        self.changed = true;
        Ok(())
    }

    /// States that a statement of the caller has written events, so that `commit` wakes the outbox.
    pub fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// The conversation as responses show it, as JSON without its participants.
    pub fn to_json(&self) -> Result<String, Problem> {
        let text: Option<String> = self.transaction.query(TEXT, &params![self.id])?.cell()?;
        text.ok_or_else(Problem::internal)
    }

    pub fn commit(self) -> Result<(), Problem> {
        self.transaction.commit()?;
        let shards: Vec<u32> =
            self.changed.then_some(self.shard).into_iter().chain(self.changes_shard).collect();
        if !shards.is_empty() {
            wake::outbox(&shards);
        }
        Ok(())
    }

    /// Announces a change after which there are this many participants: by a message, or in a large
    /// conversation by counting it.
    fn announce_participant(
        &mut self,
        change: ParticipantChange<'_>,
        kind: &str,
        content: &str,
        participants: u64,
    ) -> Result<(), Problem> {
        if self.is_large() {
            self.count(change, kind, participants)?;
        } else {
            self.add_system_message(change, kind, content)?;
        }
        self.participants = participants;
        Ok(())
    }

    /// Writes the event for the user's own connections, and counts the change for the other participants.
    fn count(&mut self, change: ParticipantChange<'_>, kind: &str, participants: u64) -> Result<(), Problem> {
        let ParticipantChange { user, role, by } = change;
        let params = params![self.id, user, role.as_str(), by, kind, participants, Id::make(), Id::make()];
        let shard: Option<Option<u32>> = self.transaction.query(COUNT, &params)?.cell()?;
        self.changes_shard = self.changes_shard.or(shard.flatten());
        self.changed = true;
        Ok(())
    }

    /// Writes the message of type `join` or `leave`, whose sender is the acting user, and the events of the
    /// change.
    fn add_system_message(
        &mut self,
        change: ParticipantChange<'_>,
        kind: &str,
        content: &str,
    ) -> Result<(), Problem> {
        let params = params![
            self.id,
            change.user,
            change.role.as_str(),
            change.by,
            kind,
            content,
            self.head_seq + 1,
            self.head_id,
            Id::make(),
            Id::make(),
            self.now,
        ];
        let message: Option<Id> = self.transaction.query(SAY, &params)?.cell()?;
        self.head_id = Some(message.ok_or_else(Problem::internal)?);
        self.head_seq += 1;
        self.changed = true;
        Ok(())
    }
}
