//! Tests in Rust that are in the directories of their handlers, in one binary, because linking is slow. They
//! need the release files of `switchboard build`.

use std::path::PathBuf;

#[path = "../../../handlers/send-message/tests/rust/faults.rs"]
mod send_message;

/// The release file of the last build.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test runs from a file");
    let target = test.ancestors().nth(3).expect("target/debug/deps");
    target.join("handlers").join(format!("{name}.wasm"))
}
