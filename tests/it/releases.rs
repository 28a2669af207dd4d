//! Releasing to a running host: a valid file serves at once; a bad one is refused with its reason, and the
//! old one continues.

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::paths;
use switchboard_tests::patience::until;
use switchboard_tests::proxy::Proxy;
use switchboard_tests::release::Release;
use switchboard_tests::services::{self, Redis};

#[tokio::test]
async fn a_release_takes_effect_and_is_rolled_back() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        ana.send("by the first").await.expect_sent();
        let first = host.current("send-message").await;

        // The release allows one message a minute, and binds a new frame type.
        let strict = Release::built("send-message").with_manifest(|manifest| {
            manifest["config"]["messages_per_minute"] = 1.into();
            let aliases = manifest["on"]["frame"][0].as_table_mut().unwrap();
            let aliases = aliases.entry("aliases").or_insert_with(|| toml::Value::Array(Vec::new()));
            aliases.as_array_mut().unwrap().push("say".into());
        });
        host.admin.release(&strict).await;
        assert_eq!(host.current("send-message").await, strict.digest());
        let payload = json!({"conversation_id": ana.room(), "content": "by the second"});
        bo.request("say", payload.clone()).await.expect_sent();
        ana.expect_message("by the first").await;
        ana.expect_message("by the second").await;
        bo.send("too soon").await.expect_error("rate_limited");

        let answer = host.admin.rollback("send-message").await;
        assert!(answer.status < 300, "{answer}");
        assert_eq!(host.current("send-message").await, first);
        bo.send("by the first again").await.expect_sent();
        ana.expect_message("by the first again").await;
        bo.request("say", payload).await.expect("error");
    })
    .await;
}

#[tokio::test]
async fn a_bad_file_is_refused_and_the_old_release_continues() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        let current = host.current("send-message").await;
        let built = Release::built("send-message");
        let cut_short = Release { bytes: built.bytes[..built.bytes.len() / 2].to_vec() };
        let flipped = {
            let mut bytes = built.bytes.clone();
            let middle = bytes.len() / 3;
            bytes[middle..middle + 64].fill(0xff);
            Release { bytes }
        };
        for (what, release) in [
            ("not WebAssembly", Release { bytes: b"hello".to_vec() }),
            ("nothing", Release { bytes: Vec::new() }),
            ("cut short", cut_short),
            ("damaged", flipped),
            ("another version of the contract", Release { bytes: of_another_version(&built.bytes) }),
            (
                "a manifest with keys that nobody knows",
                built.with_manifest(|manifest| {
                    manifest.insert("colour".into(), "red".into());
                }),
            ),
            ("larger than a release may be", Release { bytes: vec![0; 32 * 1024 * 1024 + 1] }),
            ("a manifest that is no TOML", built.with_manifest_text("name = ")),
            ("a manifest without bindings", built.with_manifest_text("name = \"send-message\"")),
            (
                "an import without its grant",
                built.with_manifest(|manifest| {
                    manifest.remove("grants");
                }),
            ),
            (
                "a binding without its export",
                built.with_manifest(|manifest| {
                    let on = manifest["on"].as_table_mut().unwrap();
                    on.insert(
                        "schedule".into(),
                        toml::Value::Array(vec![toml::toml! { name = "tick" every_ms = 1000 }.into()]),
                    );
                }),
            ),
            (
                "a route of another handler",
                built.with_manifest(|manifest| {
                    manifest.insert("name".into(), "impostor".into());
                }),
            ),
            (
                "a role that nobody made",
                built.with_manifest(|manifest| manifest["grants"]["postgres"] = "nosuchrole".into()),
            ),
            (
                "a script that is not Lua",
                built.with_manifest(|manifest| {
                    manifest["scripts"]
                        .as_table_mut()
                        .unwrap()
                        .insert("cut".into(), "return redis.call(".into());
                }),
            ),
            (
                "more memory than there is",
                built.with_manifest(|manifest| {
                    manifest.entry("limits").or_insert_with(|| toml::Value::Table(toml::Table::new()));
                    manifest["limits"].as_table_mut().unwrap().insert("memory_mib".into(), 65.into());
                }),
            ),
            ("more memories than an instance may have", built.with_memories(3, 1)),
            ("a memory that begins larger than any may be", built.with_memories(1, 2000)),
        ] {
            let answer = host.admin.deploy(&release).await;
            assert!(matches!(answer.status, 400 | 409 | 413 | 422), "{what}: {answer}");
            let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(detail.len() > 10, "{what}: no reason in {answer}");
            assert_eq!(host.current("send-message").await, current, "{what}");
            ana.send(what).await.expect_sent();
            bo.expect_message(what).await;
        }
    })
    .await;
}

