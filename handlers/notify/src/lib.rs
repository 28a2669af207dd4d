//! Turns events into notifications: rows first, then the cache, then frames. However often an event comes, a person has one
//! notification of it, because its id is made from both. What becomes of a message, and how far it was read, its
//! notifications follow (`follow`).

mod follow;
mod looking;
mod names;
mod rules;
mod store;

use chat::{address, notification};
use std::collections::BTreeSet;

use rules::{Given, Message, News, Rewritten};
use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::{Id, frame, log, redis};
use store::Notification;

/// Messages of one statement: each may be of a thousand people.
const MESSAGES_AT_ONCE: usize = 8;
/// People of one statement, where everyone in a conversation is notified.
const PEOPLE_AT_ONCE: usize = 1000;
/// Publications of one call to the bus.
const PUBLISH_MAX: usize = 500;

struct Notify;
event::export!(Notify);

impl event::Handler for Notify {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        let news: Vec<_> = events.iter().map(rules::news).collect();
        match tell(news.iter().flatten()) {
            Ok(()) => news.iter().map(verdict).collect(),
            Err(Trouble::Away(why)) => {
                log::warn("notifications wait", &[("why", &why)]);
                event::all(&events, Verdict::Hold(event::RETRY_MS))
            }
            // One of them is to blame: alone, each shows whether it is the one.
            Err(Trouble::Failed(_)) => news.iter().map(alone).collect(),
        }
    }
}

/// Why something was not told.
enum Trouble {
    /// Postgres, Redis or the bus: it comes back.
    Away(String),
    Failed(String),
}

fn verdict(news: &Result<News, rules::Unreadable>) -> Verdict {
    news.as_ref().err().map_or(Verdict::Ack, |why| Verdict::Reject(why.clone()))
}

fn alone(news: &Result<News, rules::Unreadable>) -> Verdict {
    match tell(news.iter()) {
        Ok(()) => verdict(news),
        Err(Trouble::Away(_)) => Verdict::Hold(event::RETRY_MS),
        Err(Trouble::Failed(why)) => Verdict::Reject(why),
    }
}

fn tell<'a>(news: impl Iterator<Item = &'a News>) -> Result<(), Trouble> {
    let (mut messages, mut given, mut everyone, mut changed) = (vec![], vec![], vec![], vec![]);
    let (mut rewritten, mut edits, mut seen, mut departures) = (BTreeSet::new(), vec![], vec![], vec![]);
    for one in news {
        match one {
            News::Nothing => {}
            News::Message(message) => {
                messages.push(message);
                seen.push(message.seen_by_sender());
            }
            News::Rewritten(Rewritten { message_id, edit }) => {
                rewritten.insert(*message_id);
                edits.extend(edit.as_ref().filter(|edit| edit.mentions_somebody()));
            }
            News::Read(one) => seen.push(one.clone()),
            News::Left(one) => departures.push(one.clone()),
            News::Given(one) => given.push(one),
            News::Everyone(conversation, one) => everyone.push((*conversation, one)),
            News::Changed(user) => changed.push(user.as_str()),
        }
    }
    for some in messages.chunks(MESSAGES_AT_ONCE) {
        tell_of_messages(some)?;
    }
    if !given.is_empty() {
        push(&store::given(&given)?)?;
    }
    everyone.into_iter().try_for_each(|(conversation, one)| tell_everyone(conversation, one))?;
    // After what is new, which may be of the same messages.
    rewritten.into_iter().try_for_each(follow::message)?;
    for some in edits.chunks(MESSAGES_AT_ONCE) {
        tell_of_mentions(some)?;
    }
    follow::leave(&departures)?;
    follow::read(&rules::furthest(seen))?;
    forget(changed)
}

fn tell_of_messages(messages: &[&Message]) -> Result<(), Trouble> {
    let conversations = messages.iter().map(|message| message.conversation_id).collect();
    push(&store::messages(messages, &looking::at(&conversations))?)
}

/// Who is mentioned since an edit, and was not before.
fn tell_of_mentions(edits: &[&Message]) -> Result<(), Trouble> {
    let originals = store::originals(edits)?;
    let mut after = Vec::with_capacity(edits.len());
    for edit in edits {
        let Some(original) = originals.iter().find(|original| original.id == edit.event_id()) else {
            continue;
        };
        let edit = edit.after(&original.content, original.mentions.as_deref());
        after.push(edit.map_err(Trouble::Failed)?);
    }
    if after.is_empty() { Ok(()) } else { push(&store::mentions(&after)?) }
}

fn tell_everyone(conversation: Id, given: &Given) -> Result<(), Trouble> {
    let mut after = String::new();
    loop {
        let people = store::people(conversation, &after, PEOPLE_AT_ONCE)?;
        let each: Vec<_> = people.iter().map(|user| given.to(user)).collect();
        push(&store::given(&each)?)?;
        match people.into_iter().next_back() {
            Some(last) if each.len() == PEOPLE_AT_ONCE => after = last,
            _ => return Ok(()),
        }
    }
}

/// Who hears of a notification finds it in the list.
fn push(notifications: &[Notification]) -> Result<(), Trouble> {
    if notifications.is_empty() {
        return Ok(());
    }
    forget(notifications.iter().map(|row| row.user_id.as_str()).collect())?;
    for some in notifications.chunks(PUBLISH_MAX) {
        let publications: Vec<_> = some.iter().map(publication).collect();
        channels::publish(&publications)?;
    }
    Ok(())
}

/// Drops what is cached of these people.
fn forget(mut users: Vec<&str>) -> Result<(), Trouble> {
    users.sort_unstable();
    users.dedup();
    if users.is_empty() {
        return Ok(());
    }
    notification::changed(users).map_err(|error| Trouble::Away(redis::describe(&error)))
}

fn publication(row: &Notification) -> Publication {
    let payload = format!(r#"{{"notification":{}}}"#, row.notification);
    Publication::new(address::user(&row.user_id), frame::push("notification.new", &payload))
}

impl From<channels::Error> for Trouble {
    fn from(error: channels::Error) -> Self {
        match error {
            channels::Error::Refused(why) => Self::Failed(why),
            other => Self::Away(format!("{other:?}")),
        }
    }
}
