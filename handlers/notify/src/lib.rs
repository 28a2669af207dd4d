//! Turns events into notifications. It writes the rows first, then invalidates the cache, then publishes
//! frames. The id of a notification is derived from event and user, so a repeated event makes no second one.
//! Later changes of the message, and read marks, update the notification (`follow`).

mod follow;
mod looking;
mod names;
mod rules;
mod store;

use chat::notification;
use std::collections::BTreeSet;

use rules::{CompleteNotification, Effect, Message, ReadMark, Rewritten};
use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::{Id, frame, log, redis};
use store::Notification;

/// The messages of one statement. Each can notify a thousand users.
const MESSAGES_AT_ONCE: usize = 8;
/// The users of one statement that notifies everyone in a conversation.
const PEOPLE_AT_ONCE: usize = 1000;
/// The publications of one call to the bus.
const PUBLISH_MAX: usize = 500;

struct Notify;
event::export!(Notify);

impl event::Handler for Notify {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        let effects: Vec<_> = events.iter().map(rules::effect_of).collect();
        match process(effects.iter().flatten()) {
            Ok(()) => effects.iter().map(verdict).collect(),
            Err(Error::Unavailable(why)) => {
                log::warn("notifications wait", &[("why", &why)]);
                event::all(&events, Verdict::Hold(event::RETRY_MS))
            }
            // One event is the cause. Each is processed alone, to find the one that fails.
            Err(Error::Failed(_)) => effects.iter().map(alone).collect(),
        }
    }
}

/// Why events could not be processed.
enum Error {
    /// Postgres, Redis or the bus is unavailable. All events of the call are held, and come again after
    /// [`event::RETRY_MS`].
    Unavailable(String),
    /// A retry would fail too. Each event of the call is processed alone, and the one that fails is rejected,
    /// so the host parks it.
    Failed(String),
}

fn verdict(effects: &Result<Effect, rules::Unreadable>) -> Verdict {
    effects.as_ref().err().map_or(Verdict::Ack, |why| Verdict::Reject(why.clone()))
}

fn alone(effects: &Result<Effect, rules::Unreadable>) -> Verdict {
    match process(effects.iter()) {
        Ok(()) => verdict(effects),
        Err(Error::Unavailable(_)) => Verdict::Hold(event::RETRY_MS),
        Err(Error::Failed(why)) => Verdict::Reject(why),
    }
}

fn process<'a>(effects: impl Iterator<Item = &'a Effect>) -> Result<(), Error> {
    let (mut messages, mut complete, mut everyone, mut changed) = (vec![], vec![], vec![], vec![]);
    let (mut rewritten, mut edits, mut marks, mut departures) = (BTreeSet::new(), vec![], vec![], vec![]);
    for one in effects {
        match one {
            Effect::Nothing => {}
            Effect::Message(message) => messages.push(message),
            Effect::Rewritten(Rewritten { message_id, edit }) => {
                rewritten.insert(*message_id);
                edits.extend(edit.as_ref().filter(|edit| edit.mentions_somebody()));
            }
            Effect::Read(one) => marks.push(one.clone()),
            Effect::Left(one) => departures.push(one.clone()),
            Effect::Complete(one) => complete.push(one),
            Effect::Everyone(conversation, one) => everyone.push((*conversation, one)),
            Effect::Changed(user) => changed.push(user.as_str()),
        }
    }
    for some in messages.chunks(MESSAGES_AT_ONCE) {
        marks.extend(notify_of_messages(some)?);
    }
    if !edits.is_empty() {
        // An edit can add an unread mention of somebody who has written since.
        marks.extend(messages.iter().map(|message| message.mark_of_sender()));
    }
    if !complete.is_empty() {
        push(&store::insert_complete(&complete)?)?;
    }
    everyone.into_iter().try_for_each(|(conversation, one)| notify_everyone(conversation, one))?;
    // Updates follow the new notifications, because they may concern the same messages.
    rewritten.into_iter().try_for_each(follow::message)?;
    for some in edits.chunks(MESSAGES_AT_ONCE) {
        notify_of_mentions(some)?;
    }
    follow::leave(&departures)?;
    follow::read(&rules::furthest(marks))?;
    invalidate(changed)
}

/// Returns how far the senders have read who have unread notifications.
fn notify_of_messages(messages: &[&Message]) -> Result<Vec<ReadMark>, Error> {
    let (notifications, senders) = store::insert_for_messages(messages, &looking::at(messages))?;
    push(&notifications)?;
    let have_read = messages.iter().filter(|message| senders.iter().any(|id| id == message.event_id()));
    Ok(have_read.map(|message| message.mark_of_sender()).collect())
}

/// Notifies users whom an edit mentions and the message did not mention before.
fn notify_of_mentions(edits: &[&Message]) -> Result<(), Error> {
    let originals = store::find_originals(edits)?;
    let mut after = Vec::with_capacity(edits.len());
    for edit in edits {
        let Some(original) = originals.iter().find(|original| original.id == edit.event_id()) else {
            continue;
        };
        let edit = edit.after(&original.content, original.mentions.as_deref());
        after.push(edit.map_err(Error::Failed)?);
    }
    if after.is_empty() { Ok(()) } else { push(&store::insert_for_mentions(&after)?) }
}

fn notify_everyone(conversation: Id, notification: &CompleteNotification) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let people = store::users_to_notify(conversation, &after, PEOPLE_AT_ONCE)?;
        let each: Vec<_> = people.iter().map(|user| notification.to(user)).collect();
        push(&store::insert_complete(&each)?)?;
        match people.into_iter().next_back() {
            Some(last) if each.len() == PEOPLE_AT_ONCE => after = last,
            _ => return Ok(()),
        }
    }
}

/// Publishes notifications to their users. It first invalidates the cache, so that a user who gets a push
/// finds it in the list.
fn push(notifications: &[Notification]) -> Result<(), Error> {
    if notifications.is_empty() {
        return Ok(());
    }
    invalidate(notifications.iter().map(|row| row.user_id.as_str()).collect())?;
    for some in notifications.chunks(PUBLISH_MAX) {
        let publications: Vec<_> = some.iter().map(publication).collect();
        channels::publish(&publications)?;
    }
    Ok(())
}

/// Deletes the cached notifications of these users.
fn invalidate(mut users: Vec<&str>) -> Result<(), Error> {
    users.sort_unstable();
    users.dedup();
    if users.is_empty() {
        return Ok(());
    }
    notification::invalidate_cache(users).map_err(|error| Error::Unavailable(redis::describe(&error)))
}

fn publication(row: &Notification) -> Publication {
    let payload = format!(r#"{{"notification":{}}}"#, row.notification);
    Publication::new(channels::user(&row.user_id), frame::push("notification.new", &payload))
}

impl From<channels::Error> for Error {
    fn from(error: channels::Error) -> Self {
        match error {
            channels::Error::Refused(why) => Self::Failed(why),
            other => Self::Unavailable(format!("{other:?}")),
        }
    }
}
