//! Handlers outside of this repository, in any language: what the command line brings with it is enough.

use std::path::Path;
use std::process::{Output, Stdio};

use switchboard_tests::paths;
use tokio::process::Command;

/// `cargo package` compiles what it packed outside of the workspace.
#[tokio::test]
async fn the_sdk_is_a_package_of_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["package", "--package", "switchboard-sdk", "--allow-dirty", "--offline", "--target-dir"])
        .arg(paths::target().join("tests-data/package"))
        .current_dir(root);
    succeeded("cargo package", finished(&mut cargo).await);
}

async fn finished(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("the program runs")
}

/// Returns everything that a successful command printed.
fn succeeded(what: &str, output: Output) -> String {
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{what}: {}\n{text}", output.status);
    text
}
