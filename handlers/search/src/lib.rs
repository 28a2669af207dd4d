//! Full-text search in one conversation, or in all conversations of the caller. The ids of found messages are
//! cached for a minute. Each request reads from Postgres whether the caller may see them, and their text.

mod rules;

use chat::{keys, membership};
use rules::{Query, Scope};
use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, log, params, postgres, rate, redis};

struct Search;
http::export!(Search);

/// The newest matching messages that are ranked. Each costs a few microseconds.
const CANDIDATES: u64 = 200;
/// The ids that are cached: the largest limit of a request, so that the limit is not part of the cache key.
const FOUND_MAX: u64 = rules::LIMIT_MAX;

sdk::rows! {
    /// `ids` is null if the user is not in the conversation.
    struct Found { ids: Option<String>, results: String }
    struct Shown { seated: bool, results: String }
}

impl http::Handler for Search {
    fn handle(request: Request) -> Result<Response, Problem> {
        let user = &request.caller()?.user_id;
        let limit = request.limit(rules::LIMIT_DEFAULT, rules::LIMIT_MAX)?;
        let words = rules::words(request.query("q"))?;
        let scope = match request.endpoint() {
            ("GET", "/api/v1/search") => Scope::Mine,
            ("GET", "/api/v1/conversations/{conversation_id}/search") => {
                Scope::One(membership::find(request.param("conversation_id"), user)?)
            }
            _ => return http::unknown_endpoint(&request),
        };
        let query = Query { scope, words };
        rate::per_minute("search", user, "searches_per_minute", 120)?;
        let results = results(user, &query, limit)?;
        Ok(Response::text(200, format!(r#"{{"results":{results}}}"#)))
    }
}

/// The results as JSON text. If Redis has the ids of this search, only those messages are read.
fn results(user: &str, query: &Query, limit: u64) -> Result<String, Problem> {
    let key = keys::search(user, &query.digest());
    match redis::command(&["GET", &key]) {
        Ok(reply) => match reply.text().and_then(rules::read_ids) {
            Some(found) => show(user, query, &found, limit),
            None => {
                let (ids, results) = find(user, query, limit)?;
                // If it fails, the next request searches again.
                let _ = redis::command(&["SET", &key, &ids, "EX", &keys::SEARCH_TTL_S.to_string()]);
                Ok(results)
            }
        },
        Err(error) => {
            log::debug("a search without its cache", &[("why", &redis::describe(&error))]);
            find(user, query, limit).map(|(_, results)| results)
        }
    }
}

/// Searches. Returns the ids to cache, as text, and the results.
fn find(user: &str, query: &Query, limit: u64) -> Result<(String, String), Problem> {
    let rows = postgres::query(
        include_str!("sql/find.sql"),
        &params![user, query.conversation(), &query.words, CANDIDATES, FOUND_MAX, limit],
    )?;
    let found: Option<Found> = rows.one()?;
    let found = found.and_then(|found| Some((found.ids?, found.results)));
    found.ok_or_else(|| unseen(user, query))
}

fn show(user: &str, query: &Query, found: &[Id], limit: u64) -> Result<String, Problem> {
    let rows = postgres::query(
        include_str!("sql/show.sql"),
        &params![user, query.conversation(), &query.words, found, limit],
    )?;
    let shown: Option<Shown> = rows.one()?;
    let shown = shown.filter(|shown| shown.seated).ok_or_else(|| unseen(user, query))?;
    Ok(shown.results)
}

fn unseen(user: &str, query: &Query) -> Problem {
    match query.conversation() {
        Some(conversation) => membership::unseen(conversation, user, "conversation"),
        // A search in the caller's own conversations always has a result.
        None => Problem::internal(),
    }
}
