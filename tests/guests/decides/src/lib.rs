//! A hook whose decision is the first word of the content, and the handler of an action of its own, by frame
//! and by REST: it returns the payload that it got.

use sdk::before::Decision;
use sdk::{Problem, before, config, frame, http, log};
use serde_json::{Value, json};

struct Decides;
before::export!(Decides);
frame::export!(Decides);
http::export!(Decides);

impl before::Handler for Decides {
    fn decide(request: before::Request) -> Decision {
        let mut members = match request.members() {
            Ok(members) => members,
            Err(problem) => return Decision::Refuse(problem),
        };
        let content = members.get("content").and_then(Value::as_str).unwrap_or_default().to_owned();
        let first = || content.split(' ').next().unwrap_or_default().to_owned();
        let mood = config::text("mood").filter(|mood| !mood.is_empty()).unwrap_or_else(first);
        let mut change = |member: &str, value: Value| {
            members.insert(member.to_owned(), value);
            Decision::to(members.clone())
        };
        match mood.as_str() {
            "add" => {
                let adds = config::text("adds").unwrap_or_default();
                change("content", format!("{content}{adds}").into())
            }
            "empty" => change("content", "".into()),
            "move" => change("room", "another".into()),
            "who" => change("content", request.caller.map_or(Value::Null, |caller| caller.user_id.into())),
            "action" => change("content", request.action.into()),
            "refuse" => Decision::Refuse(Problem {
                status: 403,
                code: "unwanted_word".to_owned(),
                detail: "this word is unwanted here".to_owned(),
                field: Some("content".to_owned()),
                retry_after_ms: None,
            }),
            // Breaks the rule for the parameters of a path; in a frame it is a change like any other.
            "number" => change("room", json!(7)),
            "list" => Decision::Change("[]".to_owned()),
            "trap" => panic!("on purpose"),
            "loop" => {
                log::error("decides in a loop", &[]);
                let mut round = 0_u64;
                loop {
                    round = std::hint::black_box(round.wrapping_add(1));
                }
            }
            _ => Decision::Allow,
        }
    }
}

impl http::Handler for Decides {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let body = String::from_utf8_lossy(&request.body);
        Ok(http::Response::json(200, &json!({ "room": request.param("room"), "body": body })))
    }
}

impl frame::Handler for Decides {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        Ok(Some(frame::Reply::text("guests.said", request.payload)))
    }
}
