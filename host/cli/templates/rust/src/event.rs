//! Logs a greeting for the sender of each message.

mod rules;

use sdk::event::{self, Event, Verdict};
use sdk::json::Object;
use sdk::{config, log};

struct {Type};
event::export!({Type});

impl event::Handler for {Type} {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        let word = config::text("greeting").unwrap_or_else(|| "hello".to_owned());
        events.iter().map(|event| one(event, &word)).collect()
    }
}

/// Handles one event. An event comes again until it is acknowledged, so handling it twice must be safe.
fn one(event: &Event, word: &str) -> Verdict {
    let read = Object::parse(event.payload.as_bytes()).and_then(|mut payload| payload.text("sender_id"));
    match read {
        Ok(Some(sender)) => {
            log::info(&rules::greeting(word, &sender), &[]);
            Verdict::Ack
        }
        // The event can never be handled: park it for an operator.
        Ok(None) => Verdict::Reject("it has no sender_id".to_owned()),
        Err(problem) => Verdict::Reject(problem.detail),
    }
}
