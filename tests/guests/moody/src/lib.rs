//! One code for many releases: the `[config]` of the manifest selects the behaviour.

use sdk::{Problem, clock, config, http};

/// Duration of `slow`.
const SLOW_MS: u64 = 40;
/// A few milliseconds.
const SPINS: u32 = 2_000_000;

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        let now = clock::now_ms();
        match config::text("mood").as_deref() {
            Some("trap") => panic!("in a bad mood"),
            Some("error") => return Err(Problem::unavailable()),
            Some("slow") => spin_until(now + SLOW_MS),
            _ => {}
        }
        let says = config::text("says").unwrap_or_default();
        Ok(http::Response::text(200, format!("{{\"says\":\"{says}\"}}")))
    }
}

/// Reads the clock only now and then, because each read is a host call, and those are bounded.
fn spin_until(ms: u64) {
    while clock::now_ms() < ms {
        (0..SPINS).for_each(|n| {
            std::hint::black_box(n);
        });
    }
}
