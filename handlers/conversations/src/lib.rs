//! Conversations over REST: create, list mine, look at one, see and add people. Joining by oneself is `join-room`'s.

mod rules;
mod store;

use rules::{Invitation, Plan};
use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, membership};
use serde_json::Value;
use store::Create;

struct Conversations;
http::export!(Conversations);

impl http::Handler for Conversations {
    fn handle(request: Request) -> Result<Response, Problem> {
        match request.endpoint() {
            ("POST", "/api/v1/conversations") => create(&request),
            ("GET", "/api/v1/conversations") => list(&request),
            ("GET", "/api/v1/conversations/{conversation_id}") => detail(&request),
            ("GET", "/api/v1/conversations/{conversation_id}/participants") => people(&request),
            ("POST", "/api/v1/conversations/{conversation_id}/participants") => add(&request),
            _ => http::unknown_endpoint(&request),
        }
    }
}

fn create(request: &Request) -> Result<Response, Problem> {
    let owner = &request.caller()?.user_id;
    let plan = Plan::parse(request.json()?, owner)?;
    let (status, id) = match store::create(&plan, owner)? {
        Create::Created(id) => (201, id),
        Create::Existing(id) => (200, id),
    };
    Ok(Response::text(status, format!(r#"{{"conversation":{}}}"#, store::detail(id, owner)?)))
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
    let user = &request.caller()?.user_id;
    let id = membership::find(request.param("conversation_id"))?;
    Ok(Response::text(200, format!(r#"{{"conversation":{}}}"#, store::detail(id, user)?)))
}

fn people(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    let id = membership::find(request.param("conversation_id"))?;
    let limit = request.limit(100, 100)?;
    let after = request.query("cursor").unwrap_or_default();
    let mut found = store::people(id, user, after, limit)?;
    let more = found.len() as u64 > limit;
    found.truncate(limit as usize);
    let next =
        found.last().filter(|_| more).map_or(Value::Null, |(user_id, _)| Value::from(user_id.as_str()));
    let texts: Vec<_> = found.into_iter().map(|(_, participant)| participant).collect();
    Ok(Response::text(200, format!(r#"{{"participants":[{}],"next_cursor":{next}}}"#, texts.join(","))))
}

fn add(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let invitation = Invitation::parse(request.json()?)?;
    let id = membership::find(request.param("conversation_id"))?;
    let admitted = membership::admit(id, &invitation.user_id, invitation.role, by)?;
    let status = if admitted.is_new() { 201 } else { 200 };
    let participant = admitted.participant.ok_or_else(Problem::internal)?;
    Ok(Response::text(status, format!(r#"{{"participant":{participant}}}"#)))
}
