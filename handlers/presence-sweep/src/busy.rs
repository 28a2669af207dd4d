//! Which partitions of presence have entries. An idle fleet has none, and a sweep then reads one set instead
//! of all partitions.
//!
//! The call that makes the first entry of a partition adds the partition to the set, and reports of
//! connections add theirs again. A sweep removes partitions without entries. A call that ends between its
//! entry and its addition leaves a partition out, so some sweeps read all partitions (`Plan`).

use std::collections::BTreeSet;

use chat::keys;
use sdk::clock;
use sdk::redis::{self, Error, Pipeline, Reply};

/// Member of the set once a sweep of all partitions has added those with entries.
const SCANNED: &str = "scanned";
/// Member of the set once `epoch` has nothing left to do, so that it need not be read.
const CORRECTED: &str = "corrected";

/// The work of a sweep beside its main work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Look for dead nodes: their death may have left a partition out.
    pub dead_nodes: bool,
    /// Remove the partitions without entries.
    pub clean: bool,
    /// Read all partitions.
    pub all: bool,
}

impl Plan {
    /// The plan of the sweep that is due at this time.
    pub(crate) fn at(due_ms: u64) -> Self {
        let second = due_ms / 1000;
        Self {
            dead_nodes: second.is_multiple_of(3),
            clean: second.is_multiple_of(10),
            all: second.is_multiple_of(600),
        }
    }
}

/// The set.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Busy {
    pub partitions: BTreeSet<u64>,
    pub is_scanned: bool,
    pub is_corrected: bool,
}

impl Busy {
    fn of<'a>(members: impl Iterator<Item = &'a str>) -> Self {
        let mut busy = Self::default();
        for member in members {
            match member {
                SCANNED => busy.is_scanned = true,
                CORRECTED => busy.is_corrected = true,
                partition => busy.partitions.extend(partition.parse::<u64>()),
            }
        }
        busy.partitions.retain(|partition| *partition < keys::PRESENCE_PARTITIONS);
        busy
    }
}

/// Reads the set, and whether there are dead nodes if the plan asks for it.
pub(crate) fn read(plan: Plan) -> Result<(Busy, bool), Error> {
    let mut pipeline = Pipeline::new();
    pipeline.push(&["SMEMBERS", keys::PRESENCE_BUSY]);
    if plan.dead_nodes {
        pipeline.push(&["ZCOUNT", keys::NODES, "-inf", &clock::now_ms().to_string()]);
    }
    let replies = pipeline.run()?;
    let busy = replies.first().map_or_else(Busy::default, |members| Busy::of(members.texts()));
    let dead = replies.get(1).and_then(Reply::integer).unwrap_or(0);
    Ok((busy, dead > 0))
}

/// Adds partitions to the set.
pub(crate) fn add(partitions: impl IntoIterator<Item = u64>) -> Result<(), Error> {
    add_members(partitions.into_iter().map(|partition| partition.to_string()).collect())
}

fn add_members(members: Vec<String>) -> Result<(), Error> {
    if members.is_empty() {
        return Ok(());
    }
    let mut command = vec!["SADD", keys::PRESENCE_BUSY];
    command.extend(members.iter().map(String::as_str));
    redis::command(&command).map(drop)
}

/// Records that nothing is left to correct after the last loss of Redis.
pub(crate) fn corrected() -> Result<(), Error> {
    add_members(vec![CORRECTED.to_owned()])
}

/// Adds all partitions with entries, after a sweep of all.
pub(crate) fn add_all() -> Result<(), Error> {
    let busy = with_entries(0..keys::PRESENCE_PARTITIONS)?;
    let members = busy.iter().map(u64::to_string).chain([SCANNED.to_owned()]);
    add_members(members.collect())
}

/// Removes those of the partitions that have no entries.
pub(crate) fn clean(partitions: &BTreeSet<u64>) -> Result<(), Error> {
    let busy = with_entries(partitions.iter().copied())?;
    let empty: Vec<u64> = partitions.difference(&busy).copied().collect();
    if empty.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = empty.iter().map(u64::to_string).collect();
    let mut command = vec!["SREM", keys::PRESENCE_BUSY];
    command.extend(names.iter().map(String::as_str));
    redis::command(&command)?;
    // An entry that was made since the first check may have been added before the removal.
    add(with_entries(empty.into_iter())?)
}

fn with_entries(partitions: impl Iterator<Item = u64>) -> Result<BTreeSet<u64>, Error> {
    let partitions: Vec<u64> = partitions.collect();
    let mut pipeline = Pipeline::new();
    for partition in &partitions {
        let [due, grace, idle, changed] =
            ["due", "grace", "idle", "changed"].map(|set| keys::presence_set(*partition, set));
        pipeline.push(&["EXISTS", &due, &grace, &idle, &changed]);
    }
    let replies = pipeline.run()?;
    let counts = partitions.into_iter().zip(&replies);
    Ok(counts.filter(|(_, count)| count.integer() != Some(0)).map(|(partition, _)| partition).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_has_partitions_and_marks() {
        let busy = Busy::of(["7", "scanned", "63", "64", "x"].into_iter());
        let expected = Busy { partitions: [7, 63].into(), is_scanned: true, is_corrected: false };
        assert_eq!(busy, expected);
    }

    #[test]
    fn every_third_sweep_looks_for_dead_nodes_and_one_in_ten_minutes_reads_all() {
        let plans: Vec<Plan> = (0..600).map(|second| Plan::at(1_795_176_000_000 + second * 1000)).collect();
        let count = |is: fn(&Plan) -> bool| plans.iter().filter(|plan| is(plan)).count();
        assert_eq!(count(|plan| plan.dead_nodes), 200);
        assert_eq!(count(|plan| plan.clean), 60);
        assert_eq!(count(|plan| plan.all), 1);
    }
}
