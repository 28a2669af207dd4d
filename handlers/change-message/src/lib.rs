//! Edits and deletes messages, by REST and by frame. A reply means that the change is committed, together
//! with the former version. The outbox announces the change to the other participants.

mod rules;
mod store;

use chat::membership::{self, ConversationName};
use rules::{Change, Target};
use sdk::http::{self, Request, Response};
use sdk::rate::{self, Window};
use sdk::{Id, Problem, frame, json};
use store::Changed;

struct ChangeMessage;
http::export!(ChangeMessage);
frame::export!(ChangeMessage);

impl http::Handler for ChangeMessage {
    fn handle(request: Request) -> Result<Response, Problem> {
        let change = match request.method.as_str() {
            "PUT" => Change::edit(request.json()?)?,
            "DELETE" => Change::Delete,
            _ => return http::unknown_endpoint(&request),
        };
        let message = request.param_id("message_id", "message")?;
        let user = &request.caller()?.user_id;
        let conversation = membership::find_for("message", request.param("conversation_id"), user)?;
        let changed = change_limited(Target { conversation, message }, user, &change)?;
        Ok(match change {
            Change::Edit { .. } => Response::text(200, format!(r#"{{"message":{}}}"#, changed.message)),
            Change::Delete => Response::no_content(),
        })
    }
}

impl frame::Handler for ChangeMessage {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let (mut payload, user) = (request.payload()?, &request.caller.user_id);
        let conversation = ConversationName::of_field(&mut payload)?;
        let message = json::required("message_id", payload.id("message_id")?)?;
        let target = || -> Result<Target, Problem> {
            Ok(Target { conversation: conversation.find_for("message", user)?, message })
        };
        Ok(Some(match request.frame_type.as_str() {
            "message.edit" => {
                let change = Change::edit(payload)?;
                let target = target()?;
                let changed = change_limited(target, user, &change)?;
                frame::Reply::text("message.edited", edited(target.conversation, &changed))
            }
            "message.delete" => {
                let target = target()?;
                let changed = change_limited(target, user, &Change::Delete)?;
                frame::Reply::text("message.deleted", deleted(target, &changed))
            }
            _ => return frame::unknown_type(&request),
        }))
    }
}

/// Makes a change within the rate limit. Each change is stored permanently and pushed to everyone, so changes
/// are limited like messages. A request that changed nothing, such as a retry or a refused one, does not
/// count.
fn change_limited(target: Target, user: &str, change: &Change) -> Result<Changed, Problem> {
    let most = rate::most("changes_per_minute", 120);
    let window = Window { what: "change", user, most, window_ms: 60_000 };
    let verdict = window.count();
    let counted = verdict == rate::Verdict::Counted;
    verdict.or_refuse()?;
    let outcome = store::change(target, user, change);
    if counted && !outcome.as_ref().is_ok_and(|changed| changed.is_new) {
        window.uncount();
    }
    outcome
}

// The replies have the payloads of the pushes to the other participants.

fn edited(conversation: Id, changed: &Changed) -> String {
    let change = changed.change.map_or("null".to_owned(), |change| change.to_string());
    format!(r#"{{"conversation_id":"{conversation}","message":{},"change":{change}}}"#, changed.message)
}

fn deleted(Target { conversation, message }: Target, changed: &Changed) -> String {
    let change = changed.change.map_or("null".to_owned(), |change| change.to_string());
    format!(
        r#"{{"conversation_id":"{conversation}","message_id":"{message}","seq":{},"change":{change}}}"#,
        changed.seq
    )
}
