//! Marks: the seq up to which messages were delivered to a user, and the seq up to which the user has read.
//! Every handler raises marks through this module. The rules are in the SQL function `app.mark`: a mark only
//! increases, never beyond the head, and each increase is logged and announced. A handler needs `execute` on
//! that function and `wake = ["outbox"]`.

use std::collections::BTreeMap;

use sdk::postgres::{self, Collected};
use sdk::{Id, Problem, params, wake};

/// The marks that one call can raise.
pub const POSITIONS_MAX: usize = 500;
/// The lanes of the group commit. All marks of a user take the same lane.
const LANES: u64 = 2;

const DELIVERED: &str =
    "select call, moved, shard from app.mark($1::int[], $2::text[], $3::text[], $4::json[])";

sdk::rows! {
    struct Raised { moved: bool, shard: u32 }
}

/// Marks everything up to these seqs as delivered to one of the user's devices. It skips conversations in
/// which the user is not a participant. At most [`POSITIONS_MAX`] positions.
pub fn deliver(user: &str, positions: &BTreeMap<Id, u64>) -> Result<(), Problem> {
    if positions.is_empty() {
        return Ok(());
    }
    let raised: Vec<Raised> =
        postgres::collect(&collected(DELIVERED, user, "delivered", positions))?.all()?;
    wake(raised.into_iter().filter(|raised| raised.moved).map(|raised| raised.shard));
    Ok(())
}

/// A collected call of a statement that uses `app.mark`. Every reader of a message sends a mark at about the
/// same time, so concurrent calls share a transaction. The first column of the statement is the number of the
/// call.
pub fn collected(statement: &str, user: &str, kind: &str, positions: &BTreeMap<Id, u64>) -> Collected {
    Collected {
        statements: vec![statement.to_owned()],
        row: params![user, kind, json(positions)].to_vec(),
        lane: (user.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte)) % LANES) as u32,
    }
}

/// Wakes the consumers of these shards of the outbox.
pub fn wake(shards: impl Iterator<Item = u32>) {
    let mut shards: Vec<u32> = shards.collect();
    shards.sort_unstable();
    shards.dedup();
    if !shards.is_empty() {
        wake::outbox(&shards);
    }
}

fn json(positions: &BTreeMap<Id, u64>) -> String {
    let entries: Vec<_> = positions.iter().map(|(id, seq)| format!(r#""{id}":{seq}"#)).collect();
    format!("{{{}}}", entries.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_one_json_object() {
        let id = |last: char| Id::parse(&format!("019a9fd9-277b-7fff-bfff-fffffffffff{last}")).unwrap();
        let positions = [(id('a'), 7), (id('b'), 0)].into();
        assert_eq!(json(&positions), format!(r#"{{"{}":7,"{}":0}}"#, id('a'), id('b')));
        assert_eq!(collected(DELIVERED, "ana", "delivered", &positions).row.len(), 3);
    }
}
