//! Pages of a conversation's messages. It reads Postgres, so a page is current when the acknowledgement of a message
//! arrives.

mod rules;

use rules::Page;
use sdk::{Id, Problem, frame, http, json, membership, params, postgres};

struct History;
http::export!(History);
frame::export!(History);

sdk::rows! {
    struct Answer { seated: bool, messages: String, has_more: bool }
}

impl http::Handler for History {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let page = Page {
            before: request.query_number("before_seq")?,
            after: request.query_number("after_seq")?,
            limit: request.limit(rules::LIMIT_DEFAULT, rules::LIMIT_MAX)?,
            kind: request.query("type").map(str::to_owned),
            bytes_max: rules::REST_BYTES_MAX,
        }
        .check()?;
        let conversation = membership::find(request.param("conversation_id"))?;
        let answer = read(conversation, &request.caller()?.user_id, &page)?;
        let body = format!(r#"{{"messages":{},"has_more":{}}}"#, answer.messages, answer.has_more);
        Ok(http::Response::text(200, body))
    }
}

impl frame::Handler for History {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let mut payload = request.payload()?;
        let conversation = json::required("conversation_id", payload.id("conversation_id")?)?;
        let page = Page {
            before: payload.number("before_seq")?,
            after: payload.number("after_seq")?,
            limit: payload.limit(rules::LIMIT_DEFAULT, rules::LIMIT_MAX)?,
            kind: payload.text("type")?,
            bytes_max: rules::FRAME_BYTES_MAX,
        }
        .check()?;
        let answer = read(conversation, &request.caller.user_id, &page)?;
        let payload = format!(
            r#"{{"conversation_id":"{conversation}","messages":{},"has_more":{}}}"#,
            answer.messages, answer.has_more
        );
        Ok(Some(frame::Reply::text("history", payload)))
    }
}

fn read(conversation: Id, user: &str, page: &Page) -> Result<Answer, Problem> {
    // Postgres plans a statement once, so each direction is its own.
    let statement =
        include_str!("sql/page.sql").replace("{direction}", if page.is_forward() { "asc" } else { "desc" });
    let rows = postgres::query(
        &statement,
        &params![conversation, user, page.before, page.after, page.kind.as_ref(), page.limit, page.bytes_max],
    )?;
    let answer: Option<Answer> = rows.one()?;
    answer.filter(|answer| answer.seated).ok_or_else(|| Problem::not_found("conversation"))
}
