//! A user's notifications: list, mark as read, delete. This file answers REST and frames, and `graphql`
//! answers GraphQL. All of them use `inbox`, which has the operations: `store` runs them in Postgres, `cache`
//! keeps the newest notifications in Redis, and `rules` makes the pages.
//!
//! The transaction of a change also writes an event of type `published`. From this event the handler
//! `outbox-relay` pushes the change to all connections of the user, and `notify` invalidates the cache again.

mod cache;
#[cfg(target_arch = "wasm32")]
mod graphql;
mod graphql_bounds;
mod graphql_http;
mod inbox;
mod rules;
mod store;

use rules::PageRequest;
use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, frame, json};

struct Notifications;
http::export!(Notifications);
frame::export!(Notifications);

impl http::Handler for Notifications {
    fn handle(request: Request) -> Result<Response, Problem> {
        let user = request.caller()?.user_id.clone();
        match request.endpoint() {
            ("GET", "/api/v1/notifications") => list(&request, &user),
            ("PUT", "/api/v1/notifications/read-all") => {
                let updated = inbox::mark_all_read(&user)?;
                Ok(Response::text(200, format!(r#"{{"updated":{updated}}}"#)))
            }
            ("PUT", "/api/v1/notifications/{notification_id}/read") => {
                let marked = inbox::mark_read(&user, notification_id(&request)?)?;
                let answer =
                    format!(r#"{{"notification":{},"unread":{}}}"#, marked.notification, marked.unread);
                Ok(Response::text(200, answer))
            }
            ("DELETE", "/api/v1/notifications/{notification_id}") => {
                inbox::delete(&user, notification_id(&request)?)?;
                Ok(Response::no_content())
            }
            #[cfg(target_arch = "wasm32")]
            ("GET" | "POST", "/graphql") => Ok(graphql::answer(&request, &user)),
            _ => http::unknown_endpoint(&request),
        }
    }
}

impl frame::Handler for Notifications {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        if request.frame_type != "notification.read" {
            return frame::unknown_type(&request);
        }
        let id = json::required("id", request.payload()?.id("id")?)?;
        let marked = inbox::mark_read(&request.caller.user_id, id)?;
        let payload =
            format!(r#"{{"id":"{id}","notification":{},"unread":{}}}"#, marked.notification, marked.unread);
        Ok(Some(frame::Reply::text("notification.ok", payload)))
    }
}

/// The id in the path.
fn notification_id(request: &Request) -> Result<Id, Problem> {
    request.param_id("notification_id", "notification")
}

fn list(request: &Request, user: &str) -> Result<Response, Problem> {
    let limit = request.limit(rules::LIMIT_DEFAULT, rules::LIMIT_MAX)?;
    let page_request =
        PageRequest::parse(request.query("unread"), request.query("type"), request.query("cursor"), limit)?;
    let page = inbox::list(user, &page_request)?;
    let next = page.next_cursor.map_or("null".to_owned(), |id| format!("\"{id}\""));
    Ok(Response::text(
        200,
        format!(
            r#"{{"notifications":[{}],"next_cursor":{next},"unread":{}}}"#,
            page.notifications.join(","),
            page.unread
        ),
    ))
}
