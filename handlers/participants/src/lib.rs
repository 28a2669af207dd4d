//! Participants of a conversation over REST: list, add, remove, change roles, hand over, mute, leave. The
//! rules are in `chat::membership::rules`. The handler `join-room` lets users join.

mod rules;
mod store;

use chat::conversation::Role;
use chat::invitation;
use chat::membership::rules::{Admission, Departure, RoleChange};
use chat::membership::{self, LockedConversation, ParticipantChange};
use rules::{Changes, Invitation};
use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, cursor, text};
use serde_json::json;

struct Participants;
http::export!(Participants);

impl http::Handler for Participants {
    fn handle(request: Request) -> Result<Response, Problem> {
        match request.endpoint() {
            ("GET", "/api/v1/conversations/{conversation_id}/participants") => show(&request),
            ("POST", "/api/v1/conversations/{conversation_id}/participants") => add(&request),
            ("PATCH", "/api/v1/conversations/{conversation_id}/participants/{user_id}") => change(&request),
            ("DELETE", "/api/v1/conversations/{conversation_id}/participants/{user_id}") => remove(&request),
            ("DELETE", "/api/v1/conversations/{conversation_id}") => leave(&request),
            _ => http::unknown_endpoint(&request),
        }
    }
}

fn show(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    let limit = request.limit(rules::PAGE, rules::PAGE)?;
    let after = cursor::user(request.query("cursor"))?.unwrap_or_default();
    let id = conversation(request)?;
    let mut found = store::people(id, user, &after, limit)?;
    let more = found.len() as u64 > limit;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|(user, _)| cursor::of_user(user));
    let texts: Vec<_> = found.into_iter().map(|(_, participant)| participant).collect();
    Ok(Response::text(
        200,
        format!(r#"{{"participants":[{}],"next_cursor":{}}}"#, texts.join(","), json!(next)),
    ))
}

fn add(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let invitation = Invitation::parse(request.json()?)?;
    invitation::count(by, &invitation.user_id)?;
    let mut locked = LockedConversation::lock(conversation(request)?, by, &invitation.user_id)?;
    let (status, participant) = match locked.state.add(invitation.role)? {
        Admission::Already => (200, store::participant(&locked, &invitation.user_id)?),
        Admission::As(role) => (201, locked.add(ParticipantChange { user: &invitation.user_id, role, by })?),
    };
    locked.commit()?;
    answer(status, &participant)
}

fn change(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let changes = Changes::parse(request.json()?)?;
    let user = person(request)?;
    let id = conversation(request)?;
    let mut locked = LockedConversation::lock(id, by, user)?;
    changes.check(&locked.state)?;
    match changes.role.map(|role| locked.state.change_role(role)).transpose()? {
        None | Some(RoleChange::None) => {}
        Some(RoleChange::To(role)) => locked.set_roles(&[(user, role)], by)?,
        Some(RoleChange::HandOver) => locked.set_roles(&[(by, Role::Admin), (user, Role::Owner)], by)?,
    }
    if let Some(notifications) = changes.notifications {
        store::mute(&locked, user, notifications)?;
    }
    let participant = store::participant(&locked, user)?;
    locked.commit()?;
    if changes.notifications.is_some() {
        store::forget(id);
    }
    answer(200, &participant)
}

fn remove(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let user = person(request)?;
    depart(LockedConversation::lock(conversation(request)?, by, user)?, user, by)
}

fn leave(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    depart(LockedConversation::lock(conversation(request)?, user, user)?, user, user)
}

fn depart(mut locked: LockedConversation, user: &str, by: &str) -> Result<Response, Problem> {
    match locked.state.remove()? {
        Departure::Leaves(role) => locked.remove(ParticipantChange { user, role, by })?,
        Departure::Ends(role) => {
            locked.remove(ParticipantChange { user, role, by })?;
            locked.end()?;
        }
        Departure::Hides => locked.hide(user, Role::Member)?,
    }
    locked.commit()?;
    Ok(Response::no_content())
}

fn conversation(request: &Request) -> Result<Id, Problem> {
    membership::find(request.param("conversation_id"), &request.caller()?.user_id)
}

/// The user of the path. A text that is not a user id is answered with `not_found`.
fn person(request: &Request) -> Result<&str, Problem> {
    let user = request.param("user_id");
    if text::is_user_id(user) { Ok(user) } else { Err(Problem::not_found("participant")) }
}

fn answer(status: u16, participant: &str) -> Result<Response, Problem> {
    Ok(Response::text(status, format!(r#"{{"participant":{participant}}}"#)))
}
