//! Panics over events that speak of poison, unless its setting says that it is repaired. Of all others it
//! tells `seen`, to whom it is addressed.

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
