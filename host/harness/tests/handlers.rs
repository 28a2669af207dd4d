//! Tests in Rust that lie beside their handlers, in one binary: linking is the slow part. They need the release files that
//! `switchboard build` makes.

use std::path::PathBuf;

#[path = "../../../handlers/send-message/tests/rust/faults.rs"]
mod send_message;

/// A release file of the last build.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test runs from a file");
    let target = test.ancestors().nth(3).expect("target/debug/deps");
    target.join("handlers").join(format!("{name}.wasm"))
}
