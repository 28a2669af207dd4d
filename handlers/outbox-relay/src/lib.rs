//! Delivers the outbox: what each event changes in the read model goes to Redis in one round trip, what subscribers hear
//! goes to the bus in another, in order. It decides nothing: everything it needs is in the events, but for one thing that
//! an event cannot know: whether who left is there again.

mod events;
mod projections;
mod returned;

use chat::address;
use std::ops::Range;

use events::{Fact, Gone, Unreadable};
use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::{log, redis};

struct OutboxRelay;
event::export!(OutboxRelay);

impl event::Handler for OutboxRelay {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        let (mut batch, facts) = Batch::of(&events);
        let spared = batch.spare_who_came_back();
        // The read model first: who hears of a message finds it there.
        match spared.and_then(|()| project(&facts, &events)).and_then(|()| batch.publish(&batch.parts)) {
            Ok(()) => batch.parts.iter().map(Part::verdict).collect(),
            Err(Trouble::Away(why)) => {
                log::warn("deliveries wait", &[("why", &why)]);
                // What was published already is published again: each message has its position, so nobody sees it twice.
                event::all(&events, Verdict::Hold(event::RETRY_MS))
            }
            // One of them cannot be published, ever: alone, each shows whether it is the one.
            Err(Trouble::Refused(_)) => batch.parts.iter().map(|part| batch.singly(part)).collect(),
        }
    }
}

enum Trouble {
    /// Postgres, Redis or the bus: it comes back.
    Away(String),
    /// Too large or outside the grants: it never will.
    Refused(String),
}

fn project(facts: &[Fact<'_>], events: &[Event]) -> Result<(), Trouble> {
    let pipeline = projections::pipeline(facts, events);
    let outcome = pipeline.run().and_then(|replies| projections::unwritten(&pipeline, &replies).run());
    match outcome {
        // What stands in the read model is old, and would be shown.
        Ok(dropped) if dropped.iter().any(|reply| matches!(reply, redis::Reply::Failed(_))) => {
            Err(Trouble::Away("the read model can neither be written nor dropped".to_owned()))
        }
        Ok(_) => Ok(()),
        Err(error @ (redis::Error::Unavailable | redis::Error::Deadline)) => {
            Err(Trouble::Away(redis::describe(&error)))
        }
        Err(error) => {
            // The read model can be rebuilt; a delivery that did not happen can not.
            log::error("the read model was not written", &[("why", &redis::describe(&error))]);
            Ok(())
        }
    }
}

/// Everything that a batch publishes, in order, and which of it is whose.
#[derive(Default)]
struct Batch {
    publications: Vec<Publication>,
    parts: Vec<Part>,
}

/// What one event publishes.
struct Part {
    publications: Range<usize>,
    /// Whose subscriptions end before any of it.
    revoked: Option<Gone>,
    unreadable: Option<String>,
}

impl Part {
    fn verdict(&self) -> Verdict {
        self.unreadable.clone().map_or(Verdict::Ack, Verdict::Reject)
    }
}

impl Batch {
    fn of(events: &[Event]) -> (Self, Vec<Fact<'_>>) {
        let (mut batch, mut facts) = (Self::default(), Vec::new());
        for event in events {
            let begin = batch.publications.len();
            let (revoked, unreadable) = match events::deliver(event) {
                Ok(delivery) => {
                    batch.publications.extend(delivery.publications);
                    facts.extend(delivery.facts);
                    (delivery.revoked, None)
                }
                Err(Unreadable(why)) => (None, Some(why)),
            };
            batch.parts.push(Part { publications: begin..batch.publications.len(), revoked, unreadable });
        }
        (batch, facts)
    }

    /// Who has come back may have subscribed already: what they subscribed to then must not end because of what was
    /// before. Leaving once more is another event.
    fn spare_who_came_back(&mut self) -> Result<(), Trouble> {
        let gone = self.parts.iter().filter_map(|part| part.revoked.as_ref()).filter(|gone| !gone.for_good);
        let returned = returned::among(&gone.collect::<Vec<_>>()).map_err(Trouble::Away)?;
        for part in &mut self.parts {
            part.revoked.take_if(|gone| returned.contains(&(gone.conversation, gone.user.clone())));
        }
        Ok(())
    }

    /// As few calls as there are subscriptions to be ended in between.
    fn publish(&self, parts: &[Part]) -> Result<(), Trouble> {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(()) };
        let mut begin = first.publications.start;
        for part in parts {
            if let Some(Gone { conversation, user, .. }) = &part.revoked {
                self.send(begin..part.publications.start)?;
                begin = part.publications.start;
                channels::revoke(&address::conversation(*conversation), user)?;
            }
        }
        self.send(begin..last.publications.end)
    }

    fn send(&self, range: Range<usize>) -> Result<(), Trouble> {
        if !range.is_empty() {
            channels::publish(&self.publications[range])?;
        }
        Ok(())
    }

    fn singly(&self, part: &Part) -> Verdict {
        match self.publish(std::slice::from_ref(part)) {
            Ok(()) => part.verdict(),
            Err(Trouble::Away(_)) => Verdict::Hold(event::RETRY_MS),
            Err(Trouble::Refused(why)) => Verdict::Reject(why),
        }
    }
}

impl From<channels::Error> for Trouble {
    fn from(error: channels::Error) -> Self {
        match error {
            channels::Error::Refused(why) => Self::Refused(why),
            other => Self::Away(format!("{other:?}")),
        }
    }
}
