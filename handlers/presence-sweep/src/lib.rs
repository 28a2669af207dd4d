//! Keeps the leases of connections, and from them says who is there and who is gone. A lease ends with its connection,
//! when nobody renews it, or with its node. Without Redis nothing is known and nobody is announced; leases come back with
//! the reports of their nodes.

mod epoch;
mod leases;
mod store;

use chat::presence::{self, Change};
use epoch::Age;
use leases::Swept;
use sdk::connection::{self, Closed, Opened, Touch};
use sdk::schedule::{self, Tick};
use sdk::{Problem, Push, log, redis};

/// Looked at once more after Redis was lost; who is beyond is found gone when they next come and go.
const ACCOUNTED_MAX: u64 = 100_000;

struct PresenceSweep;
connection::export!(PresenceSweep);
schedule::export!(PresenceSweep);

impl connection::Handler for PresenceSweep {
    fn open(opened: Opened) -> Result<Vec<Push>, Problem> {
        // A connection never fails for this: what is not told here is told by the next one, or by the sweep.
        let mut unlisted = true;
        match leases::begin(&opened) {
            Ok(begun) => {
                unlisted = begun.unlisted;
                announce(&begun.changes);
            }
            Err(error) => log::warn("no lease for a connection", &[("why", &redis::describe(&error))]),
        }
        if let Err(problem) = store::arrived(&opened, unlisted) {
            log::warn("not noted that a connection began", &[("why", &problem.code)]);
            if unlisted {
                leases::unlist(&opened.caller.user_id);
            }
        }
        Ok(Vec::new())
    }

    fn close(closed: Closed) {
        let ended = leases::end(&closed).and_then(|()| leases::forget([&*closed.connection]));
        if let Err(error) = ended {
            // It ends by itself when nobody renews it.
            log::warn("a lease was not ended", &[("why", &redis::describe(&error))]);
        }
        if let Err(problem) = store::left(&closed) {
            log::warn("not noted that a connection ended", &[("why", &problem.code)]);
        }
    }

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
            "sweep" => sweep(),
            other => Err(format!("no schedule `{other}`")),
        }
    }
}

fn sweep() -> Result<(), String> {
    let describe = |error| redis::describe(&error);
    let age = epoch::read().map_err(describe)?;
    let mut dead = 0;
    leases::sweep(age == Age::Young, |Swept { changes, reaped }| {
        if !reaped.is_empty() {
            dead += reaped.len();
            leases::forget(reaped.iter().map(String::as_str)).map_err(describe)?;
        }
        presence::announce(&changes).map_err(|problem| problem.detail)
    })?;
    if dead > 0 {
        log::info("a node is dead, its connections are gone", &[("connections", &dead.to_string())]);
    }
    if age == Age::Gathered {
        let here = store::said_to_be_here(ACCOUNTED_MAX).map_err(|problem| problem.detail)?;
        epoch::account(&here).map_err(describe)?;
    }
    Ok(())
}

fn announce(changes: &[Change]) {
    if let Err(problem) = presence::announce(changes) {
        log::warn("a status is told later", &[("why", &problem.code)]);
    }
}
