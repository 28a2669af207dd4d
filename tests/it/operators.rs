//! Operators at the command line: tokens with roles, and signed releases.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use switchboard_tests::admin::ADMIN_TOKEN;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::paths;
use switchboard_tests::patience::until;
use switchboard_tests::proxy::Proxy;
use switchboard_tests::release::Release;
use switchboard_tests::services::{self, Redis};
use tokio::process::Command;

/// Runs a command as an operator with this token.
async fn switchboard(host: Option<&Host>, directory: &Path, token: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(paths::switchboard());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SWITCHBOARD_")) {
        command.env_remove(name);
    }
    command.current_dir(directory).env("SWITCHBOARD_ADMIN_TOKEN", token).args(arguments);
    if let Some(host) = host {
        command.env("SWITCHBOARD_ADMIN_LISTEN", host.admin_address().to_string());
    }
    command.output().await.expect("the command runs")
}

/// Its answer, if it exited with 0.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Its output, if it exited with 1.
fn failed(output: &Output) -> String {
    let printed = [&output.stdout[..], &output.stderr[..]].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    printed
}

#[tokio::test]
async fn a_token_of_a_role_is_created_used_and_revoked() {
    Host::test(Options::default(), async |host| {
        let here = tempfile::tempdir().unwrap();
        let run = async |token: &str, arguments: &[&str]| {
            switchboard(Some(host), here.path(), token, arguments).await
        };
        let ci = done(&run(ADMIN_TOKEN, &["admin-token", "ci", "--role", "deploy"]).await);
        let eyes = done(&run(ADMIN_TOKEN, &["--json", "admin-token", "eyes", "--role", "read"]).await);
        let eyes: Value = serde_json::from_str(&eyes).unwrap();
        let eyes = eyes["token"].as_str().unwrap();
        let file = paths::handlers().join("send-message.wasm").display().to_string();
        done(&run(&ci, &["deploy", &file]).await);
        assert!(failed(&run(eyes, &["deploy", &file]).await).contains("needs the role deploy"));
        done(&run(eyes, &["releases"]).await);
        assert!(failed(&run(&ci, &["admin-token", "more", "--role", "admin"]).await).contains("role admin"));
        let listed = done(&run(eyes, &["admin-token", "--list"]).await);
        assert!(listed.contains("ci may deploy, by admin") && listed.contains("eyes may read"), "{listed}");
        assert_eq!(done(&run(eyes, &["admin-token"]).await), listed);
        assert_eq!(run(ADMIN_TOKEN, &["admin-token", "x"]).await.status.code(), Some(2));
        assert_eq!(run(ADMIN_TOKEN, &["admin-token", "x", "--role", "root"]).await.status.code(), Some(2));

        done(&run(ADMIN_TOKEN, &["admin-token", "ci", "--revoke"]).await);
        assert!(failed(&run(&ci, &["releases"]).await).contains("not an admin token"));
        let audit = host.admin.rest().get("/admin/v1/audit?limit=1").await.expect(200);
        assert_eq!(audit["audit"][0]["action"], "POST /admin/v1/tokens/ci/revoke");
        assert_eq!(audit["audit"][0]["status"], json!(200));
        for secret in [ci.as_str(), eyes, ADMIN_TOKEN] {
            assert!(!host.log().contains(secret), "a token is in the log");
        }
    })
    .await;
}

#[tokio::test]
async fn foreign_variables_stop_no_command_and_unknown_names_are_logged() {
    use std::os::unix::ffi::OsStrExt;
    let here = tempfile::tempdir().unwrap();
    let garbage = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let token = |name: &'static str, value: &'static std::ffi::OsStr| {
        let mut command = Command::new(paths::switchboard());
        command.current_dir(here.path()).args(["token", "--sub", "ana"]);
        command.env("SWITCHBOARD_JWT_SECRET", "a secret of the tests").env(name, value);
        command.output()
    };
    done(&token("LC_PAPER", garbage).await.unwrap());
    done(&token("SWITCHBOARD_LISTEN", std::ffi::OsStr::new("")).await.unwrap());
    let printed = failed(&token("SWITCHBOARD_LOG", garbage).await.unwrap());
    assert!(printed.contains("SWITCHBOARD_LOG: its value is not UTF-8"), "{printed}");

    let options = Options::default().set("CONECTIONS_MAX", 5).set("JWT_ISSUER", "").set("TEST_BINARY", "x");
    Host::test(options, async |host| {
        host.client("ana").await.expect_alive().await;
        assert!(host.log().contains("SWITCHBOARD_CONECTIONS_MAX is not a setting"), "{}", host.log());
        assert_eq!(host.log().matches("is not a setting and has no effect").count(), 1, "{}", host.log());
    })
    .await;
}

