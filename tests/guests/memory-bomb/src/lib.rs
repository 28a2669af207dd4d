//! Allocates memory without end. The call ends at `memory_mib`.

use sdk::{Problem, http};

struct Guest;
http::export!(Guest);

impl http::Handler for Guest {
    fn handle(_: http::Request) -> Result<http::Response, Problem> {
        let mut hoard: Vec<Vec<u8>> = Vec::new();
        loop {
            hoard.push(std::hint::black_box(vec![1; 64 * 1024]));
        }
    }
}
