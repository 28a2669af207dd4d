//! Delivers the outbox: what each event changes in the read model goes to Redis in one round trip, what subscribers hear
//! goes to the bus in another, in order. It decides nothing: everything it needs is in the events.

mod events;
mod projections;

use events::{Delivery, Unreadable};
use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::{log, redis};

struct OutboxRelay;
event::export!(OutboxRelay);

impl event::Handler for OutboxRelay {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        let deliveries: Vec<_> = events.iter().map(events::deliver).collect();
        // The read model first: who hears of a message finds it there.
        let outcome = project(&deliveries, &events).and_then(|()| publish(&deliveries));
        match outcome {
            Ok(()) => deliveries.into_iter().map(verdict).collect(),
            Err(Trouble::Away(why)) => {
                log::warn("deliveries wait", &[("why", &why)]);
                // What was published already is published again: each message has its position, so nobody sees it twice.
                event::all(&events, Verdict::Hold(event::RETRY_MS))
            }
            // One of them cannot be published, ever: alone, each shows whether it is the one.
            Err(Trouble::Refused(_)) => deliveries.into_iter().map(singly).collect(),
        }
    }
}

enum Trouble {
    /// Redis or the bus: it comes back.
    Away(String),
    /// Too large or outside the grants: it never will.
    Refused(String),
}

fn project(deliveries: &[Result<Delivery, Unreadable>], events: &[Event]) -> Result<(), Trouble> {
    let facts: Vec<_> = deliveries.iter().flatten().flat_map(|delivery| &delivery.facts).collect();
    match projections::pipeline(&facts, events).run() {
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

fn publish(deliveries: &[Result<Delivery, Unreadable>]) -> Result<(), Trouble> {
    let mut steps = Steps::default();
    for delivery in deliveries.iter().flatten() {
        steps.add(delivery);
    }
    steps.run()
}

fn singly(delivery: Result<Delivery, Unreadable>) -> Verdict {
    let delivery = [delivery];
    match publish(&delivery) {
        Ok(()) => delivery.into_iter().map(verdict).next().unwrap_or(Verdict::Ack),
        Err(Trouble::Away(_)) => Verdict::Hold(event::RETRY_MS),
        Err(Trouble::Refused(why)) => Verdict::Reject(why),
    }
}

fn verdict(delivery: Result<Delivery, Unreadable>) -> Verdict {
    match delivery {
        Ok(_) => Verdict::Ack,
        Err(Unreadable(why)) => Verdict::Reject(why),
    }
}

/// Publications in order, cut only where a subscription has to end before the next one.
#[derive(Default)]
struct Steps(Vec<Step>);

enum Step {
    Revoke { address: String, user: String },
    Publish(Vec<Publication>),
}

impl Steps {
    fn add(&mut self, delivery: &Delivery) {
        if let Some((address, user)) = delivery.revoked.clone() {
            self.0.push(Step::Revoke { address, user });
        }
        let publications = delivery.publications.iter().cloned();
        match self.0.last_mut() {
            Some(Step::Publish(all)) => all.extend(publications),
            _ => self.0.push(Step::Publish(publications.collect())),
        }
    }

    fn run(&self) -> Result<(), Trouble> {
        for step in &self.0 {
            let done = match step {
                Step::Revoke { address, user } => channels::revoke(address, user),
                Step::Publish(publications) if publications.is_empty() => Ok(()),
                Step::Publish(publications) => channels::publish(publications),
            };
            done.map_err(|error| match error {
                channels::Error::Refused(why) => Trouble::Refused(why),
                other => Trouble::Away(format!("{other:?}")),
            })?;
        }
        Ok(())
    }
}
