//! Sends each new connection a push that has the number of connections in its call. The name of a user says
//! what happens:
//!
//! - `trap…`: a call with this user traps, when the connection opens and when it closes.
//! - `alone…`: this user wants a call of its own.
//! - `fails…`: this user gets a problem in a call for several users.
//! - `hold…`: the call waits for the key `welcome:go`. So the connections that come meanwhile form one batch.

use sdk::connection_batch::{self, Closed, Opened, Opening};
use sdk::redis::{Pipeline, Reply};
use sdk::{Problem, Push, frame, log};
use serde_json::json;

struct Welcome;
connection_batch::export!(Welcome);
frame::export!(Welcome);

impl connection_batch::Handler for Welcome {
    fn open(_: String, opened: Vec<Opened>) -> Vec<Opening> {
        let count = opened.len();
        if opened.iter().any(|opened| opened.caller.user_id.starts_with("hold")) {
            while !may_go() {}
        }
        let open = |opened: Opened| {
            let user = opened.caller.user_id;
            assert!(!user.starts_with("trap"), "a user makes the call trap");
            if user.starts_with("alone") && count > 1 {
                return Opening::Alone;
            }
            if user.starts_with("fails") && count > 1 {
                return Opening::Failed(Problem::internal());
            }
            let frame = frame::push("welcome", &json!({ "user": user, "together": count }).to_string());
            Opening::Pushes(vec![Push { frame, position: None }])
        };
        opened.into_iter().map(open).collect()
    }

    fn close(_: String, closed: Vec<Closed>) {
        for closed in closed {
            assert!(!closed.user_id.starts_with("trap"), "a user makes the call trap");
            log::info("goodbye", &[("to", &closed.user_id)]);
        }
    }
}

/// Many commands in one host call, because the number of host calls is bounded.
fn may_go() -> bool {
    let mut pipeline = Pipeline::new();
    (0..100).for_each(|_| {
        pipeline.push(&["EXISTS", "welcome:go"]);
    });
    let replies = pipeline.run().expect("Redis answers");
    replies.last().and_then(Reply::integer) == Some(1)
}

impl frame::Handler for Welcome {
    fn handle(_: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        Ok(Some(frame::Reply::new("welcomed", &json!({}))))
    }
}
