//! Delivers the events of the outbox in order. One round trip writes their changes of the read model to
//! Redis, another one publishes their frames to the bus. The events contain everything that it needs, with
//! two exceptions: it asks Postgres whether a user who left has joined again, and how the participants of
//! large conversations changed.

mod events;
mod members;
mod projections;
mod returned;

use chat::address;
use std::collections::BTreeMap;
use std::ops::Range;

use events::{Departure, Fact, Unreadable};
use members::Announcement;
use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::{log, redis};

struct OutboxRelay;
event::export!(OutboxRelay);

impl event::Handler for OutboxRelay {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        let announcements = match members::announcements(&events) {
            Ok(announcements) => announcements,
            Err(why) => return hold(&events, &why),
        };
        let (mut batch, facts) = Batch::of(&events, &announcements);
        // The read model is written first, so that a client that gets a message finds it there.
        let delivered = project(&facts, &events)
            // Right before the revocations, because a user who joins again after this check may lose the new
            // subscription.
            .and_then(|()| batch.drop_revocations_of_returned())
            .and_then(|()| batch.publish(&batch.parts));
        match delivered {
            Ok(()) => batch.parts.iter().map(Part::verdict).collect(),
            Err(Error::Unavailable(why)) => hold(&events, &why),
            // One event cannot be published at all. Each is published alone, to find the one that fails.
            Err(Error::Refused(_)) => batch.parts.iter().map(|part| batch.publish_alone(part)).collect(),
        }
    }
}

/// Asks for all events again. That publishes some frames again; the hub recognises them by their position.
fn hold(events: &[Event], why: &str) -> Vec<Verdict> {
    log::warn("deliveries wait", &[("why", why)]);
    event::all(events, Verdict::Hold(event::RETRY_MS))
}

/// Why a batch could not be delivered.
enum Error {
    /// Postgres, Redis or the bus is unavailable; a retry will succeed.
    Unavailable(String),
    /// A publication is too large or not granted; a retry would fail too.
    Refused(String),
}

fn project(facts: &[Fact<'_>], events: &[Event]) -> Result<(), Error> {
    let pipeline = projections::pipeline(facts, events);
    let outcome = pipeline.run().and_then(|replies| projections::unwritten(&pipeline, &replies).run());
    match outcome {
        // Readers would see an outdated read model, so the events are retried.
        Ok(dropped) if dropped.iter().any(|reply| matches!(reply, redis::Reply::Failed(_))) => {
            Err(Error::Unavailable("the read model can neither be written nor dropped".to_owned()))
        }
        Ok(_) => Ok(()),
        Err(error @ (redis::Error::Unavailable | redis::Error::Deadline)) => {
            Err(Error::Unavailable(redis::describe(&error)))
        }
        Err(error) => {
            // The read model can be rebuilt later. A missed publication cannot be repeated, so publishing
            // continues.
            log::error("the read model was not written", &[("why", &redis::describe(&error))]);
            Ok(())
        }
    }
}

/// The publications of a batch, in order, and the part of each event.
#[derive(Default)]
struct Batch {
    publications: Vec<Publication>,
    parts: Vec<Part>,
}

/// The part of one event.
struct Part {
    publications: Range<usize>,
    /// The user whose subscriptions end before the publications.
    revoked: Option<Departure>,
    /// The verdict if it is published.
    verdict: Verdict,
}

impl Part {
    fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }
}

impl Batch {
    fn of<'a>(events: &'a [Event], announcements: &BTreeMap<String, Announcement>) -> (Self, Vec<Fact<'a>>) {
        let (mut batch, mut facts) = (Self::default(), Vec::new());
        for event in events {
            let begin = batch.publications.len();
            let announcement = announcements.get(&event.id).cloned().unwrap_or_default();
            let (revoked, verdict) = match events::deliver(event, &announcement) {
                Ok(delivery) => {
                    batch.publications.extend(delivery.publications);
                    facts.extend(delivery.facts);
                    let verdict = match announcement {
                        Announcement::Wait(ms) => Verdict::Retry(ms),
                        _ => Verdict::Ack,
                    };
                    (delivery.revoked, verdict)
                }
                Err(Unreadable(why)) => (None, Verdict::Reject(why)),
            };
            batch.parts.push(Part { publications: begin..batch.publications.len(), revoked, verdict });
        }
        (batch, facts)
    }

    /// Drops the revocations of users who have joined again. They may have subscribed again, and an older
    /// event must not end the new subscription. If they leave once more, another event follows.
    fn drop_revocations_of_returned(&mut self) -> Result<(), Error> {
        let gone = self
            .parts
            .iter()
            .filter_map(|part| part.revoked.as_ref())
            .filter(|gone| !gone.conversation_ended);
        let returned = returned::among(&gone.collect::<Vec<_>>()).map_err(Error::Unavailable)?;
        for part in &mut self.parts {
            part.revoked.take_if(|gone| returned.contains(&(gone.conversation, gone.user.clone())));
        }
        Ok(())
    }

    /// Publishes these parts, with as few calls as the revocations between them allow.
    fn publish(&self, parts: &[Part]) -> Result<(), Error> {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(()) };
        let mut begin = first.publications.start;
        for part in parts {
            if let Some(Departure { conversation, user, .. }) = &part.revoked {
                self.send(begin..part.publications.start)?;
                begin = part.publications.start;
                channels::revoke(&address::conversation(*conversation), user)?;
            }
        }
        self.send(begin..last.publications.end)
    }

    fn send(&self, range: Range<usize>) -> Result<(), Error> {
        if !range.is_empty() {
            channels::publish(&self.publications[range])?;
        }
        Ok(())
    }

    fn publish_alone(&self, part: &Part) -> Verdict {
        match self.publish(std::slice::from_ref(part)) {
            Ok(()) => part.verdict(),
            Err(Error::Unavailable(_)) => Verdict::Hold(event::RETRY_MS),
            Err(Error::Refused(why)) => Verdict::Reject(why),
        }
    }
}

impl From<channels::Error> for Error {
    fn from(error: channels::Error) -> Self {
        match error {
            channels::Error::Refused(why) => Self::Refused(why),
            other => Self::Unavailable(format!("{other:?}")),
        }
    }
}
