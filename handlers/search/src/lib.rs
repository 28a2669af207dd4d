//! Full-text search in one conversation or in all of mine. Which messages were found is remembered for a minute, by id;
//! whether they may be seen, and what they say, is asked every time.

mod rules;

use chat::{keys, membership};
use rules::{Question, Scope};
use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, log, params, postgres, rate, redis};

struct Search;
http::export!(Search);

/// Of the newest messages that hold the words so many are ranked. Each costs some microseconds.
const CANDIDATES: u64 = 200;
/// Kept of them: as many as one can ask for, so that the limit does not make another question.
const FOUND_MAX: u64 = rules::LIMIT_MAX;

sdk::rows! {
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
        let question = Question { scope, words };
        rate::per_minute("search", user, "searches_per_minute", 120)?;
        let found = found(user, &question)?;
        let results = show(user, &question, &found, limit)?;
        Ok(Response::text(200, format!(r#"{{"results":{results}}}"#)))
    }
}

fn found(user: &str, question: &Question) -> Result<Vec<Id>, Problem> {
    let key = keys::search(user, &question.digest());
    match redis::command(&["GET", &key]) {
        Ok(reply) => {
            if let Some(found) = reply.text().and_then(rules::read_ids) {
                return Ok(found);
            }
        }
        Err(error) => {
            log::debug("a search without its cache", &[("why", &redis::describe(&error))]);
            return find(user, question);
        }
    }
    let found = find(user, question)?;
    // Lost at worst: the next one searches again.
    let _ = redis::command(&["SET", &key, &rules::write_ids(&found), "EX", &keys::SEARCH_TTL_S.to_string()]);
    Ok(found)
}

fn find(user: &str, question: &Question) -> Result<Vec<Id>, Problem> {
    let rows = postgres::query(
        include_str!("sql/find.sql"),
        &params![user, question.conversation(), &question.words, CANDIDATES, FOUND_MAX],
    )?;
    let found: Option<Option<Vec<String>>> = rows.cell()?;
    let found = found.flatten().ok_or_else(|| unseen(user, question))?;
    Ok(found.iter().filter_map(|id| Id::parse(id)).collect())
}

fn show(user: &str, question: &Question, found: &[Id], limit: u64) -> Result<String, Problem> {
    let rows = postgres::query(
        include_str!("sql/show.sql"),
        &params![user, question.conversation(), &question.words, found, limit],
    )?;
    let shown: Option<Shown> = rows.one()?;
    let shown = shown.filter(|shown| shown.seated).ok_or_else(|| unseen(user, question))?;
    Ok(shown.results)
}

fn unseen(user: &str, question: &Question) -> Problem {
    match question.conversation() {
        Some(conversation) => membership::unseen(conversation, user, "conversation"),
        // Of all that is mine, nothing is somebody else's.
        None => Problem::internal(),
    }
}
