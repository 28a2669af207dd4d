//! Returns pages of a conversation's messages, by REST and by frame. A page contains every message that was
//! acknowledged before the request, whether the page comes from the cache or from Postgres.

mod rules;
mod store;

use chat::membership::{self, ConversationName};
use rules::{Form, Page};
use sdk::{Problem, frame, http};

struct History;
http::export!(History);
frame::export!(History);

impl http::Handler for History {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let user = &request.caller()?.user_id;
        let page = Page {
            before: request.query_number("before_seq")?,
            after: request.query_number("after_seq")?,
            limit: request.limit(rules::LIMIT_DEFAULT, rules::LIMIT_MAX)?,
            kind: request.query("type").map(str::to_owned),
            form: Form::Rest,
        }
        .check()?;
        let conversation = membership::find(request.param("conversation_id"), user)?;
        let answer = store::read(conversation, user, &page)?;
        let body = format!(r#"{{"messages":{},"has_more":{}}}"#, answer.messages, answer.has_more);
        Ok(http::Response::text(200, body))
    }
}

impl frame::Handler for History {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let (mut payload, user) = (request.payload()?, &request.caller.user_id);
        let conversation = ConversationName::of_field(&mut payload)?;
        let page = Page {
            before: payload.number("before_seq")?,
            after: payload.number("after_seq")?,
            limit: payload.limit(rules::LIMIT_DEFAULT, rules::LIMIT_MAX)?,
            kind: payload.text("type")?,
            form: Form::Frame,
        }
        .check()?;
        let conversation = conversation.find(user)?;
        let answer = store::read(conversation, user, &page)?;
        let payload = format!(
            r#"{{"conversation_id":"{conversation}","messages":{},"has_more":{}}}"#,
            answer.messages, answer.has_more
        );
        Ok(Some(frame::Reply::text("history", payload)))
    }
}
