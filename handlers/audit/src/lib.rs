//! Shows the messages of any conversation to auditors, with the texts that were edited or deleted. The
//! statement that reads the messages also records the access and its reason, so no access is unrecorded.

mod rules;

use chat::membership::ConversationName;
use rules::Access;
use sdk::{Id, Principal, Problem, http, params, postgres};

const READ: &str = include_str!("sql/read.sql");

struct Audit;
http::export!(Audit);

sdk::rows! {
    struct Answer { recorded: bool, messages: String, has_more: bool }
}

impl http::Handler for Audit {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let auditor = request.caller()?;
        rules::may_audit(&auditor.roles)?;
        let access = Access {
            reason: request.query("reason").map(str::to_owned),
            before: request.query_number("before_seq")?,
            after: request.query_number("after_seq")?,
            limit: request.limit(rules::LIMIT_DEFAULT, rules::LIMIT_MAX)?,
            before_change: request.query_number("before_change")?,
            kind: request.query("type").map(str::to_owned),
        }
        .check()?;
        let name = ConversationName::parse(request.param("conversation_id"));
        let conversation = name.ok_or_else(|| Problem::not_found("conversation"))?.find_any()?;
        let answer = read(conversation, auditor, &access)?;
        let body = format!(r#"{{"messages":{},"has_more":{}}}"#, answer.messages, answer.has_more);
        Ok(http::Response::text(200, body))
    }
}

fn read(conversation: Id, auditor: &Principal, access: &Access) -> Result<Answer, Problem> {
    let statement = READ.replace("{direction}", if access.after.is_some() { "asc" } else { "desc" });
    let rows = postgres::query(
        &statement,
        &params![
            conversation,
            access.before,
            access.after,
            access.kind.as_ref(),
            access.limit,
            rules::BYTES_MAX,
            Id::make(),
            &auditor.user_id,
            &auditor.session_id,
            access.reason.as_ref(),
            access.page(),
            access.before_change
        ],
    )?;
    let answer: Option<Answer> = rows.one()?;
    answer.filter(|answer| answer.recorded).ok_or_else(|| Problem::not_found("conversation"))
}
