//! The directory over REST: who somebody is, and what one wants to be called oneself. Entries are kept in Redis for an
//! hour; Postgres has them. One's own is always read there, so nobody sees their own change late.

mod directory;
mod rules;

use rules::Changes;
use sdk::http::{self, Request, Response};
use sdk::{Principal, Problem, text};

struct Users;
http::export!(Users);

impl http::Handler for Users {
    fn handle(request: Request) -> Result<Response, Problem> {
        match request.endpoint() {
            ("GET", "/api/v1/users/{user_id}") => show(&request),
            ("GET", "/api/v1/users/me") => answer(&own(request.caller()?)?),
            ("PUT", "/api/v1/users/me") => change(&request),
            _ => http::unknown_endpoint(&request),
        }
    }
}

fn show(request: &Request) -> Result<Response, Problem> {
    let me = request.caller()?;
    let user = request.param("user_id");
    let entry = if user == me.user_id {
        own(me)?
    } else if text::is_user_id(user) {
        directory::other(user)?.ok_or_else(|| Problem::not_found("user"))?
    } else {
        return Err(Problem::not_found("user"));
    };
    answer(&entry)
}

fn change(request: &Request) -> Result<Response, Problem> {
    let me = request.caller()?;
    let changes = Changes::parse(request.json()?)?;
    let entry = if changes.is_empty() {
        own(me)?
    } else {
        directory::change(&me.user_id, me.name.as_deref(), &changes)?
    };
    answer(&entry)
}

/// Before one has ever connected, the token is all that is known.
fn own(me: &Principal) -> Result<String, Problem> {
    Ok(directory::own(&me.user_id)?.unwrap_or_else(|| rules::stranger(&me.user_id, me.name.as_deref())))
}

fn answer(entry: &str) -> Result<Response, Problem> {
    Ok(Response::text(200, format!(r#"{{"user":{entry}}}"#)))
}
