//! Answers the frame `{name}` with a greeting.

mod rules;

use sdk::{Problem, config, frame};
use serde_json::json;

struct {Type};
frame::export!({Type});

impl frame::Handler for {Type} {
    fn handle(request: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        let mut payload = request.payload()?;
        let who = payload.text("name")?.unwrap_or_else(|| request.caller.user_id.clone());
        let word = config::text("greeting").unwrap_or_else(|| "hello".to_owned());
        let greeting = rules::greeting(&word, &who);
        Ok(Some(frame::Reply::new("{name}.ok", &json!({ "greeting": greeting }))))
    }
}
