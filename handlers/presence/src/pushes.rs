//! Who hears that somebody's status changed: everyone subscribed to a conversation with them, and who watches them. A
//! connection that is reached on several ways hears it once: the host drops what it has just said to it.

use std::collections::BTreeMap;

use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::postgres::{self, Error};
use sdk::{Id, config, frame, log, params};

use crate::rules;
use crate::watch::{self, Trouble};

const AUDIENCE: &str = include_str!("sql/audience.sql");
/// Publications of one call to the bus.
const PUBLISH_MAX: usize = 500;

sdk::rows! {
    struct Heard { user_id: String, conversation_id: Id }
}

pub fn tell(events: &[Event]) -> Vec<Verdict> {
    let (latest, read) = rules::latest(events);
    match publish(&latest) {
        Ok(()) => read.into_iter().map(|read| read.map_or_else(Verdict::Reject, |()| Verdict::Ack)).collect(),
        Err(Outage(why)) => {
            log::warn("presence is told later", &[("why", &why)]);
            event::all(events, Verdict::Hold(event::RETRY_MS))
        }
    }
}

/// Something behind us is away, and comes back.
struct Outage(String);

fn publish(latest: &BTreeMap<String, &str>) -> Result<(), Outage> {
    if latest.is_empty() {
        return Ok(());
    }
    let users: Vec<String> = latest.keys().cloned().collect();
    let mut audience = audience(users)?;
    for (watched, watchers) in watchers(latest)? {
        audience.entry(watched).or_default().extend(watchers.iter().map(|user| channels::user(user)));
    }
    let mut publications = Vec::new();
    for (user, addresses) in &audience {
        let frame = frame::push("presence.update", latest[user]);
        publications.extend(addresses.iter().map(|address| Publication {
            merge_key: Some(format!("presence:{user}")),
            ..Publication::new(address.clone(), frame.clone())
        }));
    }
    for some in publications.chunks(PUBLISH_MAX) {
        match channels::publish(some) {
            Ok(()) => {}
            // A name that is no address hears nothing; the others must not wait for it.
            Err(channels::Error::Refused(why)) => log::error("presence refused", &[("why", &why)]),
            Err(other) => return Err(Outage(format!("{other:?}"))),
        }
    }
    Ok(())
}

fn audience(users: Vec<String>) -> Result<BTreeMap<String, Vec<String>>, Outage> {
    let most = config::number("participants_max", 1000);
    let heard = match postgres::query(AUDIENCE, &params![users, most]) {
        Ok(rows) => rows.all::<Heard>().map_err(|mismatch| Outage(mismatch.to_string()))?,
        Err(error @ (Error::Busy | Error::Deadline | Error::Retryable(_) | Error::UnknownOutcome)) => {
            return Err(Outage(format!("{error:?}")));
        }
        // Told to nobody rather than never again to anybody.
        Err(error) => {
            log::error("no audience for presence", &[("why", &format!("{error:?}"))]);
            Vec::new()
        }
    };
    let mut audience = BTreeMap::<String, Vec<String>>::new();
    for Heard { user_id, conversation_id } in heard {
        audience.entry(user_id).or_default().push(channels::conversation(conversation_id));
    }
    Ok(audience)
}

fn watchers(latest: &BTreeMap<String, &str>) -> Result<BTreeMap<String, Vec<String>>, Outage> {
    match watch::watchers(latest.keys().map(String::as_str)) {
        Ok(watchers) => Ok(watchers),
        Err(Trouble::Redis(why)) => Err(Outage(why)),
        Err(Trouble::Postgres(problem)) if problem.status == 503 => Err(Outage(problem.code)),
        Err(Trouble::Postgres(_)) => Ok(BTreeMap::new()),
    }
}
