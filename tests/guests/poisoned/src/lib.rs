//! Panics on events with the word poison, unless its setting marks it as repaired. It publishes all others as
//! `seen` to their addressee.

use sdk::channels::{self, Publication};
use sdk::event::{self, Event, Verdict};
use sdk::{config, frame};

struct Guest;
event::export!(Guest);

impl event::Handler for Guest {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        let repaired = config::text("repaired").is_some_and(|value| value == "true");
        for event in &events {
            assert!(repaired || !event.payload.contains("poison"), "on purpose");
            let seen = frame::push("seen", &event.payload);
            channels::publish(&[Publication::new(event.key.clone(), seen)]).expect("the bus is there");
        }
        event::all(&events, Verdict::Ack)
    }
}
