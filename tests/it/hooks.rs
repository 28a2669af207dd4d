//! Hooks: a handler decides about an action before its handler gets it, alike for frames and REST. A hook
//! that fails is cut at a bound, and its `on_failure` decides.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const PATH: &str = "/api/v1/guests/decides/lobby";

/// A release of `decides` whose hooks have this `on_failure`.
fn decides(on_failure: &str) -> Release {
    Release::guest("decides").with_manifest(|manifest| {
        for hook in 0..2_usize {
            manifest["on"]["before"][hook]["on_failure"] = on_failure.into();
        }
    })
}

/// The same with this setting.
fn decides_with(setting: &str, value: &str) -> Release {
    decides("open").with_manifest(|manifest| manifest["config"][setting] = value.into())
}

/// The same code as another handler: it has the same hooks, with this order, and a route of its own.
fn another(name: &str, order: i64, adds: &str) -> Release {
    Release::guest("decides").with_manifest(|manifest| {
        manifest["name"] = name.into();
        manifest["on"]["http"][0]["path"] = format!("/api/v1/guests/{name}/{{room}}").into();
        manifest["on"]["frame"][0]["type"] = format!("{name}.say").into();
        manifest["on"]["frame"][0]["aliases"] = toml::Value::Array(Vec::new());
        for hook in 0..2_usize {
            manifest["on"]["before"][hook]["order"] = order.into();
        }
        manifest["config"]["adds"] = adds.into();
    })
}

/// The input of the handler of `guests.say` over REST: the room of the path, and the body.
async fn over_rest(host: &Host, user: &str, content: &str) -> (Value, Value) {
    let answer = host.rest(user).post(PATH, json!({ "content": content })).await.expect(200);
    let body = answer["body"].as_str().expect("a text");
    (answer["room"].clone(), serde_json::from_str(body).expect("the body is JSON"))
}

/// The payload that it got over the socket.
async fn over_frame(client: &mut Client, content: &str) -> Value {
    client.request("guests.say", json!({ "content": content, "room": "lobby" })).await.expect("guests.said")
}

