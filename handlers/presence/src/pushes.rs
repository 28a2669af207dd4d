//! Pushes changes of a user's status. Two groups get a push: the subscribers of a conversation in which both
//! users are engaged (`app.participants.engaged`), and the watchers who may see the user. A connection that
//! is reached in several ways gets the push once, because the host drops a frame that it has just sent there.
//!
//! In almost every conversation all users are engaged, or all but one. One publication to the conversation is
//! then enough. If several are not engaged, the push goes to the own connections of the engaged subscribers.

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
/// The publications of one call to the bus.
const PUBLISH_MAX: usize = 500;

sdk::rows! {
    struct Reached { user_id: String, conversation_id: Id, unengaged: Vec<String> }
    struct Engaged { conversation_id: Id, user_id: String }
}

/// An address to which a change is published, without the connections of one user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    address: String,
    except_user: Option<String>,
}

impl Address {
    fn of_user(user: &str) -> Self {
        Self { address: channels::user(user), except_user: None }
    }
}

type Audience = BTreeMap<String, BTreeSet<Address>>;

pub(crate) fn push(events: &[Event]) -> Vec<Verdict> {
    let (latest, read) = rules::latest(events);
    match publish(&latest) {
        Ok(refused) => read.into_iter().map(|read| verdict(read, &refused)).collect(),
        Err(Error::Unavailable(why)) => {
            log::warn("presence is told later", &[("why", &why)]);
            event::all(events, Verdict::Hold(event::RETRY_MS))
        }
        // All events are retried; otherwise an older status of a user could follow a newer one.
        Err(Error::Failed(why)) => {
            log::error("presence is not told", &[("why", &why)]);
            let again = |_| Verdict::Retry(event::RETRY_MS);
            read.into_iter().map(|read| read.map_or_else(Verdict::Reject, again)).collect()
        }
    }
}

/// The users whose changes the bus refuses, each with the reason.
type Refused = BTreeMap<String, String>;

fn verdict(read: Result<String, String>, refused: &Refused) -> Verdict {
    match read.map(|user| refused.get(&user)) {
        Ok(None) => Verdict::Ack,
        Ok(Some(why)) => Verdict::Reject(why.clone()),
        Err(why) => Verdict::Reject(why),
    }
}

/// Why nothing was published.
enum Error {
    /// Postgres, Redis or the bus is unavailable; a retry will succeed.
    Unavailable(String),
    /// A statement failed; a retry may fail too.
    Failed(String),
}

fn publish(latest: &BTreeMap<String, &str>) -> Result<Refused, Error> {
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
    // The change of one user is the cause. Each user's change is published alone, to find it.
    let mut refused = Refused::new();
    for (user, addresses) in &audience {
        if let Err(why) = send(&publications(user, addresses))? {
            refused.insert(user.clone(), why);
        }
    }
    Ok(refused)
}

/// Publishes. The inner error is the reason why the bus refuses a publication; a retry would not help.
fn send(publications: &[Publication]) -> Result<Result<(), String>, Error> {
    for some in publications.chunks(PUBLISH_MAX) {
        match channels::publish(some) {
            Ok(()) => {}
            Err(channels::Error::Refused(why)) => return Ok(Err(why)),
            Err(other) => return Err(Error::Unavailable(format!("{other:?}"))),
        }
    }
    Ok(Ok(()))
}

fn audience(users: Vec<String>) -> Result<Audience, Error> {
    let most = config::number("participants_max", 1000);
    let (mut audience, mut mixed) = (Audience::new(), BTreeMap::<Id, Vec<String>>::new());
    for Reached { user_id, conversation_id, mut unengaged } in
        query::<Reached>(AUDIENCE, &params![users, most])?
    {
        if unengaged.len() > 1 {
            mixed.entry(conversation_id).or_default().push(user_id);
        } else {
            let address = address::conversation(conversation_id);
            let to = Address { address, except_user: unengaged.pop() };
            audience.entry(user_id).or_default().insert(to);
        }
    }
    for (conversation, viewers) in engaged_subscribers(mixed.keys().copied())? {
        for user in &mixed[&conversation] {
            let viewers =
                viewers.iter().filter(|viewer| *viewer != user).map(|viewer| Address::of_user(viewer));
            audience.entry(user.clone()).or_default().extend(viewers);
        }
    }
    Ok(audience)
}

/// The users who are subscribed to these conversations and engaged there. They may include users of a crashed
/// node, whom no push reaches.
fn engaged_subscribers(conversations: impl Iterator<Item = Id>) -> Result<BTreeMap<Id, Vec<String>>, Error> {
    let conversations: Vec<Id> = conversations.collect();
    if conversations.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut pipeline = Pipeline::new();
    for conversation in &conversations {
        pipeline.push(&["HVALS", &keys::looking(*conversation)]);
    }
    let replies = pipeline.run().map_err(|error| Error::Unavailable(redis::describe(&error)))?;
    let subscribers = conversations.iter().zip(&replies);
    let pairs: BTreeSet<(Id, &str)> = subscribers
        .flat_map(|(conversation, reply)| reply.texts().map(|user| (*conversation, user)))
        .collect();
    let (of, people): (Vec<Id>, Vec<String>) =
        pairs.into_iter().map(|(conversation, user)| (conversation, user.to_owned())).unzip();
    let mut engaged = BTreeMap::<Id, Vec<String>>::new();
    for row in query::<Engaged>(ENGAGED, &params![of.as_slice(), people])? {
        engaged.entry(row.conversation_id).or_default().push(row.user_id);
    }
    Ok(engaged)
}

fn query<T: FromRow>(statement: &str, params: &[Value]) -> Result<Vec<T>, Error> {
    let rows = postgres::query(statement, params).map_err(|error| {
        let make = if error.is_transient() { Error::Unavailable } else { Error::Failed };
        make(format!("{error:?}"))
    })?;
    rows.all::<T>().map_err(|mismatch| Error::Failed(mismatch.to_string()))
}

fn watchers(latest: &BTreeMap<String, &str>) -> Result<BTreeMap<String, Vec<String>>, Error> {
    watch::watchers(latest.keys().map(String::as_str)).map_err(|error| match error {
        watch::ReadError::Redis(why) => Error::Unavailable(why),
        watch::ReadError::Postgres(problem) if problem.status == 503 => Error::Unavailable(problem.code),
        watch::ReadError::Postgres(problem) => Error::Failed(problem.code),
    })
}
