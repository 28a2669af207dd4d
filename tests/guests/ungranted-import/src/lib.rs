//! Imports `redis`, which its manifest does not grant. The host refuses it before it runs.

use sdk::{Problem, http, redis};

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        let reply = redis::command(&["FLUSHALL"]);
        Ok(http::Response::text(200, format!("{reply:?}")))
    }
}
