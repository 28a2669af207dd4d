//! Lists of conversations. It reads pages of a user's list from the read model in Redis, or from Postgres if
//! Redis fails. When an operator requests it, it also rebuilds the whole model. `model` documents the model
//! and why it stays correct.

mod entry;
mod list;
mod model;
mod presence;
mod rebuild;
mod store;

use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, cursor, log};

use list::ReadError;

struct Lists;
http::export!(Lists);

impl http::Handler for Lists {
    fn handle(request: Request) -> Result<Response, Problem> {
        match request.endpoint() {
            ("GET", "/api/v1/conversations") => list(&request),
            ("POST", "/admin/v1/rebuild") => rebuild(&request),
            _ => http::unknown_endpoint(&request),
        }
    }
}

fn list(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    let limit = request.limit(20, 100)? as usize;
    // Every conversation is below the cursor of the first page.
    let after = cursor::id(request.query("cursor"))?.unwrap_or(Id::LAST);
    let mut entries = match list::of(user, after, limit + 1) {
        Ok(entries) => entries,
        Err(ReadError::Problem(problem)) => return Err(problem),
        Err(ReadError::RedisUnavailable(why)) => {
            log::debug("a list without Redis", &[("why", &why)]);
            store::page(user, after, limit + 1)?
        }
    };
    let more = entries.len() > limit;
    entries.truncate(limit);
    presence::add(&mut entries);
    let next =
        entries.last().filter(|_| more).map_or("null".to_owned(), |last| format!(r#""{}""#, last.activity));
    let texts: Vec<_> = entries.iter().map(entry::Entry::json).collect();
    Ok(Response::text(200, format!(r#"{{"conversations":[{}],"next_cursor":{next}}}"#, texts.join(","))))
}

fn rebuild(request: &Request) -> Result<Response, Problem> {
    let cursor = request.json_or_empty()?.text("cursor")?;
    let is_first = cursor.is_none();
    let step = match cursor {
        None => rebuild::Step::first(store::size()?),
        Some(raw) => rebuild::Step::parse(&raw).ok_or_else(cursor::invalid)?,
    };
    let step = rebuild::run(step)?;
    Ok(Response::json(200, &step.answer(is_first)))
}
