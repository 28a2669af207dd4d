//! Loops forever without a host call. The host ends the call at `cpu_ms`.

use sdk::{Problem, http};

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        let mut round = 0_u64;
        loop {
            round = std::hint::black_box(round.wrapping_add(1));
        }
    }
}
