//! `docs/handler-guide.md`, as a reader follows it: the test runs every command in order, beside a running
//! node. It uses a small tree of its own, which stays between runs, so that a second run compiles only the
//! reader's changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use switchboard_tests::admin::ADMIN_TOKEN;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::paths;
use switchboard_tests::token::JWT_SECRET;
use tokio::process::Command;

#[tokio::test]
async fn every_command_of_the_guide_does_what_it_says() {
    Host::test(Options::default(), async |host| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let guide = fs::read_to_string(root.join("docs/handler-guide.md")).expect("the guide");
        let tree = tree(root);
        let admin = host.admin_address().to_string();
        let script = commands(&guide).replace("127.0.0.1:8080", &host.address.to_string());
        assert!(
            script.contains("switchboard new hello") && script.contains("switchboard deploy"),
            "{script}"
        );

        let path = std::env::var("PATH").unwrap_or_default();
        let own = paths::switchboard().parent().expect("a directory").display().to_string();
        let begun = Instant::now();
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(&tree)
            .env("PATH", format!("{own}:{path}"))
            .env("CARGO_TARGET_DIR", tree.join("target"))
            .env("SWITCHBOARD_ADMIN_LISTEN", admin)
            .env("SWITCHBOARD_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("SWITCHBOARD_JWT_SECRET", JWT_SECRET)
            .stdin(Stdio::null())
            .output()
            .await
            .expect("bash runs");
        let texts = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{}\n{}\n{}", output.status, texts[0], texts[1]);
        for wanted in [
            "hello/works differs",
            "as it should",
            "1 passed",
            "{\"greeting\":\"hello alice\"}",
            "hello/works: updated",
            "they differ",
        ] {
            assert!(texts.concat().contains(wanted), "{wanted}\n{}\n{}", texts[0], texts[1]);
        }
        eprintln!("the guide was followed in {} s", begun.elapsed().as_secs());
    })
    .await;
}

/// The blocks of commands, in order.
fn commands(guide: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in guide.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            command if inside => {
                script.push_str(command);
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

/// The contract and the sdk, which are all that a handler needs of this tree.
fn tree(root: &Path) -> PathBuf {
    let tree = paths::target().join("tests-data/guide");
    for made in ["hello", "chatty", "ticker", "listener", "doorman"] {
        let _ = fs::remove_dir_all(tree.join("handlers").join(made));
    }
    fs::create_dir_all(tree.join("handlers")).expect("a directory");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace's manifest");
    let manifest = with_list(&manifest, "\nmembers", r#""handlers/*""#);
    let manifest = with_list(&manifest, "\ndefault-members", r#""handlers/*""#);
    fs::write(tree.join("Cargo.toml"), manifest).expect("a manifest");
    fs::copy(root.join("Cargo.lock"), tree.join("Cargo.lock")).expect("the same versions");
    for directory in ["wit", "handlers/sdk"] {
        copy(&root.join(directory), &tree.join(directory));
    }
    tree
}

/// The manifest with other elements in one of its lists.
fn with_list(manifest: &str, name: &str, elements: &str) -> String {
    let (before, rest) = manifest.split_once(&format!("{name} = [")).expect("the list is in the manifest");
    let (_, after) = rest.split_once(']').expect("the list ends");
    format!("{before}{name} = [{elements}]{after}")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else if fs::read(&to).ok() != fs::read(&from).ok() {
            // An unchanged file keeps its time, so cargo does not compile it again.
            fs::copy(&from, &to).expect("a copy");
        }
    }
}
