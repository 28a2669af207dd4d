//! Finds public channels by name, for every user. A result has the channel's name and description, not its
//! messages.

mod rules;

use rules::Search;
use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, cursor, params, postgres};

const PAGE: &str = include_str!("sql/page.sql");

struct Channels;
http::export!(Channels);

sdk::rows! {
    struct Found { id: Id, conversation: String }
}

impl http::Handler for Channels {
    fn handle(request: Request) -> Result<Response, Problem> {
        let user = &request.caller()?.user_id;
        let limit = request.limit(20, 100)?;
        let search = Search::parse(request.query("q"))?;
        // The cursor is the last channel of the previous page, wherever it sorts now.
        let after = cursor::id(request.query("cursor"))?;
        // Postgres plans a statement once, so each kind of search has a statement of its own.
        let statement =
            PAGE.replace("{matches}", search.condition()).replace("{after}", rules::after(after.is_some()));
        let rows = postgres::query(&statement, &params![user, search.pattern(), after, limit + 1])?;
        let mut found: Vec<Found> = rows.all()?;
        let more = found.len() as u64 > limit;
        found.truncate(limit as usize);
        let next =
            found.last().filter(|_| more).map_or("null".to_owned(), |last| format!(r#""{}""#, last.id));
        let texts: Vec<_> = found.into_iter().map(|found| found.conversation).collect();
        Ok(Response::text(200, format!(r#"{{"conversations":[{}],"next_cursor":{next}}}"#, texts.join(","))))
    }
}
