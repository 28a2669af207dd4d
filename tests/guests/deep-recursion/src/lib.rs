//! Calls itself without end. The call ends when the stack is full.

use sdk::{Problem, http};

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        let depth = deeper(0);
        Ok(http::Response::text(200, depth.to_string()))
    }
}

#[inline(never)]
#[allow(unconditional_recursion, reason = "that is what it is for")]
fn deeper(depth: u64) -> u64 {
    std::hint::black_box(deeper(std::hint::black_box(depth + 1))) + 1
}
