//! Asks for the time forever. The host ends the call at `host_calls`.

use sdk::{Problem, clock, http};

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        let asked = (0..1_000_000).map(|_| clock::now_ms()).fold(0, u64::max);
        Ok(http::Response::text(200, asked.to_string()))
    }
}