#[tokio::test]
async fn a_hook_allows_changes_and_refuses_frames_and_rest_alike() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&decides("closed")).await;
        let mut client = host.client("eve").await;
        for (content, room, after) in [
            ("hello", "lobby", "hello"),
            ("add it", "lobby", "add it!"),
            ("move it", "another", "move it"),
            ("who", "lobby", "eve"),
            ("action", "lobby", "guests.say"),
        ] {
            let expected = json!({ "content": after, "room": room });
            assert_eq!(over_frame(&mut client, content).await, expected);
            assert_eq!(over_rest(host, "eve", content).await, (json!(room), json!({ "content": after })));
        }
        // A type has its aliases.
        let aliased = client.request("guests.speak", json!({ "content": "add it" })).await;
        assert_eq!(aliased.expect("guests.said"), json!({ "content": "add it!" }));

        let refused = client.request("guests.say", json!({ "content": "refuse it" })).await;
        let error = refused.expect_error("unwanted_word");
        assert_eq!((&error["field"], &error["retryable"]), (&json!("content"), &json!(false)));
        let refused = host.rest("eve").post(PATH, json!({ "content": "refuse it" })).await;
        let problem = refused.expect_problem(403, "unwanted_word");
        assert_eq!(problem["detail"], "this word is unwanted here");

        // A parameter of the path hides a member of the body: no handler sees what no hook has seen.
        let hidden = host.rest("eve").post(PATH, json!({ "content": "hello", "room": "attic" })).await;
        let answer = hidden.expect(200);
        assert_eq!((&answer["room"], &answer["body"]), (&json!("lobby"), &json!(r#"{"content":"hello"}"#)));
        // Neither does the first of two members with the same name reach the handler.
        let twice = r#"{ "content": "refuse it", "content": "hello" }"#;
        let answer = host.rest("eve").send(Method::POST, PATH, &JSON, twice).await.expect(200);
        assert_eq!(answer["body"], r#"{"content":"hello"}"#);
        // Hooks decide about JSON objects of a bounded size. Without hooks the handler decides about both.
        let large = json!({ "content": "x".repeat(65_536 - 14) });
        let deep = format!(r#"{{"content":"add it","deep":{}{}}}"#, "[".repeat(64), "]".repeat(64));
        host.rest("eve").post(PATH, json!([])).await.expect_problem(400, "malformed");
        let refused = host.rest("eve").send(Method::POST, PATH, &JSON, deep).await;
        refused.expect_problem(400, "malformed");
        host.rest("eve").post(PATH, large.clone()).await.expect_problem(413, "too_large");
        host.admin
            .release(&decides("closed").with_manifest(|manifest| {
                manifest["on"]["before"][0]["type"] = "guests.other".into();
            }))
            .await;
        host.rest("eve").post(PATH, json!([])).await.expect(200);
        host.rest("eve").post(PATH, large).await.expect(200);
        assert_eq!(over_rest(host, "eve", "refuse it").await.1["content"], "refuse it");
    })
    .await;
}

#[tokio::test]
async fn messages_pass_the_hook_of_message_send_over_every_route() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        host.admin.release(&decides("closed")).await;
        let in_room = format!("/api/v1/conversations/{}/messages", ana.room());
        let named = |content: &str| json!({ "conversation_id": ana.room(), "content": content });
        let (by_name, refused_by_name) = (named("add 3"), named("refuse it"));

        assert_eq!(ana.send("add 1").await.expect_sent()["content"], "add 1!");
        bo.expect_message("add 1!").await;
        for (path, body, text) in [
            (in_room.as_str(), json!({ "content": "add 2" }), "add 2!"),
            ("/api/v1/messages", by_name, "add 3!"),
        ] {
            let message = host.rest("ana").post(path, body).await.expect(201)["message"].clone();
            assert_eq!(message["content"], text, "{path}");
            bo.expect_message(text).await;
        }
        // A refused message is not stored, and the next one of the connection has its turn.
        ana.send("refuse it").await.expect_error("unwanted_word");
        let by_alias = ana.request("chat:send-message", refused_by_name.clone()).await;
        by_alias.expect_error("unwanted_word");
        for (path, body) in
            [(in_room.as_str(), json!({ "content": "refuse it" })), ("/api/v1/messages", refused_by_name)]
        {
            host.rest("ana").post(path, body).await.expect_problem(403, "unwanted_word");
        }
        // A message that a hook has changed is validated like the message of any client.
        ana.send("empty").await.expect_invalid("content");
        host.rest("ana").post(&in_room, json!({ "content": "empty" })).await.expect_invalid("content");
        // Pipelined frames keep their order, although each waits for its hook.
        for n in 0..10 {
            let payload = json!({ "conversation_id": ana.room(), "content": format!("add {n}") });
            ana.write(json!({ "type": "message.send", "id": format!("p{n}"), "payload": payload })).await;
        }
        for n in 0..10 {
            bo.expect_message(&format!("add {n}!")).await;
            ana.reply_to(&json!(format!("p{n}"))).await.expect_sent();
        }
        // Without its hook the action goes on.
        host.admin.retire("decides").await.expect(200);
        ana.send("refuse it").await.expect_sent();
        bo.expect_message("refuse it").await;
    })
    .await;
}

#[tokio::test]
async fn a_hook_that_fails_closes_or_opens_as_its_manifest_says() {
    Host::test(Options::default(), async |host| {
        for on_failure in ["closed", "open"] {
            host.admin.release(&decides(on_failure)).await;
            let (eve, mut client) = (host.rest("eve"), host.client("eve").await);
            for mood in ["trap", "loop", "list"] {
                let body = json!({ "content": format!("{mood} it") });
                let rest = eve.post(PATH, body.clone()).await;
                let frame = client.request("guests.say", body.clone()).await;
                if on_failure == "open" {
                    assert_eq!(rest.expect(200)["body"], body.to_string(), "{mood}");
                    assert_eq!(frame.expect("guests.said"), body, "{mood}");
                } else {
                    let problem = rest.expect_problem(503, "unavailable");
                    assert_eq!(problem["retry_after_ms"], 1000, "{mood}");
                    assert_eq!(frame.expect_error("unavailable")["retryable"], true, "{mood}");
                }
            }
            let rest = eve.post(PATH, json!({ "content": "number" })).await;
            if on_failure == "open" {
                assert_eq!(rest.expect(200)["room"], "lobby");
            } else {
                rest.expect_problem(503, "unavailable");
            }
            // The failures of the hook leave the connection and other calls alone.
            assert_eq!(over_frame(&mut client, "add it").await["content"], "add it!");
        }
        assert_eq!(host.admin.metric("switchboard_hook_failures_total").await, Some(14.0));
        let log = host.log();
        // On a busy machine, a loop may be cut at the 500 ms of a hook before it has had its 50 ms.
        for what in [["trap: "; 2], ["cpu: ", "deadline: "], ["answer: a changed payload is not a JSON"; 2]] {
            let logged = log.lines().filter(|line| {
                line.contains("its `on_failure` decides whether the action is done")
                    && what.iter().any(|what| line.contains(what))
            });
            assert_eq!(logged.count(), 4, "{what:?}\n{log}");
        }
        let broken = log.lines().filter(|line| line.contains("`room` is a parameter of the path"));
        assert_eq!(broken.count(), 2, "{log}");
        // Each hook has its own statistics.
        let page = host.admin.rest().get("/metrics").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let trapped = page.lines().filter(|line| {
            line.starts_with("switchboard_calls_total{")
                && line.contains("trigger=\"before\"")
                && line.contains("outcome=\"trap\"")
        });
        assert!(trapped.count() >= 1, "{page}");
    })
    .await;
}

