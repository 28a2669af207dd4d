//! Raises read and delivered marks, and returns receipts. The rules of marks are in `chat::marks` and
//! `app.mark`. The outbox announces a mark to the other participants.

mod rules;
mod store;

use chat::marks;
use chat::membership::{self, ConversationName};
use rules::{Positions, ReceiptsRequest};
use sdk::http::{self, Request, Response};
use sdk::{Id, Problem, cursor, frame, json};

struct Marks;
http::export!(Marks);
frame::export!(Marks);

impl http::Handler for Marks {
    fn handle(request: Request) -> Result<Response, Problem> {
        match request.endpoint() {
            ("POST", "/api/v1/conversations/{conversation_id}/read") => {
                let up_to = rules::up_to_seq(&mut request.json()?)?;
                let user = &request.caller()?.user_id;
                let conversation = membership::find(request.param("conversation_id"), user)?;
                Ok(Response::text(200, read(conversation, user, up_to)?))
            }
            ("GET", "/api/v1/conversations/{conversation_id}/receipts") => receipts(&request),
            _ => http::unknown_endpoint(&request),
        }
    }
}

impl frame::Handler for Marks {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let (user, mut payload) = (&request.caller.user_id, request.payload()?);
        match request.frame_type.as_str() {
            "read" => {
                let conversation = ConversationName::of_field(&mut payload)?;
                let up_to = rules::up_to_seq(&mut payload)?;
                let conversation = conversation.find(user)?;
                Ok(Some(frame::Reply::text("read.ok", read(conversation, user, up_to)?)))
            }
            "delivered" => {
                marks::deliver(user, &Positions::parse(payload)?.resolve(user)?)?;
                Ok(None)
            }
            _ => frame::unknown_type(&request),
        }
    }
}

fn read(conversation: Id, user: &str, up_to: u64) -> Result<String, Problem> {
    let marked = store::read(conversation, user, up_to)?;
    Ok(format!(
        r#"{{"conversation_id":"{conversation}","last_read_seq":{},"unread":{}}}"#,
        marked.through_seq, marked.unread
    ))
}

fn receipts(request: &Request) -> Result<Response, Problem> {
    let receipts = ReceiptsRequest {
        seq: json::required("seq", request.query_number("seq")?)?,
        after: cursor::user(request.query("cursor"))?,
        limit: request.limit(rules::RECEIPTS_MAX, rules::RECEIPTS_MAX)?,
    };
    let user = &request.caller()?.user_id;
    let conversation = membership::find_for("message", request.param("conversation_id"), user)?;
    Ok(Response::text(200, store::receipts(conversation, user, &receipts)?))
}
