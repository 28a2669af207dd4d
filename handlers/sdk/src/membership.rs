//! How a person becomes a participant: one transaction for the participant, the message that says so and the events.
//! Used by every handler that admits people, so that all of them follow the same rules. It does not remove anybody.

use crate::conversation::Role;
use crate::postgres::{self, Transaction};
use crate::{Id, Problem, clock, outbox, params, time, wake};

const LOCK: &str = "select switchboard.lock($1::text[])";
const ADMIT: &str = include_str!("membership/admit.sql");
const FIND: &str = "select id from app.conversations where slug = $1 and deleted_at is null";

crate::rows! {
    /// What came of it: the participant as answers show it.
    pub struct Admitted { verdict: String, participant: Option<String>, conversation: Option<String>, shard: Option<u32> }
}

impl Admitted {
    /// They were not there before.
    pub fn is_new(&self) -> bool {
        self.verdict == "admitted"
    }
}

/// A conversation by its id or its slug.
pub fn find(name: &str) -> Result<Id, Problem> {
    if let Some(id) = Id::parse(name) {
        return Ok(id);
    }
    if !is_slug(name) {
        return Err(Problem::not_found("conversation"));
    }
    let found: Option<Id> = postgres::query(FIND, &params![name])?.cell()?;
    found.ok_or_else(|| Problem::not_found("conversation"))
}

/// Lower-case letters, digits and dashes; never the writing of an id.
pub fn is_slug(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && Id::parse(name).is_none()
}

/// `by` is the person themself, who may join public channels, or a participant who may add people.
pub fn admit(conversation: Id, user: &str, role: Role, by: &str) -> Result<Admitted, Problem> {
    let transaction = postgres::begin()?;
    let admitted = admit_in(&transaction, conversation, user, role, by)?;
    transaction.commit()?;
    if let (true, Some(shard)) = (admitted.is_new(), admitted.shard) {
        wake::outbox(&[shard]);
    }
    Ok(admitted)
}

/// The same inside a transaction of the caller, who commits and wakes the outbox.
pub fn admit_in(
    transaction: &Transaction,
    conversation: Id,
    user: &str,
    role: Role,
    by: &str,
) -> Result<Admitted, Problem> {
    let now = clock::now_ms();
    // A statement of its own, so that the next one sees what the last holder of the lock committed.
    transaction.query(LOCK, &params![vec![outbox::key(conversation)]])?;
    let rows = transaction.query(
        ADMIT,
        &params![
            conversation,
            user,
            role.as_str(),
            by,
            Id::make(),
            Id::make(),
            Id::floor(time::month_start(now)),
            now
        ],
    )?;
    let admitted: Option<Admitted> = rows.one()?;
    let admitted = admitted.ok_or_else(|| Problem::not_found("conversation"))?;
    match admitted.verdict.as_str() {
        "admitted" | "already" => Ok(admitted),
        "not_found" => Err(Problem::not_found("conversation")),
        "managed_by_class" => Err(Problem::managed_by_class()),
        "direct" => Err(Problem::forbidden("nobody is added to a direct conversation")),
        "forbidden" => Err(Problem::forbidden("owner and admins only")),
        "owner_only" => Err(Problem::forbidden("the owner only makes admins")),
        "archived" => Err(Problem::archived()),
        "full" => Err(Problem::conversation_full()),
        _ => Err(Problem::internal()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_plain_and_never_look_like_ids() {
        assert!(is_slug("cs-101") && is_slug("a"));
        for bad in ["", "CS", "a b", "ü", "019a9fd9-277b-7fff-bfff-ffffffffffff", &"x".repeat(101)] {
            assert!(!is_slug(bad), "{bad:?}");
        }
    }
}
