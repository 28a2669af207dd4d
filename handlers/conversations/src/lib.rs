//! Conversations over REST: create, show and change one. Other handlers do the rest: `participants` manages
//! participants, `join-room` lets users join, and `lists` lists a user's conversations.

mod changes;
mod rules;
mod store;

use changes::Changes;
use chat::membership;
use sdk::http::{self, Request, Response};
use sdk::rate::{self, Window};
use sdk::{Id, Problem};
use store::Create;

struct Conversations;
http::export!(Conversations);

impl http::Handler for Conversations {
    fn handle(request: Request) -> Result<Response, Problem> {
        match request.endpoint() {
            ("POST", "/api/v1/conversations") => create(&request),
            ("GET", "/api/v1/conversations/{conversation_id}") => detail(&request),
            ("PATCH", "/api/v1/conversations/{conversation_id}") => change(&request),
            _ => http::unknown_endpoint(&request),
        }
    }
}

fn create(request: &Request) -> Result<Response, Problem> {
    let owner = &request.caller()?.user_id;
    let plan = rules::plan(request.json()?, owner)?;
    rate::per_minute("create", owner, "conversations_per_minute", 120)?;
    if !plan.members.is_empty() {
        let most = rate::most("members_per_minute", 5000);
        let window = Window { what: "members", user: owner, most, window_ms: 60_000 };
        window.count_as(plan.members.len()).or_refuse()?;
    }
    let (status, id) = match store::create(&plan, owner)? {
        Create::Created(id) => (201, id),
        Create::Existing(id) => (200, id),
    };
    shown(status, id, owner)
}

fn detail(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    let id = membership::find(request.param("conversation_id"), user)?;
    shown(200, id, user)
}

fn change(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    let changes = Changes::parse(request.json()?)?;
    let id = membership::find(request.param("conversation_id"), user)?;
    store::change(id, &changes, user)?;
    shown(200, id, user)
}

fn shown(status: u16, id: Id, user: &str) -> Result<Response, Problem> {
    Ok(Response::text(status, format!(r#"{{"conversation":{}}}"#, store::detail(id, user)?)))
}
