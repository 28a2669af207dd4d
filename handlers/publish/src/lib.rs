//! Accepts frames that internal systems publish. A response means that the frame is committed; the outbox
//! delivers it.

mod rules;
mod store;

use rules::{Publication, Target};
use sdk::schedule::{self, Tick};
use sdk::{Problem, http, log};
use store::Publish;

/// The role in the tokens of internal systems.
const SERVICE: &str = "service";

struct Publisher;
http::export!(Publisher);
schedule::export!(Publisher);

impl http::Handler for Publisher {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let caller = request.caller()?;
        if !caller.roles.iter().any(|role| role == SERVICE) {
            return Err(Problem::forbidden(
                "only internal systems publish: a token with role `service` is needed",
            ));
        }
        let mut publication = Publication::parse(request.json()?, request.header("idempotency-key"))?;
        if let Target::Slug(name) = &publication.kind {
            let conversation = name.find_any().map_err(|problem| problem.with_field("target"))?;
            publication = publication.to(conversation);
        }
        let missing = match publication.kind {
            Target::Conversation(id) => !store::has_conversation(id)?,
            _ => false,
        };
        let published = if missing {
            // A retry of a publication that was accepted earlier still succeeds.
            let known = store::replay(&publication, &caller.user_id)?;
            known.ok_or_else(|| Problem::not_found("conversation").with_field("target"))?
        } else {
            store::publish(&publication, &caller.user_id)?
        };
        Ok(match published {
            Publish::Accepted(id) => http::Response::text(202, format!(r#"{{"id":"{id}"}}"#)),
            Publish::Duplicate(id) => {
                http::Response::text(202, format!(r#"{{"id":"{id}","duplicate":true}}"#))
            }
        })
    }
}

impl schedule::Handler for Publisher {
    fn run(_: Tick) -> Result<(), String> {
        let forgotten = store::clean().map_err(|problem| format!("keys are kept: {}", problem.detail))?;
        if forgotten > 0 {
            log::info("keys of publications are forgotten", &[("count", &forgotten.to_string())]);
        }
        Ok(())
    }
}
