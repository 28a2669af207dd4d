//! Answers frames, says the code; its manifest binds HTTP. Refused before it runs.

use sdk::{Problem, frame};

struct Guest;
frame::export!(Guest);

impl frame::Handler for Guest {
    fn handle(_: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        Ok(None)
    }
}
