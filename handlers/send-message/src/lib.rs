//! Accepts messages, by REST and by frame. An acknowledgement means that the message is committed. The outbox
//! delivers it.

mod append;
mod rules;

use append::Append;
use chat::membership::{self, ConversationName};
use rules::Draft;
use sdk::rate::{self, Verdict, Window};
use sdk::{Problem, frame, http};

struct SendMessage;
http::export!(SendMessage);
frame::export!(SendMessage);

impl http::Handler for SendMessage {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let user = &request.caller()?.user_id;
        let conversation_id = match request.endpoint() {
            ("POST", "/api/v1/conversations/{conversation_id}/messages") => {
                Some(membership::find(request.param("conversation_id"), user)?)
            }
            ("POST", "/api/v1/messages") => None,
            _ => return http::unknown_endpoint(&request),
        };
        let mut body = request.json()?;
        let conversation_id = match conversation_id {
            Some(id) => id,
            None => ConversationName::of_field(&mut body)?.find(user)?,
        };
        let draft = Draft::parse(body, conversation_id, request.header("idempotency-key"))?;
        Ok(match send(&draft, user)? {
            Append::Stored(message) => http::Response::text(201, format!(r#"{{"message":{message}}}"#)),
            Append::Duplicate(message) => {
                http::Response::text(200, format!(r#"{{"message":{message},"duplicate":true}}"#))
            }
        })
    }
}

impl frame::Handler for SendMessage {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let (mut payload, user) = (request.payload()?, &request.caller.user_id);
        let conversation_id = ConversationName::of_field(&mut payload)?.find(user)?;
        let draft = Draft::parse(payload, conversation_id, None)?;
        let (message, duplicate) = match send(&draft, user)? {
            Append::Stored(message) => (message, false),
            Append::Duplicate(message) => (message, true),
        };
        let payload = format!(r#"{{"message":{message},"duplicate":{duplicate}}}"#);
        Ok(Some(frame::Reply::text("message.sent", payload)))
    }
}

/// Sends a message within the rate limit. A retry is answered even beyond the limit, and it does not count.
fn send(draft: &Draft, sender: &str) -> Result<Append, Problem> {
    let most = rate::most("messages_per_minute", 25);
    let window = Window { what: "send", user: sender, most, window_ms: 60_000 };
    let verdict = window.count_frequent();
    if let Verdict::Full(_) = verdict {
        let known = append::replay(draft, sender)?;
        return known.map(Append::Duplicate).ok_or_else(|| verdict.or_refuse().unwrap_err());
    }
    let outcome = append::append(draft, sender);
    if verdict == Verdict::Counted && !matches!(outcome, Ok(Append::Stored(_))) {
        window.uncount();
    }
    outcome
}