/// It compiles; its mistake shows when it is loaded.
#[tokio::test]
async fn a_refusal_after_compiling_names_its_reason_and_the_file() {
    Host::test(Options::default(), async |host| {
        let release = Release::built("send-message").with_memories(3, 1);
        for share in ["", "canary=10", "shadow=10"] {
            let answer = host.admin.try_out(&release, share).await;
            let problem = answer.expect_problem(422, "invalid");
            assert_eq!(problem["field"], "release", "{problem}");
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(detail.contains("memories; the maximum is 2"), "{share}: {detail}");
        }
    })
    .await;
}

/// The same component with an import of a later contract.
fn of_another_version(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let (now, then) = (b"@1.0.0", b"@2.0.0");
    let places: Vec<_> = (0..bytes.len() - now.len()).filter(|at| bytes[*at..].starts_with(now)).collect();
    assert!(!places.is_empty(), "a component names its contract with a version");
    for at in places {
        bytes[at..at + then.len()].copy_from_slice(then);
    }
    bytes
}

/// A process of its own compiles a release, with bounds on its memory and time.
#[tokio::test]
async fn the_compiler_is_bounded_by_the_system() {
    let mut child = tokio::process::Command::new(paths::switchboard())
        .arg("compile")
        .env_clear()
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let file = format!("/proc/{}/limits", child.id().unwrap());
    until("the compiler to bound itself", async || {
        let limits = std::fs::read_to_string(&file).ok()?;
        let bound = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let bounds = (bound("Max address space")?, bound("Max cpu time")?, bound("Max file size")?);
        (bounds == (4 * 1024 * 1024 * 1024, 60, 0)).then_some(())
    })
    .await;
    drop(child.stdin.take());
    assert!(!child.wait().await.unwrap().success(), "nothing was compiled");
}

#[tokio::test]
async fn a_deploy_while_postgres_is_away_changes_nothing() {
    let database = services::database().await;
    let proxy = Proxy::to(database.postgres.address()).await;
    let options = Options::default().database_at(proxy.address());
    Host::test_over(database, Redis::start().await, options, async |host| {
        let variant = Release::built("send-message").variant(7);
        let current = host.current("send-message").await;
        proxy.cut();
        host.admin.deploy(&variant).await.expect_problem(503, "unavailable");
        host.admin.rollback("send-message").await.expect_problem(503, "unavailable");
        // The caller of a handler gets a retryable answer, and the log has the reason for the operator.
        host.rest("ana").get("/api/v1/classes").await.expect_problem(503, "unavailable");
        assert!(host.admin.metric("switchboard_postgres_unavailable_total").await >= Some(1.0));
        assert!(host.log().contains("Postgres did not complete a statement"));
        proxy.heal();
        until("the host to be ready again", async || host.admin.ready().await.then_some(())).await;
        assert_eq!(host.current("send-message").await, current);
        host.admin.release(&variant).await;
        let (mut ana, mut bo) = host.two_members("lobby").await;
        ana.send("after").await.expect_sent();
        bo.expect_message("after").await;
    })
    .await;
}

#[tokio::test]
async fn a_release_outlives_a_restart() {
    Host::test(Options::default(), async |host| {
        let variant = Release::built("send-message").variant(1);
        host.admin.release(&variant).await;
        host.kill().await;
        host.start().await;
        // The files at the start are deployed only if nothing newer was: an operator's release stays.
        assert_eq!(host.current("send-message").await, variant.digest());
    })
    .await;
}

#[tokio::test]
async fn operators_need_their_token() {
    Host::test(Options::default(), async |host| {
        let admin = host.admin.rest();
        for path in ["/healthz", "/readyz", "/metrics"] {
            let open = admin.anonymous().get(path).await;
            assert_eq!(open.status, 200, "{open}");
        }
        for stranger in
            [admin.anonymous(), admin.with_token("wrong-token-of-somebody-else"), admin.with_token("")]
        {
            stranger.get("/admin/v1/releases").await.expect_problem(401, "unauthorized");
            let answer = stranger.post("/admin/v1/handlers/send-message/rollback", json!({})).await;
            answer.expect_problem(401, "unauthorized");
        }
        // A user's token is not an operator's token, and the client port serves no operator.
        let user = switchboard_tests::token::Token::of("ana").roles(&["admin"]).sign();
        admin.with_token(&user).get("/admin/v1/releases").await.expect_problem(401, "unauthorized");
        host.rest("ana").get("/admin/v1/releases").await.expect_problem(404, "not_found");
    })
    .await;
}
