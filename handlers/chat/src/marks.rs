//! How far a person has been delivered to and has read: raised here, by every handler that does, so that all follow the
//! same rules. They are in `app.mark`, beside the data: a mark only rises, never beyond the head, each rise is logged and
//! announced. A caller needs no grant but `execute` on that function, and `wake = ["outbox"]`.

use std::collections::BTreeMap;

use sdk::postgres::{self, Collected};
use sdk::{Id, Problem, params, wake};

/// Of one call.
pub const POSITIONS_MAX: usize = 500;
/// Flights of collected marks at a time. One person's marks always take the same.
const LANES: u64 = 2;

const DELIVERED: &str =
    "select call, moved, shard from app.mark($1::int[], $2::text[], $3::text[], $4::json[])";

sdk::rows! {
    struct Raised { moved: bool, shard: u32 }
}

/// Everything through these seqs has reached one of the user's devices. Conversations that the user is not in are passed
/// over. At most [`POSITIONS_MAX`].
pub fn deliver(user: &str, positions: &BTreeMap<Id, u64>) -> Result<(), Problem> {
    if positions.is_empty() {
        return Ok(());
    }
    let raised: Vec<Raised> =
        postgres::collect(&collected(DELIVERED, user, "delivered", positions))?.all()?;
    wake(raised.into_iter().filter(|raised| raised.moved).map(|raised| raised.shard));
    Ok(())
}

/// One statement over `app.mark`, whose first column is the number of the call. Marks come in crowds, one from every
/// reader of a message: those that come together share a transaction.
pub fn collected(statement: &str, user: &str, kind: &str, positions: &BTreeMap<Id, u64>) -> Collected {
    Collected {
        statements: vec![statement.to_owned()],
        row: params![user, kind, json(positions)].to_vec(),
        lane: (user.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte)) % LANES) as u32,
    }
}

/// The outbox of these shards has something new.
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
