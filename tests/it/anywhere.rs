//! Handlers outside of this repository, in any language: what the command line brings with it is enough. The
//! tests of TypeScript and Python need npm and pip; where these do not answer, the tests print that they are
//! skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use switchboard_tests::folder::{Folder, server_runs};
use switchboard_tests::host::free_address;
use switchboard_tests::paths;
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;
use tokio::time::timeout;

const TRIGGERS: [&str; 5] = ["http", "frame", "schedule", "event", "connection"];
/// A package manager that answers does so much earlier.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The manifest of a handler whose component is copied. `{says}` and `{grants}` make it another release.
const COPIED: &str = r#"
name = "moody"
on.http = [{ method = "GET", path = "/api/v1/guests/moody" }]
public_settings = ["mood", "says"]
{grants}
[config]
mood = "fine"
says = "{says}"

[build]
command = ["sh", "-c", "mkdir -p target && cp made-elsewhere.wasm target/component.wasm"]
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// `cargo package` compiles what it packed outside of the workspace.
#[tokio::test]
async fn the_sdk_is_a_package_of_its_own() {
    let folder = Folder::new().with("CARGO_TARGET_DIR", paths::target().join("tests-data/package"));
    let packed = "package --package switchboard-sdk --allow-dirty --offline";
    folder.run(&format!("cd '{}' && cargo {packed}", root().display())).await;
}

#[tokio::test]
async fn the_contract_comes_with_the_command_line() {
    let folder = Folder::new();
    folder.run("switchboard wit --out wit && switchboard wit --as typescript --out types").await;
    for file in fs::read_dir(root().join("wit")).expect("the contract").flatten() {
        let copy = fs::read(folder.path("wit").join(file.file_name())).expect("a copy");
        assert_eq!(copy, fs::read(file.path()).unwrap(), "{}", file.path().display());
    }
    let declarations = fs::read_to_string(folder.path("types/switchboard.d.ts")).expect("declarations");
    let event = folder.run("switchboard wit event --as typescript").await;
    assert!(declarations.contains(event.trim_end()) && event.contains("handle(events: Array<Event>)"));
    assert!(folder.run("switchboard wit http").await.contains("interface http {"));
    assert!(folder.refuses("switchboard wit mail").await.contains("channels, clock, config"));
}

#[tokio::test]
async fn handlers_in_rust_are_made_tested_and_recorded_in_an_empty_folder() {
    let folder = Folder::with_kept_target("anywhere");
    for on in TRIGGERS {
        folder.run(&format!("switchboard new on-{on} --on {on}")).await;
    }
    // The versions of this repository, which are on this machine. The workspace of an author gets the newest.
    fs::copy(root().join("Cargo.lock"), folder.path("Cargo.lock")).expect("a copy");
    let replayed = folder.run("switchboard test").await;
    assert!(replayed.contains("5 passed"), "{replayed}");
    // It starts a Postgres and a Redis for this, which end with it.
    let real = folder.run("switchboard test on-http --real && switchboard test on-http --record").await;
    assert!(real.contains("1 passed"), "{real}");
    for name in ["postgres", "redis"] {
        assert!(!server_runs(&folder.path(".switchboard/test-services"), name), "{name} still runs");
    }
}

#[tokio::test]
async fn a_component_of_any_language_is_checked_when_it_is_built() {
    let folder = Folder::new();
    let release = Release::guest("ungranted-import");
    let manifest = release.manifest().to_string();
    let command = "[build]\ncommand = [\"cp\", \"made-elsewhere.wasm\", \"component.wasm\"]";
    folder.write("handlers/x/made-elsewhere.wasm", release.component());
    let named = format!("{manifest}\n{command}\ncomponent = \"component.wasm\"\n");
    folder.write("handlers/x/handler.toml", named);
    let refused = folder.refuses("switchboard build").await;
    assert!(refused.contains("x: the component imports") && refused.contains("does not grant"), "{refused}");

    folder.write("handlers/x/handler.toml", format!("{manifest}\n{command}\n"));
    let refused = folder.refuses("switchboard build").await;
    assert!(refused.contains("left no component in target/component.wasm"), "{refused}");
}

