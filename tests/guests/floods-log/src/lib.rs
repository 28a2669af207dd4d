//! Logs a thousand lines of 16 KiB. The host does not end the call, and keeps sixty-four lines of 4 KiB.

use sdk::{Problem, http, log};

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        let line = "x".repeat(16 * 1024);
        for _ in 0..1000 {
            log::warn("flood", &[("line", &line)]);
        }
        Ok(http::Response::text(200, "done".to_owned()))
    }
}
