//! Calls between handlers: granted by name, within the deadline of the caller, bounded in depth, in an
//! instance of their own, and part of the caller's recording.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

const PATH: &str = "/api/v1/guests/nests";

fn nests() -> Release {
    Release::guest("nests")
}

/// The same code as another handler, with this limit.
fn other_nest(limit: &str, value: i64) -> Release {
    nests().with_manifest(|manifest| {
        manifest["name"] = "other-nest".into();
        manifest["on"]["http"][0]["path"] = "/api/v1/guests/other-nest".into();
        manifest["limits"].as_table_mut().unwrap().insert(limit.into(), value.into());
    })
}

/// The result of the call that the handler at this path made.
async fn called_at(host: &Host, path: &str, handler: &str, method: &str, body: &str) -> Value {
    let asked = json!({ "handler": handler, "method": method, "body": body });
    host.rest("ana").post(path, asked).await.expect(200)
}

async fn called(host: &Host, handler: &str, method: &str, body: &str) -> Value {
    called_at(host, PATH, handler, method, body).await
}

/// The answer of the called handler.
fn answer(shown: &Value) -> Value {
    let text = shown["answer"].as_str().unwrap_or_else(|| panic!("no answer: {shown}"));
    serde_json::from_str(text).expect("the answer is JSON")
}

#[tokio::test]
async fn a_handler_calls_another_one_for_its_caller() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&other_nest("concurrency", 8)).await;
        host.admin.release(&nests()).await;
        let echoed = answer(&called(host, "other-nest", "echo", "hello").await);
        assert_eq!(echoed, json!({ "says": "first", "from": "nests", "caller": "ana", "body": "hello" }));
        // The called handler has its own settings and statistics.
        let second = other_nest("concurrency", 8).with_manifest(|manifest| {
            manifest["config"]["says"] = "second".into();
        });
        host.admin.release(&second).await;
        assert_eq!(answer(&called(host, "other-nest", "echo", "").await)["says"], "second");
        let page = host.admin.rest().get("/metrics").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let counted = page.lines().any(|line| {
            line.starts_with("switchboard_calls_total{")
                && line.contains("handler=\"other-nest\"")
                && line.contains("trigger=\"call\"")
        });
        assert!(counted, "{page}");

        for (handler, method, error, why) in [
            ("other-nest", "problem", "problem", "404 not_found"),
            ("other-nest", "trap", "unknown-outcome", "`other-nest` ended without an answer (trap)"),
            ("other-nest", "loop", "unknown-outcome", "`other-nest` ended without an answer (cpu)"),
            ("other-nest", "fly", "refused", "has no method `fly`"),
            ("send-message", "echo", "refused", "not granted (grants.calls)"),
            ("nobody", "echo", "unavailable", "no handler `nobody` runs here"),
        ] {
            let shown = called(host, handler, method, "x").await;
            assert_eq!(shown["error"], error, "{method}: {shown}");
            assert!(shown["why"].as_str().unwrap().contains(why), "{method}: {shown}");
        }
        // The caller and the node go on.
        assert_eq!(answer(&called(host, "other-nest", "echo", "on").await)["body"], "on");
    })
    .await;
}

#[tokio::test]
async fn a_circle_of_calls_ends_at_its_depth() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&nests()).await;
        let end = answer(&called(host, "nests", "again", "1").await);
        assert_eq!((&end["depth"], &end["error"]), (&json!(4), &json!("refused")), "{end}");
        assert!(end["why"].as_str().unwrap().contains("at most 4 calls deep"), "{end}");
    })
    .await;
}

