//! Answers a request with a greeting.

mod rules;

use sdk::{Problem, config, http};
use serde_json::json;

struct {Type};
http::export!({Type});

impl http::Handler for {Type} {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        match request.endpoint() {
            ("GET", "/api/v1/{name}") => {
                let word = config::text("greeting").unwrap_or_else(|| "hello".to_owned());
                let greeting = rules::greeting(&word, &request.caller()?.user_id);
                Ok(http::Response::json(200, &json!({ "greeting": greeting })))
            }
            _ => http::unknown_endpoint(&request),
        }
    }
}
