//! Who is in a conversation, over REST: show, add, remove, give roles, hand over, mute, leave. What may be is
//! `chat::membership::rules`; joining by oneself is `join-room`'s.

mod rules;
mod store;

use chat::conversation::Role;
use chat::invitation;
use chat::membership::rules::{Coming, Going, Turn};
use chat::membership::{self, Move, Room};
use rules::{Invitation, Wish};
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
    let after = cursor::person(request.query("cursor"))?.unwrap_or_default();
    let id = conversation(request)?;
    let mut found = store::people(id, user, &after, limit)?;
    let more = found.len() as u64 > limit;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|(user, _)| cursor::of_person(user));
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
    let mut room = Room::lock(conversation(request)?, by, &invitation.user_id)?;
    let (status, participant) = match room.state.add(invitation.role)? {
        Coming::Already => (200, store::participant(&room, &invitation.user_id)?),
        Coming::As(role) => (201, room.admit(Move { user: &invitation.user_id, role, by })?),
    };
    room.commit()?;
    answer(status, &participant)
}

fn change(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let wish = Wish::parse(request.json()?)?;
    let user = person(request)?;
    let id = conversation(request)?;
    let mut room = Room::lock(id, by, user)?;
    wish.check(&room.state)?;
    match wish.role.map(|role| room.state.turn(role)).transpose()? {
        None | Some(Turn::Nothing) => {}
        Some(Turn::Gets(role)) => room.give(&[(user, role)], by)?,
        Some(Turn::HandsOver) => room.give(&[(by, Role::Admin), (user, Role::Owner)], by)?,
    }
    if let Some(notifications) = wish.notifications {
        store::mute(&room, user, notifications)?;
    }
    let participant = store::participant(&room, user)?;
    room.commit()?;
    if wish.notifications.is_some() {
        store::forget(id);
    }
    answer(200, &participant)
}

fn remove(request: &Request) -> Result<Response, Problem> {
    let by = &request.caller()?.user_id;
    let user = person(request)?;
    go(Room::lock(conversation(request)?, by, user)?, user, by)
}

fn leave(request: &Request) -> Result<Response, Problem> {
    let user = &request.caller()?.user_id;
    go(Room::lock(conversation(request)?, user, user)?, user, user)
}

fn go(mut room: Room, user: &str, by: &str) -> Result<Response, Problem> {
    match room.state.remove()? {
        Going::Leaves(role) => room.part(Move { user, role, by })?,
        Going::Ends(role) => {
            room.part(Move { user, role, by })?;
            room.end()?;
        }
        Going::Hides => room.hide(user, Role::Member)?,
    }
    room.commit()?;
    Ok(Response::no_content())
}

fn conversation(request: &Request) -> Result<Id, Problem> {
    membership::find(request.param("conversation_id"), &request.caller()?.user_id)
}

/// What is no user id names nobody.
fn person(request: &Request) -> Result<&str, Problem> {
    let user = request.param("user_id");
    if text::is_user_id(user) { Ok(user) } else { Err(Problem::not_found("participant")) }
}

fn answer(status: u16, participant: &str) -> Result<Response, Problem> {
    Ok(Response::text(status, format!(r#"{{"participant":{participant}}}"#)))
}
