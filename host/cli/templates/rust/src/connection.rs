//! Sends a greeting to every new connection.

mod rules;

use sdk::connection::{self, Opened};
use sdk::{Problem, Push, config, frame};
use serde_json::json;

struct {Type};
connection::export!({Type});

impl connection::Handler for {Type} {
    fn open(opened: Opened) -> Result<Vec<Push>, Problem> {
        let word = config::text("greeting").unwrap_or_else(|| "hello".to_owned());
        let greeting = rules::greeting(&word, &opened.caller.user_id);
        let payload = json!({ "greeting": greeting }).to_string();
        Ok(vec![Push { frame: frame::push("{name}", &payload), position: None }])
    }
}
