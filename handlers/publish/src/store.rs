//! The SQL statements of this handler.

use chat::problem;
use sdk::{Id, Problem, params, postgres, wake};

use crate::rules::Publication;

const PUBLISH: &str = include_str!("sql/publish.sql");
const REPLAY: &str = include_str!("sql/replay.sql");
const CONVERSATION: &str = include_str!("sql/conversation.sql");
const CLEAN: &str = include_str!("sql/clean.sql");

/// The keys that one statement deletes, and the statements of one run.
const CLEAN_AT_ONCE: u64 = 5000;
const CLEAN_STATEMENTS_MAX: usize = 40;

pub(crate) enum Publish {
    /// The publication is committed as this event.
    Accepted(Id),
    /// Its key was used before for the same publication, which is this event.
    Duplicate(Id),
}

sdk::rows! {
    struct Known { id: Id, fingerprint: i64 }
}

pub(crate) fn publish(publication: &Publication, publisher: &str) -> Result<Publish, Problem> {
    let (id, key) = (Id::make(), publication.key.as_ref());
    let row =
        params![id, &publication.target, publication.event(), publisher, key, publication.fingerprint()];
    let shard: Option<u32> = postgres::query(PUBLISH, &row)?.cell()?;
    if let Some(shard) = shard {
        wake::outbox(&[shard]);
        return Ok(Publish::Accepted(id));
    }
    // No event is known if the first call with this key was rolled back while this call waited for it.
    replay(publication, publisher)?.ok_or_else(Problem::unavailable)
}

/// The earlier publication with the same key; `None` if there is none or the publication has no key.
pub(crate) fn replay(publication: &Publication, publisher: &str) -> Result<Option<Publish>, Problem> {
    let Some(key) = &publication.key else { return Ok(None) };
    let known: Option<Known> = postgres::query(REPLAY, &params![publisher, key])?.one()?;
    match known {
        None => Ok(None),
        Some(known) if known.fingerprint == publication.fingerprint() => {
            Ok(Some(Publish::Duplicate(known.id)))
        }
        Some(_) => Err(problem::idempotency_conflict().with_field("Idempotency-Key")),
    }
}

pub(crate) fn has_conversation(id: Id) -> Result<bool, Problem> {
    Ok(postgres::query(CONVERSATION, &params![id])?.cell()?.unwrap_or(false))
}

/// Deletes old keys. Returns how many were deleted.
pub(crate) fn clean() -> Result<u64, Problem> {
    let mut all = 0;
    for _ in 0..CLEAN_STATEMENTS_MAX {
        let some = postgres::execute(CLEAN, &params![CLEAN_AT_ONCE])?;
        all += some;
        if some < CLEAN_AT_ONCE {
            break;
        }
    }
    Ok(all)
}
