//! The test harness from outside: `switchboard test`, `replay`, `invoke` and `pack`, on the handlers of the
//! product.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options, SECRET};
use switchboard_tests::paths;
use switchboard_tests::patience::until;
use switchboard_tests::services::{self, Redis};
use tempfile::TempDir;
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Runs in the root of the tree, with the secret that all hosts of a run share, because roles belong to the
/// cluster.
fn switchboard(args: &[&str]) -> Command {
    let mut command = Command::new(paths::switchboard());
    command.current_dir(root()).args(args).env("SWITCHBOARD_SECRET", SECRET);
    command.env("SWITCHBOARD_DATA_DIR", paths::target().join("tests-data"));
    command
}

fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status)
}

async fn passes(args: &[&str]) -> String {
    let output = switchboard(args).output().await.expect("it runs");
    assert!(output.status.success(), "{args:?}: {}", printed(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn built() -> String {
    paths::handlers().display().to_string()
}

/// A directory of handlers with these recordings of one handler.
fn handlers_with(name: &str, recordings: &[(String, String)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let handler = directory.path().join(name);
    fs::create_dir_all(handler.join("tests")).expect("a directory");
    fs::copy(root().join("handlers").join(name).join("handler.toml"), handler.join("handler.toml"))
        .expect("a copy");
    for (file, text) in recordings {
        fs::write(handler.join("tests").join(file), text).expect("a recording");
    }
    directory
}

fn recording(name: &str) -> String {
    let path = root().join("handlers/send-message/tests").join(format!("{name}.trace"));
    fs::read_to_string(path).expect("a recording of send-message")
}

#[tokio::test]
async fn every_handler_has_tests_and_they_pass_without_services() {
    let out = passes(&["test", "--built", &built(), "--json"]).await;
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&report["ok"], &report["untested"]), (&json!(true), &json!([])));
}

#[tokio::test]
async fn every_trigger_is_answered_as_recorded() {
    let guests = paths::guests().display().to_string();
    for guest in ["probe", "timers"] {
        passes(&["test", "--from", "tests/guests", "--built", &guests, guest]).await;
        real(&["test", "--from", "tests/guests", "--built", &guests, guest, "--real"]).await;
    }
}

#[tokio::test]
async fn recorded_answers_equal_those_of_real_services() {
    real(&["test", "--built", &built(), "--real"]).await;
}

/// Runs it with a Redis of its own, and with new databases in the cluster of the run.
async fn real(args: &[&str]) {
    let (database, redis) = (services::database().await, Redis::start().await);
    let mut command = switchboard(args);
    command.args(["--database-url", &database.url_at(None), "--redis-url", &redis.url_at(None)]);
    let output = command.output().await.expect("it runs");
    assert!(output.status.success(), "{args:?}: {}", printed(&output));
    database.drop_it().await;
}

#[tokio::test]
async fn no_fault_makes_a_handler_trap_or_report_false_success() {
    passes(&["test", "--built", &built(), "--faults"]).await;
}

#[tokio::test]
async fn a_difference_names_the_call_and_the_argument() {
    let changed = recording("sends")
        .replace("`{\"conversation_id\"", "`{ \"conversation_id\"")
        .replace("\"hi\"", "\"HI\"");
    let handlers = handlers_with("send-message", &[("sends.trace".to_owned(), changed)]);
    let from = handlers.path().display().to_string();
    let junit = handlers.path().join("junit.xml").display().to_string();
    let args = ["test", "--from", &from, "--built", &built(), "--junit", &junit];
    let output = switchboard(&args).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("postgres.collect, row["), "{}", printed(&output));
    assert!(fs::read_to_string(&junit).expect("JUnit").contains("<failure"));

    passes(&["test", "--from", &from, "--built", &built(), "--update"]).await;
    passes(&["test", "--from", &from, "--built", &built()]).await;
}

#[tokio::test]
async fn a_handler_without_a_test_fails() {
    let handlers = handlers_with("send-message", &[]);
    let from = handlers.path().display().to_string();
    let output =
        switchboard(&["test", "--from", &from, "--built", &built()]).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output).contains("send-message has no test"), "{}", printed(&output));
    let output = switchboard(&["test", "nothing", "--built", &built()]).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
}

#[tokio::test]
async fn a_thousand_recordings_are_replayed() {
    let recordings: Vec<_> = (0..1000).map(|n| (format!("t{n}.trace"), recording("sends"))).collect();
    let handlers = handlers_with("send-message", &recordings);
    let from = handlers.path().display().to_string();
    let out = passes(&["test", "--from", &from, "--built", &built()]).await;
    assert!(out.contains("1000 tests of 1 handlers: 1000 passed"), "{out}");
    eprintln!("{out}");
}

#[tokio::test]
async fn a_recorded_call_of_a_node_is_replayed_on_another_release() {
    let kept = tempfile::tempdir().expect("a directory");
    let options = Options::default()
        .set("RECORDING_DIR", kept.path().display())
        .set("RECORDING_CALLS", "all")
        .set("RECORDING_BODIES", "true");
    Host::test(options, async |host| {
        let (mut ana, _) = host.two_members("lobby").await;
        ana.send("kept for later").await.expect_sent();
        let directory = kept.path().join("send-message");
        let path = until("the recording of the call", async || {
            fs::read_dir(&directory).ok()?.flatten().map(|entry| entry.path()).next()
        })
        .await;
        let text = until("all of it", async || {
            fs::read_to_string(&path).ok().filter(|text| text.contains("\nreturned\n"))
        })
        .await;
        assert!(text.contains("kept for later"), "{text}");
        let path = path.display().to_string();
        let file = paths::handlers().join("send-message.wasm").display().to_string();
        let out = passes(&["replay", &path, "--release", &file, "--release", &file]).await;
        assert!(out.contains("does what the recording did"), "{out}");
    })
    .await;
}

#[tokio::test]
async fn without_bodies_a_recording_contains_no_message_text() {
    let kept = tempfile::tempdir().expect("a directory");
    let options = Options::default().set("TRACE_DIR", kept.path().display()).set("TRACE_CALLS", "all");
    Host::test(options, async |host| {
        let (mut ana, _) = host.two_members("lobby").await;
        ana.send("for nobody else").await.expect_sent();
        let directory = kept.path().join("send-message");
        let text = until("the recording of the call", async || {
            let path = fs::read_dir(&directory).ok()?.flatten().map(|entry| entry.path()).next()?;
            fs::read_to_string(path).ok().filter(|text| text.contains("\nreturned\n"))
        })
        .await;
        assert!(!text.contains("for nobody else") && text.contains("postgres.collect"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn an_invoked_event_shows_its_calls() {
    let directory = tempfile::tempdir().expect("a directory");
    let event = directory.path().join("event.json");
    let asked = json!({ "frame": { "type": "message.send", "payload": { "content": "" } } });
    fs::write(&event, asked.to_string()).expect("an event");
    let event = event.display().to_string();
    let out = passes(&["invoke", "send-message", &event, "--built", &built()]).await;
    assert!(out.contains("conversation_id") && out.contains("returned"), "{out}");
    let output =
        switchboard(&["invoke", "nothing", &event, "--built", &built()]).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
}
