//! Conversations over REST: create, list mine, look at one, change one. Who is in them is `participants`'; joining by
//! oneself is `join-room`'s.

mod changes;
mod rules;
mod store;

use changes::Changes;
use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, membership};
use store::Create;

struct Conversations;
http::export!(Conversations);

impl http::Handler for Conversations {
    fn handle(request: Request) -> Result<Response, Problem> {
        match request.endpoint() {
            ("POST", "/api/v1/conversations") => create(&request),
            ("GET", "/api/v1/conversations") => list(&request),
            ("GET", "/api/v1/conversations/{conversation_id}") => detail(&request),
            ("PATCH", "/api/v1/conversations/{conversation_id}") => change(&request),
            _ => http::unknown_endpoint(&request),
        }
    }
}

fn create(request: &Request) -> Result<Response, Problem> {
    let owner = &request.caller()?.user_id;
    let plan = rules::plan(request.json()?, owner)?;
    let (status, id) = match store::create(&plan, owner)? {
        Create::Created(id) => (201, id),
        Create::Existing(id) => (200, id),
    };
    shown(status, id, owner)
}

fn list(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    let limit = request.limit(20, 100)?;
    let after = match request.query("cursor") {
        None => None,
        Some(raw) => Some(Id::parse(raw).ok_or_else(|| Problem::invalid("cursor", "is not one of ours"))?),
    };
    let mut found = store::list(user, after, limit)?;
    let more = found.len() as u64 > limit;
    found.truncate(limit as usize);
    let next =
        found.last().filter(|_| more).map_or("null".to_owned(), |last| format!(r#""{}""#, last.activity));
    let texts: Vec<_> = found.into_iter().map(|listed| listed.conversation).collect();
    Ok(Response::text(200, format!(r#"{{"conversations":[{}],"next_cursor":{next}}}"#, texts.join(","))))
}

fn detail(request: &Request) -> Result<Response, Problem> {
    let id = membership::find(request.param("conversation_id"))?;
    shown(200, id, &request.caller()?.user_id)
}

fn change(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    let changes = Changes::parse(request.json()?)?;
    let id = membership::find(request.param("conversation_id"))?;
    store::change(id, &changes, user)?;
    shown(200, id, user)
}

fn shown(status: u16, id: Id, user: &str) -> Result<Response, Problem> {
    Ok(Response::text(status, format!(r#"{{"conversation":{}}}"#, store::detail(id, user)?)))
}