/// A client chooses the payload. If its size could make a hook fail, the client could get past a hook that
/// opens.
#[tokio::test]
async fn no_payload_of_a_client_is_too_large_for_a_hook_that_adds_to_it() {
    Host::test(Options::default(), async |host| {
        let patient = decides("open").with_manifest(|manifest| {
            manifest["limits"]["cpu_ms"] = 2000.into();
        });
        host.admin.release(&patient).await;
        let mut client = host.client("eve").await;
        // JSON that is written again becomes longer.
        let payload = format!(r#"{{"content":"add it","n":[{}0]}}"#, "1e15,".repeat(13_000));
        client.write_text(&format!(r#"{{"type":"guests.say","id":"r1","payload":{payload}}}"#)).await;
        let answer = client.reply_to(&json!("r1")).await.expect("guests.said");
        assert_eq!(answer["content"], "add it!");
        assert_eq!(answer["n"].as_array().map(Vec::len), Some(13_001));
        assert_eq!(host.admin.metric("switchboard_hook_failures_total").await, None);
    })
    .await;
}

#[tokio::test]
async fn a_slow_hook_is_cut_long_before_its_own_deadline() {
    Host::test(Options::default(), async |host| {
        let slow = decides("closed").with_manifest(|manifest| manifest["limits"]["cpu_ms"] = 5000.into());
        host.admin.release(&slow).await;
        let mut client = host.client("eve").await;
        let begun = Instant::now();
        client.request("guests.say", json!({ "content": "loop" })).await.expect_error("unavailable");
        let took = begun.elapsed();
        // The manifest would allow 5 s; the host allows 500 ms.
        assert!(took > Duration::from_millis(400) && took < Duration::from_secs(4), "{took:?}");
        assert!(host.log().contains("deadline: no answer after "), "{}", host.log());
    })
    .await;
}

#[tokio::test]
async fn hooks_are_called_in_their_order_and_each_gets_what_the_last_one_made() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&decides("closed")).await;
        let mut client = host.client("eve").await;
        // With the same order as the first hook, the names decide.
        for (order, expected) in [(5, "add -x!"), (15, "add !-x"), (10, "add !-x")] {
            host.admin.release(&another("decides-too", order, "-x")).await;
            assert_eq!(over_frame(&mut client, "add ").await["content"], expected, "{order}");
            assert_eq!(over_rest(host, "eve", "add ").await.1["content"], expected, "{order}");
        }
        // The frames of the second handler are another action, which has no hooks.
        let reply = client.request("decides-too.say", json!({ "content": "add " })).await;
        assert_eq!(reply.expect("guests.said")["content"], "add ");
    })
    .await;
}

