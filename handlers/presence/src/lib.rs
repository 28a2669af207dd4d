//! Returns users' presence, sets the status that a user chooses, and pushes changes. Two users see each
//! other's presence if they share a conversation that both joined by themselves or wrote in.
//!
//! The handler `presence-sweep` detects who is online. Both handlers decide the status with the same script,
//! `presence.lua`.

mod pushes;
mod rules;
mod view;
mod watch;

use chat::{keys, presence};
use sdk::event::{self, Event, Verdict};
use sdk::frame::{Reply, Request};
use sdk::{Problem, frame, http, log, redis};
use serde_json::json;

struct Presence;
frame::export!(Presence);
http::export!(Presence);
event::export!(Presence);

impl http::Handler for Presence {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let values = request.query.iter().filter(|(key, _)| key == "user_ids");
        let users = rules::asked(values.map(|(_, value)| value.as_str()))?;
        let presence = view::of(&request.caller()?.user_id, &users)?;
        Ok(http::Response::json(200, &json!({ "presence": presence })))
    }
}

impl frame::Handler for Presence {
    fn handle(request: Request) -> Result<Option<Reply>, Problem> {
        match request.frame_type.as_str() {
            "presence.set" => set(&request).map(Some),
            "presence.watch" => watch(&request).map(Some),
            "focus" => focus(&request).map(|()| None),
            _ => frame::unknown_type(&request),
        }
    }
}

impl event::Handler for Presence {
    fn handle(events: Vec<Event>) -> Vec<Verdict> {
        pushes::push(&events)
    }
}

fn set(request: &Request) -> Result<Reply, Problem> {
    let (user, status) = (&request.caller.user_id, rules::chosen(request.payload()?)?);
    let changes = presence::run("set", keys::partition(user), &[user, &status]).map_err(unavailable)?;
    // The chosen status is stored already. If it cannot be announced now, the next sweep announces it.
    presence::announce(&presence::changes(&changes))?;
    Ok(Reply::new("presence.ok", &json!({ "status": status })))
}

fn watch(request: &Request) -> Result<Reply, Problem> {
    let (viewer, users) = (&request.caller.user_id, rules::watched(request.payload()?)?);
    // The watch begins before the snapshot is read, so no change in between is lost.
    watch::replace(&request.connection, viewer, &users).map_err(unavailable)?;
    let presence = view::of(viewer, &users)?;
    Ok(Reply::new("presence.snapshot", &json!({ "presence": presence })))
}

/// Stores in the connection's lease which conversation it looks at. The handler `notify` reads it there.
fn focus(request: &Request) -> Result<(), Problem> {
    let (user, focus) = (&request.caller.user_id, rules::focus(request.payload()?)?);
    let focus = focus.map(|name| name.find(user)).transpose()?;
    let focus = focus.map_or_else(|| "none".to_owned(), |id| id.to_string());
    let noted = presence::run("focus", keys::partition(user), &[user, &request.connection, &focus]);
    if let Err(error) = noted {
        // At worst the user gets an unneeded notification.
        log::warn("not noted where somebody looks", &[("why", &redis::describe(&error))]);
    }
    Ok(())
}

fn unavailable(error: redis::Error) -> Problem {
    log::warn("no presence without Redis", &[("why", &redis::describe(&error))]);
    Problem::unavailable()
}
