//! The directory of users over REST: show an entry, change one's own. Redis caches entries for an hour. A
//! user's own entry is always read from Postgres, so users see their own changes at once.

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

/// The caller's own entry. A caller who has never connected has none, so it is made from the token.
fn own(me: &Principal) -> Result<String, Problem> {
    Ok(directory::own(&me.user_id)?.unwrap_or_else(|| rules::entry_of_token(&me.user_id, me.name.as_deref())))
}

fn answer(entry: &str) -> Result<Response, Problem> {
    Ok(Response::text(200, format!(r#"{{"user":{entry}}}"#)))
}