#[tokio::test]
async fn dev_starts_what_it_needs_and_follows_a_handler_of_any_language() {
    let folder = Folder::new();
    let release = |says: &str, grants: &str| COPIED.replace("{says}", says).replace("{grants}", grants);
    folder.write("handlers/moody/made-elsewhere.wasm", Release::guest("moody").component());
    folder.write("handlers/moody/handler.toml", release("first", ""));
    let (listen, admin) = (free_address(), free_address());
    let mut dev = folder.dev(listen, admin).await;

    // A reader copies these lines into a shell.
    let printed = dev.prints("curl").await;
    let line = |begin: &str| {
        let line = printed.lines().map(str::trim).find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("no line begins with {begin}:\n{printed}")).to_owned()
    };
    let call = format!("{}\n{}", line("alice="), line("curl"));
    assert_eq!(folder.run(&call).await, r#"{"says":"first"}"#);

    folder.write("handlers/moody/handler.toml", release("second", ""));
    let says = async |word: &str| {
        until(format_args!("the release that says {word}"), async || {
            folder.run(&call).await.contains(word).then_some(())
        })
        .await;
    };
    says("second").await;

    // A release that was refused is sent again when its reason is gone, although the file is the same.
    folder.write("handlers/moody/handler.toml", release("third", "[grants]\nsecrets = [\"MOODY_TOKEN\"]"));
    dev.prints("moody was not swapped").await;
    let operator = format!("{}\nexport SWITCHBOARD_ADMIN_LISTEN={admin}", line(". "));
    folder.run(&format!("{operator}\nprintf %s 0123456789abcdef | switchboard secret set MOODY_TOKEN")).await;
    folder.write("handlers/moody/notes.txt", "saved again");
    says("third").await;

    let servers = folder.path(".switchboard");
    assert!(server_runs(&servers, "postgres") && server_runs(&servers, "redis"));
    let status = dev.interrupt().await;
    assert!(status.success(), "{status}");
    assert!(!server_runs(&servers, "postgres") && !server_runs(&servers, "redis"));
}

#[tokio::test]
async fn handlers_in_typescript_are_built_with_npm_and_pass_their_tests() {
    let folder = Folder::new();
    if !answers(&folder, "npm view typescript version").await {
        return;
    }
    let text = made_and_tested(&folder, "typescript", "node_modules").await;
    assert!(text.contains("5 passed"), "{text}");
    // The declarations are used: a mistake of a type is found before anything is deployed.
    let code = fs::read_to_string(folder.path("handlers/on-schedule/src/handler.ts")).expect("the code");
    folder.write("handlers/on-schedule/src/handler.ts", code.replace("log(\"info\"", "log(\"loud\""));
    let refused = folder.refuses("switchboard build on-schedule").await;
    assert!(refused.contains("\"loud\"") && refused.contains("failed (exit status"), "{refused}");
}

#[tokio::test]
async fn handlers_in_python_are_built_with_pip_and_pass_their_tests() {
    let folder = Folder::new();
    let probe = "python3 -m venv probe && probe/bin/pip download --quiet --no-deps --dest probe pip";
    if !answers(&folder, probe).await {
        return;
    }
    let text = made_and_tested(&folder, "python", ".venv").await;
    assert!(text.contains("5 passed"), "{text}");
}

/// Makes a handler for each trigger and tests all. The first one downloads the tools, and the others use its
/// directory of them. Returns what the tests printed.
async fn made_and_tested(folder: &Folder, lang: &str, tools: &str) -> String {
    for on in TRIGGERS {
        folder.run(&format!("switchboard new on-{on} --lang {lang} --on {on}")).await;
    }
    folder.run("switchboard build on-http").await;
    for on in &TRIGGERS[1..] {
        let script = format!("mkdir target && ln -s ../on-http/{tools} {tools} && touch target/tools");
        folder.run(&format!("cd handlers/on-{on} && {script}")).await;
    }
    let tested = folder.run("switchboard test").await;
    // A problem that the code throws or raises is an answer, not a trap.
    folder.write("event.json", r#"{"frame": {"type": "on-frame", "payload": {"name": 7}, "caller": "ana"}}"#);
    let answer = folder.run("switchboard invoke on-frame event.json").await;
    assert!(answer.contains("\"Err\"") && answer.contains("\"name: is not a text\""), "{answer}");
    tested
}

/// Whether a package manager is there and reaches its registry.
async fn answers(folder: &Folder, script: &str) -> bool {
    match timeout(ANSWER_WITHIN, folder.ended(script)).await {
        Ok((status, _)) if status.success() => true,
        Ok((status, text)) => {
            println!("skipped: `{script}`: {status}\n{text}");
            false
        }
        Err(_) => {
            println!("skipped: `{script}` did not end within {ANSWER_WITHIN:?}");
            false
        }
    }
}
