//! Calls other handlers as its caller says, and answers calls: well, with a problem, or not at all.
//!
//! `{"handler": "nests", "method": "echo", "body": "…"}`

use sdk::{Problem, call, calls, config, http};
use serde_json::{Value, json};

struct Nests;
http::export!(Nests);
call::export!(Nests);

impl http::Handler for Nests {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let mut asked = request.json()?;
        let mut text = |member: &str| asked.text(member).map(Option::unwrap_or_default);
        let (handler, method, body) = (text("handler")?, text("method")?, text("body")?);
        let shown = match calls::call(&handler, &method, body.as_bytes()) {
            Ok(answer) => json!({ "answer": String::from_utf8_lossy(&answer) }),
            Err(error) => shown(&error),
        };
        Ok(http::Response::json(200, &shown))
    }
}

impl call::Handler for Nests {
    fn handle(request: call::Request) -> Result<Vec<u8>, Problem> {
        let body = String::from_utf8_lossy(&request.body);
        match request.method.as_str() {
            "echo" => Ok(call::answer(&json!({
                "says": config::text("says"),
                "from": request.handler,
                "caller": request.caller.as_ref().map(|caller| &caller.user_id),
                "body": body,
            }))),
            // Calls itself with the next depth, until that is refused.
            "again" => {
                let depth: u32 = body.parse().unwrap_or_default();
                let deeper = (depth + 1).to_string();
                calls::call("nests", "again", deeper.as_bytes()).or_else(|error| {
                    let mut shown = shown(&error);
                    shown["depth"] = depth.into();
                    Ok(call::answer(&shown))
                })
            }
            "problem" => Err(Problem::not_found("nest")),
            "trap" => panic!("on purpose"),
            "loop" => {
                let mut round = 0_u64;
                loop {
                    round = std::hint::black_box(round.wrapping_add(1));
                }
            }
            _ => call::unknown_method(&request),
        }
    }
}

fn shown(error: &calls::Error) -> Value {
    let kind = match error {
        calls::Error::Refused(_) => "refused",
        calls::Error::Busy => "busy",
        calls::Error::Unavailable(_) => "unavailable",
        calls::Error::Problem(_) => "problem",
        calls::Error::UnknownOutcome(_) => "unknown-outcome",
    };
    json!({ "error": kind, "why": calls::describe(error) })
}