#[tokio::test]
async fn status_shows_what_it_knows_without_postgres() {
    let database = services::database().await;
    let proxy = Proxy::to(database.postgres.address()).await;
    let options = Options::default().database_at(proxy.address());
    Host::test_over(database, Redis::start().await, options, async |host| {
        let here = tempfile::tempdir().unwrap();
        proxy.cut();
        until("readiness to notice it", async || (!host.admin.ready().await).then_some(())).await;
        let (code, status) = host.switchboard(&["status", "--json"]).await;
        assert_eq!(code, 1, "{status}");
        let checks = &status["readiness"]["checks"];
        assert!(checks["postgres"].is_string() && checks["postgres"] != "ok", "{status}");
        assert_eq!(checks["redis"], "ok", "{status}");
        assert!(status["error"].is_string() && status["nodes"].is_null(), "{status}");
        let printed = failed(&switchboard(Some(host), here.path(), ADMIN_TOKEN, &["status"]).await);
        assert!(printed.contains("the fleet is not known") && printed.contains("is not ready"), "{printed}");
        proxy.heal();
        until("the host to be ready again", async || host.admin.ready().await.then_some(())).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_continues_without_a_reader_of_its_log() {
    Host::test(Options::default().without_reader_of_its_log(), async |host| {
        // Every swap writes a log line; the second one comes from tasks that the first write could have
        // ended.
        let first = Release::built("send-message").variant(1);
        host.admin.release(&first).await;
        host.admin.release(&first.variant(2)).await;
        let (mut ana, mut bo) = host.two_members("lobby").await;
        ana.send("unheard of").await.expect_sent();
        bo.expect_message("unheard of").await;
    })
    .await;
}

#[tokio::test]
async fn a_closed_pipe_ends_a_command_quietly_and_a_lost_answer_does_not() {
    let here = tempfile::tempdir().unwrap();
    let run = async |name: &str, stdout: Stdio| {
        let mut command = Command::new(paths::switchboard());
        command.current_dir(here.path()).args(["--json", "keys", name]).stdin(Stdio::null());
        let child = command.stdout(stdout).stderr(Stdio::piped()).spawn().expect("the command runs");
        let output = child.wait_with_output().await.expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run("unread", writer.into()).await, (Some(0), String::new()));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (code, printed) = run("lost", full.into()).await;
    assert!(printed.contains("cannot write the answer"), "{printed}");
    assert_eq!(code, Some(1), "{printed}");
}

#[tokio::test]
async fn a_fleet_that_requires_signatures_runs_only_signed_releases() {
    let here = tempfile::tempdir().unwrap();
    let handlers = here.path().join("handlers");
    std::fs::create_dir(&handlers).unwrap();
    for entry in std::fs::read_dir(paths::handlers()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|extension| extension == "wasm") {
            std::fs::copy(entry.path(), handlers.join(entry.file_name())).unwrap();
        }
    }
    let run = async |host: Option<&Host>, arguments: &[&str]| {
        switchboard(host, here.path(), ADMIN_TOKEN, arguments).await
    };
    done(&run(None, &["keys", "ours"]).await);
    done(&run(None, &["keys", "theirs"]).await);
    let mode = std::fs::metadata(here.path().join("ours.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The command never overwrites another key.
    assert!(failed(&run(None, &["keys", "ours"]).await).contains("ours.key"));

    let files: Vec<String> = std::fs::read_dir(&handlers)
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    let unsigned = handlers.join("notify.wasm").display().to_string();
    let sign: Vec<&str> = ["sign", "--key", "ours.key"]
        .into_iter()
        .chain(files.iter().map(String::as_str).filter(|file| *file != unsigned))
        .collect();
    done(&run(None, &sign).await);
    done(&run(None, &["sign", "--key", "theirs.key", &unsigned]).await);
    let send = handlers.join("send-message.wasm").display().to_string();
    assert!(done(&run(None, &["verify", "--key", "ours.pub", &send]).await).contains("is signed by"));
    assert!(
        failed(&run(None, &["verify", "--key", "ours.pub", &unsigned]).await).contains("none of them good")
    );
    assert_eq!(run(None, &["verify", &send]).await.status.code(), Some(2), "no key to verify with");

    let options = Options::default()
        .set("RELEASE_KEYS", here.path().join("ours.pub").display())
        .set("HANDLERS_DIR", handlers.display());
    Host::test(options, async |host| {
        host.current("send-message").await;
        let running = host.admin.releases().await;
        assert!(!running.to_string().contains("\"notify\""), "{running}");
        assert!(host.log().contains("is not signed by a key that this fleet trusts"));
        let refused = failed(&run(Some(host), &["deploy", &unsigned]).await);
        assert!(refused.contains("not signed by a key that this fleet trusts"), "{refused}");

        // Our signature beside theirs: one trusted signature is enough.
        done(&run(None, &["sign", "--key", "ours.key", &unsigned]).await);
        done(&run(Some(host), &["deploy", &unsigned]).await);
        host.current("notify").await;

        // One byte more in an unused section: another digest, without a signature.
        let mut bytes = std::fs::read(&send).unwrap();
        bytes.extend([0, 2, 1, b'x']);
        std::fs::write(&send, bytes).unwrap();
        assert!(
            failed(&run(None, &["verify", "--key", "ours.pub", &send]).await).contains("none of them good")
        );
        assert!(failed(&run(Some(host), &["deploy", &send]).await).contains("not for this file"));
        std::fs::remove_file(format!("{send}.sig")).unwrap();
        for how in [&[][..], &["--canary", "10%"], &["--shadow", "10%"]] {
            let deploy: Vec<&str> = ["deploy", &send].into_iter().chain(how.iter().copied()).collect();
            assert!(failed(&run(Some(host), &deploy).await).contains("not signed"), "{how:?}");
        }
        done(&run(None, &["sign", "--key", "ours.key", &send]).await);
        done(&run(Some(host), &["deploy", &send, "--canary", "10%"]).await);
        done(&run(Some(host), &["promote", "send-message"]).await);
        done(&run(Some(host), &["rollback", "send-message"]).await);

        // A node that takes its releases from the repository verifies them itself.
        let mut other = host.another_node().await;
        assert_eq!(other.current("send-message").await, host.current("send-message").await);
        other.terminate();
        other.ended().await;
    })
    .await;
}
