//! Keeps the leases of connections, and from them says who is online and who is gone. A lease ends with its connection,
//! when nobody renews it, or with its node. Without Redis nothing is known and nobody is announced; leases come back with
//! the next heartbeats.

mod leases;
mod store;

use leases::{Begun, Gone, Swept};
use sdk::connection::{self, Closed, Opened, Touch};
use sdk::schedule::{self, Tick};
use sdk::{Problem, Push, clock, log, outbox, redis, time};
use serde_json::json;
use store::Change;

struct PresenceSweep;
connection::export!(PresenceSweep);
schedule::export!(PresenceSweep);

impl connection::Handler for PresenceSweep {
    fn open(opened: Opened) -> Result<Vec<Push>, Problem> {
        // A connection never waits for its directory entry: what fails here is made good by the next one.
        let now = clock::now_ms();
        match leases::begin(&opened, now) {
            Ok(begun) => begin(&opened, &begun, now),
            Err(error) => log::warn("no lease for a connection", &[("why", &redis::describe(&error))]),
        }
        Ok(Vec::new())
    }

    fn close(closed: Closed) {
        let ended = leases::end(&closed, clock::now_ms());
        let ended = ended.and_then(|()| leases::forget_looks(&closed.connection));
        if let Err(error) = ended {
            // It ends by itself when nobody renews it.
            log::warn("a lease was not ended", &[("why", &redis::describe(&error))]);
        }
    }

    fn touched(node: String, touches: Vec<Touch>) {
        if let Err(error) = leases::renew(&node, &touches, clock::now_ms()) {
            log::warn("leases were not renewed", &[("why", &redis::describe(&error))]);
        }
    }
}

impl schedule::Handler for PresenceSweep {
    fn run(tick: Tick) -> Result<(), String> {
        match tick.name.as_str() {
            "heartbeat" => {
                leases::heartbeat(&tick.node, clock::now_ms()).map_err(|error| redis::describe(&error))
            }
            "sweep" => sweep(clock::now_ms()),
            other => Err(format!("no schedule `{other}`")),
        }
    }
}

fn begin(opened: &Opened, begun: &Begun, now: u64) {
    let user = &opened.caller.user_id;
    if begun.unlisted && store::list(&opened.caller).is_err() {
        leases::unlist(user);
    }
    if begun.was_offline
        && let Err(problem) = store::announce(outbox::USER_ONLINE, &[change(user, "online", now)])
    {
        log::warn("not announced that somebody is online", &[("why", &problem.code)]);
    }
}

fn sweep(now: u64) -> Result<(), String> {
    let Swept { gone, reaped } = leases::sweep(now).map_err(|error| redis::describe(&error))?;
    if reaped > 0 {
        log::info("a node is dead, its connections are gone", &[("connections", &reaped.to_string())]);
    }
    let changes: Vec<_> =
        gone.iter().map(|Gone { user, last_seen_ms }| change(user, "offline", *last_seen_ms)).collect();
    store::announce(outbox::USER_OFFLINE, &changes).map_err(|problem| problem.detail)
}

fn change(user: &str, status: &str, last_seen_ms: u64) -> Change {
    let payload = json!({ "user_id": user, "status": status, "last_seen": time::rfc3339(last_seen_ms) });
    Change { user: user.to_owned(), payload: payload.to_string() }
}
