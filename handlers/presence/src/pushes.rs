//! Who hears that somebody's status changed: everyone subscribed to a conversation with them, and who watches them. A
//! connection that is reached on several ways hears it once: the host drops what it has just said to it.

use std::collections::BTreeMap;

use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::postgres;
use sdk::{Id, config, frame, log, params};

use crate::rules;
use crate::watch;

const AUDIENCE: &str = include_str!("sql/audience.sql");
/// Publications of one call to the bus.
const PUBLISH_MAX: usize = 500;

sdk::rows! {
    struct Heard { user_id: String, conversation_id: Id }
}

pub fn tell(events: &[Event]) -> Vec<Verdict> {
    let (latest, read) = rules::latest(events);
    match publish(&latest) {
        Ok(refused) => read.into_iter().map(|read| verdict(read, &refused)).collect(),
        Err(Trouble::Away(why)) => {
            log::warn("presence is told later", &[("why", &why)]);
            event::all(events, Verdict::Hold(event::RETRY_MS))
        }
        // All of them, or one would be told behind a later one of the same person. The others go on.
        Err(Trouble::Failed(why)) => {
            log::error("presence is not told", &[("why", &why)]);
            let again = |_| Verdict::Retry(event::RETRY_MS);
            read.into_iter().map(|read| read.map_or_else(Verdict::Reject, again)).collect()
        }
    }
}

/// Whose changes the bus never takes, and why.
type Refused = BTreeMap<String, String>;

fn verdict(read: Result<String, String>, refused: &Refused) -> Verdict {
    match read.map(|user| refused.get(&user)) {
        Ok(None) => Verdict::Ack,
        Ok(Some(why)) => Verdict::Reject(why.clone()),
        Err(why) => Verdict::Reject(why),
    }
}

/// Why nobody was told.
enum Trouble {
    /// Something behind us, which comes back.
    Away(String),
    /// A statement, perhaps never again.
    Failed(String),
}

fn publish(latest: &BTreeMap<String, &str>) -> Result<Refused, Trouble> {
    if latest.is_empty() {
        return Ok(Refused::new());
    }
    let users: Vec<String> = latest.keys().cloned().collect();
    let mut audience = audience(users)?;
    for (watched, watchers) in watchers(latest)? {
        audience.entry(watched).or_default().extend(watchers.iter().map(|user| channels::user(user)));
    }
    let publications = |user: &str, addresses: &[String]| -> Vec<Publication> {
        let frame = frame::push("presence.update", latest[user]);
        let publication = |address: &String| Publication {
            merge_key: Some(format!("presence:{user}")),
            ..Publication::new(address.clone(), frame.clone())
        };
        addresses.iter().map(publication).collect()
    };
    let all: Vec<_> = audience.iter().flat_map(|(user, addresses)| publications(user, addresses)).collect();
    if send(&all)?.is_ok() {
        return Ok(Refused::new());
    }
    // One of them is to blame: alone, each shows whether it is the one.
    let mut refused = Refused::new();
    for (user, addresses) in &audience {
        if let Err(why) = send(&publications(user, addresses))? {
            refused.insert(user.clone(), why);
        }
    }
    Ok(refused)
}

/// The inner error is why the bus never takes it.
fn send(publications: &[Publication]) -> Result<Result<(), String>, Trouble> {
    for some in publications.chunks(PUBLISH_MAX) {
        match channels::publish(some) {
            Ok(()) => {}
            Err(channels::Error::Refused(why)) => return Ok(Err(why)),
            Err(other) => return Err(Trouble::Away(format!("{other:?}"))),
        }
    }
    Ok(Ok(()))
}

fn audience(users: Vec<String>) -> Result<BTreeMap<String, Vec<String>>, Trouble> {
    let most = config::number("participants_max", 1000);
    let rows = postgres::query(AUDIENCE, &params![users, most]).map_err(|error| {
        let trouble = if error.passes() { Trouble::Away } else { Trouble::Failed };
        trouble(format!("{error:?}"))
    })?;
    let heard = rows.all::<Heard>().map_err(|mismatch| Trouble::Failed(mismatch.to_string()))?;
    let mut audience = BTreeMap::<String, Vec<String>>::new();
    for Heard { user_id, conversation_id } in heard {
        audience.entry(user_id).or_default().push(channels::conversation(conversation_id));
    }
    Ok(audience)
}

fn watchers(latest: &BTreeMap<String, &str>) -> Result<BTreeMap<String, Vec<String>>, Trouble> {
    watch::watchers(latest.keys().map(String::as_str)).map_err(|trouble| match trouble {
        watch::Trouble::Redis(why) => Trouble::Away(why),
        watch::Trouble::Postgres(problem) if problem.status == 503 => Trouble::Away(problem.code),
        watch::Trouble::Postgres(problem) => Trouble::Failed(problem.code),
    })
}
