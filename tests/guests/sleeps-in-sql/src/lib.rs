//! Waits in Postgres for longer than its deadline. The host cancels the statement.

use sdk::{Problem, http, postgres};

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        let slept = postgres::query("select 1 from pg_sleep(30)", &[]);
        Ok(http::Response::text(200, format!("{slept:?}")))
    }
}
