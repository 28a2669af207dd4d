//! Who hears that somebody's status changed: the people who are subscribed to a conversation in which both are engaged
//! (`app.participants.engaged`), and the watchers who may see them. A connection that is reached on several ways hears it
//! once: the host drops what it has just said to it.
//!
//! Nearly always everyone in a conversation is engaged, or all but one: then one publication to the conversation is enough.
//! Where several are not, those who are engaged and subscribed hear it on their own connections.

use chat::{address, keys};
use std::collections::{BTreeMap, BTreeSet};

use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::postgres::{self, FromRow, Value};
use sdk::redis::{self, Pipeline};
use sdk::{Id, config, frame, log, params};

use crate::rules;
use crate::watch;

const AUDIENCE: &str = include_str!("sql/audience.sql");
const ENGAGED: &str = include_str!("sql/engaged.sql");
/// Publications of one call to the bus.
const PUBLISH_MAX: usize = 500;

sdk::rows! {
    struct Heard { user_id: String, conversation_id: Id, unengaged: Vec<String> }
    struct Engaged { conversation_id: Id, user_id: String }
}

/// Where a change is published, and to whom of them it is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    address: String,
    except_user: Option<String>,
}

impl Address {
    fn of_user(user: &str) -> Self {
        Self { address: address::user(user), except_user: None }
    }
}

type Audience = BTreeMap<String, BTreeSet<Address>>;

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
        audience.entry(watched).or_default().extend(watchers.iter().map(|user| Address::of_user(user)));
    }
    let publications = |user: &str, addresses: &BTreeSet<Address>| -> Vec<Publication> {
        let frame = frame::push("presence.update", latest[user]);
        let publication = |to: &Address| Publication {
            merge_key: Some(format!("presence:{user}")),
            except_user: to.except_user.clone(),
            ..Publication::new(to.address.clone(), frame.clone())
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

fn audience(users: Vec<String>) -> Result<Audience, Trouble> {
    let most = config::number("participants_max", 1000);
    let (mut audience, mut mixed) = (Audience::new(), BTreeMap::<Id, Vec<String>>::new());
    for Heard { user_id, conversation_id, mut unengaged } in query::<Heard>(AUDIENCE, &params![users, most])?
    {
        if unengaged.len() > 1 {
            mixed.entry(conversation_id).or_default().push(user_id);
        } else {
            let address = address::conversation(conversation_id);
            let to = Address { address, except_user: unengaged.pop() };
            audience.entry(user_id).or_default().insert(to);
        }
    }
    for (conversation, viewers) in engaged_lookers(mixed.keys().copied())? {
        for user in &mixed[&conversation] {
            let viewers =
                viewers.iter().filter(|viewer| *viewer != user).map(|viewer| Address::of_user(viewer));
            audience.entry(user.clone()).or_default().extend(viewers);
        }
    }
    Ok(audience)
}

/// The people who are subscribed to these conversations and engaged there. Somebody whose node died may be among them:
/// nothing reaches them.
fn engaged_lookers(conversations: impl Iterator<Item = Id>) -> Result<BTreeMap<Id, Vec<String>>, Trouble> {
    let conversations: Vec<Id> = conversations.collect();
    if conversations.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut pipeline = Pipeline::new();
    for conversation in &conversations {
        pipeline.push(&["HVALS", &keys::looking(*conversation)]);
    }
    let replies = pipeline.run().map_err(|error| Trouble::Away(redis::describe(&error)))?;
    let lookers = conversations.iter().zip(&replies);
    let pairs: BTreeSet<(Id, &str)> =
        lookers.flat_map(|(conversation, reply)| reply.texts().map(|user| (*conversation, user))).collect();
    let (of, people): (Vec<Id>, Vec<String>) =
        pairs.into_iter().map(|(conversation, user)| (conversation, user.to_owned())).unzip();
    let mut engaged = BTreeMap::<Id, Vec<String>>::new();
    for row in query::<Engaged>(ENGAGED, &params![of.as_slice(), people])? {
        engaged.entry(row.conversation_id).or_default().push(row.user_id);
    }
    Ok(engaged)
}

fn query<T: FromRow>(statement: &str, params: &[Value]) -> Result<Vec<T>, Trouble> {
    let rows = postgres::query(statement, params).map_err(|error| {
        let trouble = if error.is_transient() { Trouble::Away } else { Trouble::Failed };
        trouble(format!("{error:?}"))
    })?;
    rows.all::<T>().map_err(|mismatch| Trouble::Failed(mismatch.to_string()))
}

fn watchers(latest: &BTreeMap<String, &str>) -> Result<BTreeMap<String, Vec<String>>, Trouble> {
    watch::watchers(latest.keys().map(String::as_str)).map_err(|trouble| match trouble {
        watch::Trouble::Redis(why) => Trouble::Away(why),
        watch::Trouble::Postgres(problem) if problem.status == 503 => Trouble::Away(problem.code),
        watch::Trouble::Postgres(problem) => Trouble::Failed(problem.code),
    })
}
