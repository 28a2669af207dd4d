//! A send without its waits: JSON in, three host calls that are answered at once, JSON out. It does not
//! misbehave; it is measured beside its rules in plain Rust (`host/runtime/benches/call_overhead.rs`).

mod rules;

use sdk::{Problem, clock, config, frame, random};

struct Guest;
frame::export!(Guest);

impl frame::Handler for Guest {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let world = rules::World {
            chars_max: || config::number("chars_max", 2000) as usize,
            now_ms: clock::now_ms,
            id: random::bytes,
        };
        let payload = rules::send(&request.payload, &request.caller.user_id, &world)
            .map_err(|(field, rule)| Problem::invalid(field, rule))?;
        Ok(Some(frame::Reply::text("message.sent", payload)))
    }
}