#[tokio::test]
async fn an_action_has_at_most_eight_hooks() {
    Host::test(Options::default(), async |host| {
        for n in 0..8 {
            host.admin.release(&another(&format!("hook-{n}"), n, "x")).await;
        }
        let refused = host.admin.deploy(&another("hook-8", 8, "x")).await;
        let detail = refused.expect_problem(409, "conflict")["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("has 8 hooks, the maximum"), "{detail}");
    })
    .await;
}

#[tokio::test]
async fn a_canary_of_a_hook_has_its_users_over_every_transport_and_is_withdrawn_when_it_traps() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&decides_with("adds", "1")).await;
        let second = decides_with("adds", "2");
        assert_eq!(host.admin.try_out(&second, "canary=50").await.expect(200)["complete"], true);
        let mut seen = BTreeSet::new();
        for n in 0..20 {
            let user = format!("user-{n}");
            let content = over_rest(host, &user, "add ").await.1["content"].clone();
            let mut client = host.client(&user).await;
            assert_eq!(over_frame(&mut client, "add ").await["content"], content, "{user}");
            seen.insert(content.to_string());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [r#""add 1""#, r#""add 2""#]);

        assert_eq!(host.admin.rollback("decides").await.expect(200)["action"], "withdraw");
        let bad = decides_with("mood", "trap");
        assert_eq!(host.admin.try_out(&bad, "canary=50").await.expect(200)["complete"], true);
        until("the canary to be withdrawn", async || {
            for n in 0..20 {
                // The hook opens, so its failures stop nobody.
                over_rest(host, &format!("user-{n}"), "hello").await;
            }
            let history = host.admin.rest().get("/admin/v1/history?handler=decides").await.expect(200);
            (history["history"][0]["action"] == "withdraw").then_some(())
        })
        .await;
        assert_eq!(over_rest(host, "user-0", "add ").await.1["content"], "add 1");

        // A shadow of the hook gets copies of its calls. Its decisions have no effect.
        let other = decides_with("adds", "3");
        assert_eq!(host.admin.try_out(&other, "shadow=100").await.expect(200)["complete"], true);
        let seen = until("the shadow to differ", async || {
            assert_eq!(over_rest(host, "eve", "add ").await.1["content"], "add 1");
            let seen = host.admin.rest().get("/admin/v1/handlers/decides/shadow").await.expect(200);
            let seen = seen["shadows"][0].clone();
            (seen["differing"].as_u64() >= Some(1)).then_some(seen)
        })
        .await;
        assert!(seen["examples"][0].as_str().unwrap().starts_with("before call "), "{seen}");
    })
    .await;
}

#[tokio::test]
async fn the_call_of_a_hook_is_recorded_and_can_be_replayed() {
    let kept = tempfile::tempdir().expect("a directory");
    let options = Options::default()
        .set("TRACE_DIR", kept.path().display())
        .set("TRACE_CALLS", "all")
        .set("TRACE_BODIES", "true");
    Host::test(options, async |host| {
        let release = decides("closed");
        host.admin.release(&release).await;
        over_rest(host, "eve", "add it").await;
        let path = until("the recording of the hook", async || {
            let files = fs::read_dir(kept.path().join("decides")).ok()?.flatten();
            let hook = |path: &std::path::PathBuf| {
                fs::read_to_string(path)
                    .is_ok_and(|text| text.contains("\nreturned\n") && text.contains("trigger: \"before\""))
            };
            files.map(|file| file.path()).find(hook)
        })
        .await;
        let text = fs::read_to_string(&path).expect("the recording");
        assert!(text.contains("action: \"guests.say\"") && text.contains("Change"), "{text}");
        let file = kept.path().join("decides.wasm");
        fs::write(&file, &release.bytes).expect("a file");
        let (path, file) = (path.display().to_string(), file.display().to_string());
        let (code, printed) = host.switchboard_text(&["replay", &path, "--release", &file]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
}

#[tokio::test]
async fn a_message_whose_node_is_killed_while_its_hook_runs_is_stored_once() {
    Host::test(Options::default(), async |host| {
        let room = host.group("lobby", &["ana", "bo"]).await;
        let slow = decides("open").with_manifest(|manifest| manifest["limits"]["cpu_ms"] = 5000.into());
        host.admin.release(&slow).await;
        let mut ana = host.client("ana").await;
        let payload = json!({ "conversation_id": room, "content": "loop", "client_msg_id": "k1" });
        ana.write(json!({ "type": "message.send", "id": "r1", "payload": payload })).await;
        until("the hook to run", async || host.log().contains("decides in a loop").then_some(())).await;
        host.kill().await;
        host.start().await;
        // The hook is cut after 500 ms and opens, so the message is stored now.
        let mut ana = host.client("ana").await;
        ana.request("message.send", payload).await.expect("message.sent");
        let path = format!("/api/v1/conversations/{room}/messages?type=text");
        let history = host.rest("ana").get(&path).await.expect(200);
        assert_eq!(history["messages"].as_array().map(Vec::len), Some(1), "{history}");
    })
    .await;
}
