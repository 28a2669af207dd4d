//! Makes one change in one transaction: it locks the conversation, reads the message, and writes the change
//! with its event.

use chat::conversation::Role;
use chat::{membership, outbox};
use sdk::{Id, Problem, clock, params, postgres, wake};

use crate::rules::{Change, MessageState, Status, Target};

const LOCK: &str = "select switchboard.lock($1::text[])";
const LOOK: &str = include_str!("sql/look.sql");
const CHANGE: &str = include_str!("sql/change.sql");

sdk::rows! {
    struct Found {
        role: String, sender_id: String, is_text: bool, is_archived: bool, is_deleted: bool, content: String,
        mentions: Option<String>, seq: u64, change: Option<u64>, message: String,
    }
    struct Written { seq: u64, change: Option<u64>, message: String, shard: u32 }
}

/// The message after the request. `change` is its latest change; `None` if it was never changed.
pub(crate) struct Changed {
    pub seq: u64,
    pub change: Option<u64>,
    /// The message as responses and pushes show it, in JSON.
    pub message: String,
    /// Whether the request changed the message.
    pub is_new: bool,
}

pub(crate) fn change(target: Target, user: &str, change: &Change) -> Result<Changed, Problem> {
    let transaction = postgres::begin()?;
    // The lock is a statement of its own, so that the next statement sees what the previous holder committed.
    transaction.query(LOCK, &params![vec![outbox::key(target.conversation)]])?;
    let found: Option<Found> =
        transaction.query(LOOK, &params![target.conversation, user, target.message])?.one()?;
    let found = found.ok_or_else(|| membership::unseen(target.conversation, user, "message"))?;
    if found.state(user)?.check(change)? == Status::Done {
        // Nothing was written, so the rollback of the transaction loses nothing.
        return Ok(Changed { seq: found.seq, change: found.change, message: found.message, is_new: false });
    }
    let (content, mentions, keeps_mentions) = match change {
        Change::Edit { content, mentions } => {
            (content.as_str(), mentions.clone().flatten(), mentions.is_none())
        }
        Change::Delete => ("", None, false),
    };
    let written: Option<Written> = transaction
        .query(
            CHANGE,
            &params![
                target.conversation,
                user,
                target.message,
                change.kind(),
                content,
                mentions,
                keeps_mentions,
                Id::make(),
                clock::now_ms()
            ],
        )?
        .one()?;
    let written = written.ok_or_else(Problem::internal)?;
    wake::outbox(&[written.shard]);
    transaction.commit()?;
    Ok(Changed { seq: written.seq, change: written.change, message: written.message, is_new: true })
}

impl Found {
    fn state(&self, user: &str) -> Result<MessageState, Problem> {
        Ok(MessageState {
            role: Role::parse(&self.role).ok_or_else(Problem::internal)?,
            is_own: self.sender_id == user,
            is_text: self.is_text,
            is_archived: self.is_archived,
            is_deleted: self.is_deleted,
            content: self.content.clone(),
            mentions: self.mentions.clone(),
        })
    }
}