#[tokio::test]
async fn a_handler_without_a_free_slot_gets_busy_and_waits_for_nothing() {
    Host::test(Options::default(), async |host| {
        let full = nests().with_manifest(|manifest| {
            manifest["limits"].as_table_mut().unwrap().insert("concurrency".into(), 1.into());
        });
        host.admin.release(&full).await;
        host.admin.release(&other_nest("concurrency", 1)).await;
        let begun = Instant::now();
        // The call of itself, and a circle over another handler.
        assert_eq!(called(host, "nests", "echo", "x").await["error"], "busy");
        let end = answer(&called(host, "other-nest", "again", "1").await);
        assert_eq!((&end["depth"], &end["error"]), (&json!(1), &json!("busy")), "{end}");
        assert!(begun.elapsed() < Duration::from_secs(4), "somebody waited: {:?}", begun.elapsed());
        assert_eq!(answer(&called(host, "other-nest", "echo", "x").await)["body"], "x");
    })
    .await;
}

#[tokio::test]
async fn a_called_handler_ends_with_its_caller() {
    Host::test(Options::default(), async |host| {
        let patient = other_nest("cpu_ms", 10_000).with_manifest(|manifest| {
            manifest["limits"]["deadline_ms"] = 60_000.into();
            manifest["limits"].as_table_mut().unwrap().insert("concurrency".into(), 1.into());
        });
        host.admin.release(&patient).await;
        let hurried = nests().with_manifest(|manifest| manifest["limits"]["deadline_ms"] = 600.into());
        host.admin.release(&hurried).await;
        let begun = Instant::now();
        let asked = json!({ "handler": "other-nest", "method": "loop" });
        let shown = host.rest("ana").post(PATH, asked).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // The caller has 10 ms to answer. On a busy machine it may miss them.
        match shown.status {
            200 => assert_eq!(shown.json()["error"], "unknown-outcome", "{shown}"),
            _ => drop(shown.expect_problem(503, "unavailable")),
        }
        // The only slot of the called handler is free again.
        until("the slot to be free", async || {
            called(host, "other-nest", "echo", "x").await.get("answer").is_some().then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn calls_need_a_grant() {
    Host::test(Options::default(), async |host| {
        let without = nests().with_manifest(|manifest| {
            manifest.remove("grants");
        });
        let refused = host.admin.deploy(&without).await.expect_problem(422, "invalid");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("switchboard:host/calls") && detail.contains("`grants.calls`"), "{detail}");
        let unbound = nests().with_manifest(|manifest| {
            manifest["on"].as_table_mut().unwrap().remove("call");
        });
        let refused = host.admin.deploy(&unbound).await.expect_problem(422, "invalid");
        assert!(refused["detail"].as_str().unwrap().contains("`on.call`"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn a_call_is_a_part_of_the_recording_of_its_caller() {
    let kept = tempfile::tempdir().expect("a directory");
    let options = Options::default()
        .set("RECORDING_DIR", kept.path().display())
        .set("RECORDING_CALLS", "all")
        .set("RECORDING_BODIES", true);
    Host::test(options, async |host| {
        host.admin.release(&other_nest("concurrency", 8)).await;
        let release = nests();
        host.admin.release(&release).await;
        answer(&called(host, "other-nest", "echo", "hello").await);
        let recorded = async |handler: &str, trigger: &str| {
            let directory = kept.path().join(handler);
            until(format!("the recording of {handler}"), async || {
                let mut files = fs::read_dir(&directory).ok()?.flatten().map(|entry| entry.path());
                files.find_map(|path| {
                    let text = fs::read_to_string(&path).ok()?;
                    let is_it =
                        text.contains("\nreturned\n") && text.contains(&format!("trigger: \"{trigger}\""));
                    is_it.then_some((path, text))
                })
            })
            .await
        };
        let (_, of_called) = recorded("other-nest", "call").await;
        assert!(of_called.contains("method: \"echo\"") && of_called.contains("\"nests\""), "{of_called}");
        let (path, text) = recorded("nests", "http").await;
        assert!(text.contains("\ncalls.call\n") && text.contains("handler: \"other-nest\""), "{text}");

        // The replay has the answer in the recording, and calls nobody.
        host.admin.retire("other-nest").await.expect(200);
        let file = kept.path().join("nests.wasm");
        fs::write(&file, &release.bytes).expect("a release file");
        let (path, file) = (path.display().to_string(), file.display().to_string());
        let (code, printed) = host.switchboard_text(&["replay", &path, "--release", &file]).await;
        assert!(code == 0 && printed.contains("does what the recording did"), "{code}: {printed}");
    })
    .await;
}

#[tokio::test]
async fn a_secret_in_the_body_of_a_call_is_in_no_recording() {
    const SECRET: &str = "s3cret-of-the-caller";
    let kept = tempfile::tempdir().expect("a directory");
    let options = Options::default()
        .set("RECORDING_DIR", kept.path().display())
        .set("RECORDING_CALLS", "all")
        .set("RECORDING_BODIES", true);
    Host::test(options, async |host| {
        host.admin.release(&other_nest("concurrency", 8)).await;
        let has_one = nests().with_manifest(|manifest| {
            manifest["config"].as_table_mut().unwrap().insert("token".into(), SECRET.into());
        });
        host.admin.release(&has_one).await;
        // The called handler gets the value itself.
        assert_eq!(answer(&called(host, "other-nest", "echo", SECRET).await)["body"], SECRET);
        for handler in ["other-nest", "nests"] {
            let text = until(format!("the recording of {handler}"), async || {
                let mut files = fs::read_dir(kept.path().join(handler)).ok()?.flatten();
                files.find_map(|file| {
                    let text = fs::read_to_string(file.path()).ok()?;
                    text.contains("\nreturned\n").then_some(text)
                })
            })
            .await;
            assert!(text.contains("[setting token]") && !text.contains(SECRET), "{handler}: {text}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_shadow_gets_the_answers_of_calls_and_calls_nobody() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&other_nest("concurrency", 8)).await;
        host.admin.release(&nests()).await;
        let same = nests().variant(1);
        assert_eq!(host.admin.try_out(&same, "shadow=100").await.expect(200)["complete"], true);
        let mut made = 0;
        let seen = until("the shadow to get some calls", async || {
            answer(&called(host, "other-nest", "echo", "hello").await);
            made += 1;
            let seen = host.admin.rest().get("/admin/v1/handlers/nests/shadow").await.expect(200);
            let seen = seen["shadows"][0].clone();
            (seen["same"].as_u64() >= Some(3)).then_some(seen)
        })
        .await;
        assert_eq!(seen["differing"], 0, "{seen}");
        let page = host.admin.rest().get("/metrics").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let calls = page.lines().find(|line| {
            line.starts_with("switchboard_calls_total{")
                && line.contains("handler=\"other-nest\"")
                && line.contains("outcome=\"returned\"")
        });
        let calls = calls.and_then(|line| line.rsplit_once(' ')).map(|(_, count)| count.to_owned());
        assert_eq!(calls, Some(made.to_string()), "{page}");
    })
    .await;
}

#[tokio::test]
async fn a_canary_of_a_called_handler_has_its_users() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&nests()).await;
        host.admin.release(&other_nest("concurrency", 8)).await;
        let second = other_nest("concurrency", 8).with_manifest(|manifest| {
            manifest["config"]["says"] = "second".into();
        });
        assert_eq!(host.admin.try_out(&second, "canary=50").await.expect(200)["complete"], true);
        let says = async |user: &str| {
            let asked = json!({ "handler": "other-nest", "method": "echo" });
            answer(&host.rest(user).post(PATH, asked).await.expect(200))["says"].clone()
        };
        let mut of_canary = 0;
        for n in 0..20 {
            let user = format!("user-{n}");
            let first = says(&user).await;
            assert_eq!(says(&user).await, first, "{user}");
            of_canary += usize::from(first == "second");
        }
        assert!((1..20).contains(&of_canary), "{of_canary} of 20 users");
    })
    .await;
}
