//! Tries operations outside of its grants, one after another, and returns the result of each.

use sdk::channels::{self, Publication};
use sdk::{Problem, http, postgres, redis};
use serde_json::json;

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(request: http::Request) -> Result<http::Response, Problem> {
        let told = match request.param("what") {
            // A table of `notify`, and a table to which it may add rows, but from which it may not delete.
            "table" => format!("{:?}", postgres::query("select id from app.notifications", &[])),
            "delete" => format!("{:?}", postgres::execute("delete from app.messages", &[])),
            "host" => format!("{:?}", postgres::query("select name from switchboard.releases", &[])),
            "role" => format!("{:?}", postgres::execute("set role postgres", &[])),
            "own-key" => format!("{:?}", redis::command(&["INCR", "rate:own"])),
            "key" => format!("{:?}", redis::command(&["GET", "presence:ana"])),
            "second-key" => format!("{:?}", redis::command(&["RENAME", "rate:mine", "presence:ana"])),
            "scan" => format!("{:?}", redis::command(&["KEYS", "*"])),
            "script" => format!("{:?}", redis::script("stray", &["rate:mine"], &["presence:ana"])),
            "own-script" => format!("{:?}", redis::script("stray", &["rate:mine"], &["rate:mine"])),
            "script-key" => format!("{:?}", redis::script("stray", &["presence:ana"], &["rate:mine"])),
            "channel" => published("user:ana"),
            "own-channel" => published("topic:mine:1"),
            other => return Err(Problem::invalid("what", format!("is not `{other}`"))),
        };
        Ok(http::Response::json(200, &json!({ "told": told })))
    }
}

fn published(address: &str) -> String {
    let frame = r#"{"type":"x","payload":{}}"#.to_owned();
    format!("{:?}", channels::publish(&[Publication::new(address.to_owned(), frame)]))
}
