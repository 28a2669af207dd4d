//! Keeps the leases of connections, and derives from them which users are online. A lease ends when its
//! connection closes, when it is not renewed, or when its node dies. While Redis is unavailable, no change is
//! announced. Afterwards the nodes' reports restore the leases.

mod busy;
mod epoch;
mod leases;
mod store;

use std::collections::BTreeSet;

use busy::Plan;
use chat::keys;
use chat::presence::{self, Change};
use epoch::Age;
use leases::Swept;
use sdk::connection::{self, Touch};
use sdk::connection_batch::{self, Closed, Opened, Opening};
use sdk::schedule::{self, Tick};
use sdk::{log, redis};

/// The users who are checked after a loss of Redis. The status of further ones is corrected when they next
/// connect.
const CHECKED_MAX: u64 = 100_000;
/// The changes of several partitions are announced together once there are so many. A statement for 600
/// changes takes about as long as two for 150 each.
const ANNOUNCED_TOGETHER: usize = 500;

struct PresenceSweep;
connection::export!(PresenceSweep);
connection_batch::export!(PresenceSweep);
schedule::export!(PresenceSweep);

impl connection_batch::Handler for PresenceSweep {
    fn open(node: String, opened: Vec<Opened>) -> Vec<Opening> {
        // A failure here never refuses a connection. The next connection or the sweep announces the status.
        let mut unlisted = vec![true; opened.len()];
        match leases::open(&node, &opened) {
            Ok(openings) => {
                unlisted = openings.iter().map(|opening| opening.unlisted).collect();
                let changes: Vec<Change> = openings.into_iter().flat_map(|opening| opening.changes).collect();
                announce(&changes);
            }
            Err(error) => log::warn("no lease for a connection", &[("why", &redis::describe(&error))]),
        }
        if let Err(problem) = store::opened(&node, &opened, &unlisted) {
            log::warn("the event of an opened connection was not written", &[("why", &problem.code)]);
            let unlisted = opened.iter().zip(unlisted).filter(|(_, unlisted)| *unlisted);
            leases::unlist(unlisted.map(|(opened, _)| &*opened.caller.user_id));
        }
        opened.iter().map(|_| Opening::Pushes(Vec::new())).collect()
    }

    fn close(node: String, closed: Vec<Closed>) {
        let connections = || closed.iter().map(|closed| &*closed.connection);
        if let Err(error) = leases::close(&node, &closed).and_then(|()| leases::forget(connections())) {
            // The leases expire, because they are not renewed.
            log::warn("a lease was not ended", &[("why", &redis::describe(&error))]);
        }
        if let Err(problem) = store::closed(&node, &closed) {
            log::warn("the event of a closed connection was not written", &[("why", &problem.code)]);
        }
    }
}

impl connection::Handler for PresenceSweep {
    fn touched(node: String, touches: Vec<Touch>) {
        match leases::renew(&node, &touches) {
            Ok(changes) => announce(&changes),
            Err(error) => log::warn("leases were not renewed", &[("why", &redis::describe(&error))]),
        }
    }
}

impl schedule::Handler for PresenceSweep {
    fn run(tick: Tick) -> Result<(), String> {
        match tick.name.as_str() {
            "heartbeat" => leases::heartbeat(&tick.node).map_err(|error| redis::describe(&error)),
            "sweep" => sweep(Plan::at(tick.due_ms)),
            other => Err(format!("no schedule `{other}`")),
        }
    }
}

fn sweep(plan: Plan) -> Result<(), String> {
    let describe = |error| redis::describe(&error);
    let (busy, has_dead_nodes) = busy::read(plan).map_err(describe)?;
    let age = if busy.is_corrected { Age::Corrected } else { epoch::read().map_err(describe)? };
    let all = plan.all || has_dead_nodes || !busy.is_scanned;
    let partitions =
        if all { (0..keys::PRESENCE_PARTITIONS).collect::<BTreeSet<_>>() } else { busy.partitions };
    let (mut dead, mut waiting) = (0, Vec::new());
    let announce = |changes: &[Change]| presence::announce(changes).map_err(|problem| problem.detail);
    let swept = leases::sweep(age == Age::Young, &partitions, |Swept { changes, reaped }| {
        waiting.extend(changes);
        if waiting.len() >= ANNOUNCED_TOGETHER {
            announce(&std::mem::take(&mut waiting))?;
        }
        if !reaped.is_empty() {
            dead += reaped.len();
            leases::forget(reaped.iter().map(String::as_str)).map_err(describe)?;
        }
        Ok(())
    });
    // If the sweep failed, it announces what it found before.
    announce(&waiting)?;
    swept?;
    if dead > 0 {
        log::info("a node is dead, its connections are gone", &[("connections", &dead.to_string())]);
    }
    if all {
        busy::add_all().map_err(describe)?;
    } else if plan.clean {
        busy::clean(&partitions).map_err(describe)?;
    }
    if age == Age::Corrected && !busy.is_corrected {
        busy::corrected().map_err(describe)?;
    }
    if age == Age::Collected {
        let online = store::online(CHECKED_MAX).map_err(|problem| problem.detail)?;
        epoch::check(&online).map_err(describe)?;
    }
    Ok(())
}

fn announce(changes: &[Change]) {
    if let Err(problem) = presence::announce(changes) {
        log::warn("a status was not announced; the next sweep announces it", &[("why", &problem.code)]);
    }
}
