//! The code answers frames, but the manifest binds HTTP. The host refuses it before it runs.

use sdk::{Problem, frame};

struct Guest;
frame::export!(Guest);

impl frame::Handler for Guest {
    fn handle(_: frame::Request) -> Result<Option<frame::Reply>, Problem> {
        Ok(None)
    }
}
