//! Forgets its transaction: neither commits nor drops it. The host rolls it back. Answers the transaction's
//! number.

use sdk::{Problem, http, postgres};

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        let transaction = postgres::begin().map_err(|_| Problem::unavailable())?;
        // A number of its own makes it a transaction that wrote.
        let rows = transaction
            .query("select pg_current_xact_id()::text", &[])
            .map_err(|_| Problem::unavailable())?;
        std::mem::forget(transaction);
        let number: Option<String> = rows.cell().unwrap_or_default();
        Ok(http::Response::text(200, number.unwrap_or_default()))
    }
}
