//! Panics, which is a trap: guests abort.

use sdk::{Problem, http};

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        panic!("on purpose");
    }
}
