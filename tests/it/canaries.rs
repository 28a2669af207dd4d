//! A release beside the running one: a canary for some of the users, or a shadow that answers no user. A bad
//! canary is withdrawn automatically, on every node, with the reason.

use std::collections::BTreeMap;
use std::time::Instant;

use hyper::Method;
use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::until;
use switchboard_tests::release::Release;
use switchboard_tests::token::Token;

const PATH: &str = "/api/v1/guests/moody";

/// A release of `moody` with this behaviour and answer.
fn moody(mood: &str, says: &str) -> Release {
    Release::guest("moody").with_manifest(|manifest| {
        let config = manifest["config"].as_table_mut().unwrap();
        config.insert("mood".into(), mood.into());
        config.insert("says".into(), says.into());
        manifest.insert("canary".into(), toml::toml! { calls = 20 }.into());
    })
}

/// The answer that a user gets: the text of a release, or the status of a failure.
async fn answered(host: &Host, user: &str) -> String {
    let answer = host.rest(user).get(PATH).await;
    match answer.status {
        200 => answer.json()["says"].as_str().unwrap().to_owned(),
        status => status.to_string(),
    }
}

async fn by_user(host: &Host, users: usize) -> BTreeMap<String, String> {
    let mut answers = BTreeMap::new();
    for n in 0..users {
        let user = format!("user-{n}");
        let answer = answered(host, &user).await;
        answers.insert(user, answer);
    }
    answers
}

async fn last_switch(host: &Host) -> Value {
    let history = host.admin.rest().get("/admin/v1/history?handler=moody").await.expect(200);
    history["history"][0].clone()
}

#[tokio::test]
async fn a_canary_has_the_same_users_on_every_node_until_it_is_promoted() {
    Host::test(Options::default(), async |host| {
        let other = host.another_node().await;
        let (first, second) = (moody("fine", "first"), moody("fine", "second"));
        host.admin.release(&first).await;
        let outcome = host.admin.try_out(&second, "canary=30%").await.expect(200);
        assert_eq!(outcome["complete"], true, "{outcome}");
        assert_eq!((&outcome["release"], &outcome["percent"]), (&json!(second.digest()), &json!(30)));
        assert_eq!(host.current("moody").await, first.digest());

        let here = by_user(host, 60).await;
        let of_canary = here.values().filter(|says| *says == "second").count();
        assert!((5..35).contains(&of_canary), "{of_canary} of 60 users");
        assert_eq!(by_user(&other, 60).await, here, "another node chooses otherwise");
        let more = host.admin.try_out(&second, "canary=60").await.expect(200);
        assert_eq!(more["complete"], true, "{more}");
        let then = by_user(host, 60).await;
        let kept = here.iter().all(|(user, says)| says == "first" || then[user] == "second");
        assert!(kept, "a canary that grows keeps its users");

        let promoted =
            host.admin.rest().post("/admin/v1/handlers/moody/promote", json!({})).await.expect(200);
        assert_eq!(promoted["complete"], true, "{promoted}");
        assert_eq!(host.current("moody").await, second.digest());
        assert!(by_user(&other, 20).await.values().all(|says| says == "second"));
        let again = host.admin.rest().post("/admin/v1/handlers/moody/promote", json!({})).await;
        again.expect_problem(409, "conflict");
    })
    .await;
}

#[tokio::test]
async fn a_canary_answers_selected_users_a_role_and_testers_on_every_node_and_nobody_else() {
    Host::test(Options::default(), async |host| {
        let other = host.another_node().await;
        host.admin.release(&moody("fine", "first")).await;
        let second = moody("fine", "second");
        let selected = "canary_user=ana&canary_user=a,b&canary_role=beta&canary_group=staff\
                        &canary_tester=correct-horse";
        let outcome = host.admin.try_out(&second, selected).await.expect(200);
        assert_eq!((&outcome["complete"], &outcome["percent"]), (&json!(true), &json!(0)), "{outcome}");
        let beta = Token::of("eve").roles(&["beta"]).sign();
        let staff = Token::of("mia").claim("groups", json!(["other", "staff"])).sign();
        for node in [&*host, &other] {
            assert_eq!(answered(node, "ana").await, "second");
            assert_eq!(answered(node, "a,b").await, "second");
            for token in [&beta, &staff] {
                let of_group = node.rest_with(token.clone()).get(PATH).await.expect(200);
                assert_eq!(of_group["says"], "second");
            }
            for (value, says) in [("correct-horse", "second"), ("wrong-horse", "first")] {
                let header = [("x-switchboard-tester", value)];
                let answer = node.rest("bo").send(Method::GET, PATH, &header, "").await.expect(200);
                assert_eq!(answer["says"], says, "{value}");
            }
            assert_eq!(answered(node, "bo").await, "first");
        }

        // The operators see whom it selects, and nobody sees the value of testers.
        let shown = "canary 0 % and users ana, a,b, role beta, group staff, testers";
        let audit = host.admin.rest().get("/admin/v1/audit?limit=5").await.expect(200).to_string();
        assert!(audit.contains(shown) && !audit.contains("horse"), "{audit}");
        let (_, status) = host.switchboard(&["status", "--json"]).await;
        let listed = status["releases"].as_array().expect("a list").iter();
        let canary = listed.clone().find(|release| release["release"] == second.digest()).expect("it");
        assert_eq!(canary["canary_selection"]["users"], json!(["ana", "a,b"]), "{canary}");
        assert!(!status.to_string().contains("horse") && !host.log().contains("horse"), "{status}");

        // It ends with the canary.
        host.admin.rollback("moody").await.expect(200);
        assert_eq!(answered(host, "ana").await, "first");
        assert_eq!(host.rest_with(beta).get(PATH).await.expect(200)["says"], "first");
    })
    .await;
}

#[tokio::test]
async fn a_crashing_canary_is_withdrawn_from_three_nodes_within_two_seconds() {
    Host::test(Options::default(), async |host| {
        let (second, third) = (host.another_node().await, host.another_node().await);
        let (good, bad) = (moody("fine", "first"), moody("trap", "never"));
        host.admin.release(&good).await;
        assert_eq!(host.admin.try_out(&bad, "canary=50").await.expect(200)["complete"], true);

        // Only this node has callers.
        let (began, mut failed) = (Instant::now(), 0);
        let taken_back = loop {
            let answers = by_user(&second, 10).await;
            failed += answers.values().filter(|answer| *answer == "500").count();
            assert!(failed <= 50, "{failed} failing calls and the canary stands");
            let last = last_switch(host).await;
            if last["action"] == "withdraw" {
                break last;
            }
        };
        println!("a crash-looping canary: {failed} failing calls, {:?}", began.elapsed());
        // The history has it first; the other nodes follow.
        for node in [&*host, &second, &third] {
            until("everybody to be answered by the first", async || {
                by_user(node, 20).await.values().all(|says| says == "first").then_some(())
            })
            .await;
        }
        assert_eq!(host.current("moody").await, good.digest());

        assert_eq!(
            (&taken_back["by"], &taken_back["release"]),
            (&json!("switchboard"), &json!(good.digest()))
        );
        let report = &taken_back["report"];
        assert_eq!((&report["release"], &report["over"]), (&json!(bad.digest()), &json!("failures")));
        assert!(report["cause"].as_str().unwrap().contains("without an answer"), "{report}");
        assert!(report["canary"]["failures"].as_u64() >= Some(3), "{report}");
        assert_eq!(report["beside"]["failures"], 0, "{report}");
        let path = format!("/admin/v1/history/{}/trace", taken_back["generation"]);
        let recording = host.admin.rest().get(&path).await;
        let text = String::from_utf8_lossy(&recording.body).into_owned();
        assert_eq!(recording.status, 200, "{recording}");
        // The panic's message is not among them: a guest aborts without writing it.
        for word in ["trace 1 of switchboard:host@1.0.0", "clock.now-ms", "trap"] {
            assert!(text.contains(word), "no {word:?} in the recording of the first failure:\n{text}");
        }
        host.admin.rest().get("/admin/v1/history/1/trace").await.expect_problem(404, "not_found");
    })
    .await;
}

#[tokio::test]
async fn one_user_whose_calls_all_fail_does_not_withdraw_a_canary() {
    Host::test(Options::default(), async |host| {
        let (good, bad) = (moody("fine", "first"), moody("trap", "never"));
        host.admin.release(&good).await;
        assert_eq!(host.admin.try_out(&bad, "canary=50").await.expect(200)["complete"], true);
        // A user in the canary's half, and a user who is not.
        let mut eve = None;
        for n in 0..64 {
            let user = format!("eve-{n}");
            if answered(host, &user).await == "500" {
                eve = Some(user);
                break;
            }
        }
        let eve = eve.expect("half of all users have the canary");
        let began = Instant::now();
        let mut failed = 0;
        while failed < 60 || began.elapsed() < limits_of_the_short_window() {
            assert_eq!(answered(host, &eve).await, "500", "after {failed} failing calls of one user");
            failed += 1;
        }
        assert_eq!(last_switch(host).await["action"], "canary");
        // Other users have the same failure: then the release is the cause.
        let last = until("the canary to be withdrawn", async || {
            by_user(host, 20).await;
            let last = last_switch(host).await;
            (last["action"] == "withdraw").then_some(last)
        })
        .await;
        let seen = &last["report"]["canary"];
        assert!(seen["callers_with_errors"].as_u64() >= Some(3), "{seen}");
    })
    .await;
}

/// After this time there will be no verdict: both windows were compared.
fn limits_of_the_short_window() -> std::time::Duration {
    std::time::Duration::from_millis(2500)
}

#[tokio::test]
async fn errors_and_slowness_withdraw_a_canary_too() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&moody("fine", "first")).await;
        for (mood, over) in [("error", "errors"), ("slow", "latency")] {
            let bad = moody(mood, mood);
            assert_eq!(host.admin.try_out(&bad, "canary=50").await.expect(200)["complete"], true);
            let last = until(format!("{mood} to be noticed"), async || {
                by_user(host, 20).await;
                let last = last_switch(host).await;
                (last["action"] == "withdraw").then_some(last)
            })
            .await;
            assert_eq!((&last["report"]["over"], &last["previous"]), (&json!(over), &json!(bad.digest())));
        }
        // A canary that is not worse stays.
        let good = moody("fine", "second");
        assert_eq!(host.admin.try_out(&good, "canary=50").await.expect(200)["complete"], true);
        for _ in 0..10 {
            by_user(host, 20).await;
        }
        assert_eq!(last_switch(host).await["action"], "canary");
        assert_eq!(host.admin.rollback("moody").await.expect(200)["action"], "withdraw");
        assert!(by_user(host, 20).await.values().all(|says| says == "first"));
    })
    .await;
}

#[tokio::test]
async fn a_canary_that_could_not_run_is_refused() {
    Host::test(Options::default(), async |host| {
        let first = moody("fine", "first");
        host.admin.try_out(&first, "canary=10").await.expect_problem(409, "conflict");
        host.admin.release(&first).await;
        for share in ["canary=0", "canary=100", "canary=ten", "shadow=0", "shadow=101"] {
            let field = share.split('=').next().unwrap();
            host.admin.try_out(&moody("fine", "second"), share).await.expect_invalid(field);
        }
        host.admin.try_out(&moody("fine", "second"), "canary=5&shadow=5").await.expect_invalid("shadow");
        for (wrong, field) in [
            ("canary_user=", "canary_user"),
            ("canary_role=", "canary_role"),
            ("canary_group=a&canary_group=b", "canary_group"),
            ("canary=5&canary_tester=short", "canary_tester"),
            ("shadow=5&canary_user=ana", "shadow"),
        ] {
            host.admin.try_out(&moody("fine", "second"), wrong).await.expect_invalid(field);
        }
        host.admin.try_out(&first, "canary=10").await.expect_problem(409, "conflict");
        let elsewhere = moody("fine", "second").with_manifest(|manifest| {
            manifest["on"]["http"][0]["path"] = "/api/v1/guests/moodier".into();
        });
        let refused = host.admin.try_out(&elsewhere, "canary=10").await;
        assert!(
            refused.expect_problem(409, "conflict")["detail"].as_str().unwrap().contains("does not bind")
        );
        let needy = moody("fine", "second").with_manifest(|manifest| {
            manifest.insert("needs".into(), toml::toml! { migrations = [1100, 999_999] }.into());
        });
        for answer in [host.admin.try_out(&needy, "canary=10").await, host.admin.deploy(&needy).await] {
            let detail = answer.expect_problem(409, "conflict")["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("999999") && !detail.contains("1100"), "{detail}");
        }
        assert_eq!(host.current("moody").await, first.digest());
        assert_eq!(answered(host, "ana").await, "first");
    })
    .await;
}

/// A promotion or a rollback that cannot be made says why, and changes neither what runs nor the history.
#[tokio::test]
async fn a_promotion_or_rollback_without_a_target_is_refused_with_its_reason() {
    Host::test(Options::default(), async |host| {
        let refused = async |handler: &str, action: &str, release: Option<&str>, status: u16, why: &str| {
            let path = format!("/admin/v1/handlers/{handler}/{action}");
            let answer = host.admin.rest().post(&path, json!({ "release": release })).await;
            assert_eq!(answer.status, status, "{action} {handler} {release:?}: {answer}");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(why), "{action} {handler} {release:?}: {detail}");
        };
        let (first, second) = (moody("fine", "first"), moody("fine", "second"));
        let live = first.digest();
        for action in ["promote", "rollback"] {
            refused("moody", action, None, 404, "no handler `moody` runs in this fleet").await;
        }
        host.admin.release(&first).await;
        let ran = last_switch(host).await;
        for (action, release, status, why) in [
            ("promote", None, 409, "`moody` has no canary"),
            ("promote", Some(&*live), 409, "`moody` has no canary"),
            ("rollback", None, 409, "no release ran before this one"),
            (
                "rollback",
                Some("000000000000"),
                404,
                "no stored release of the handler begins with 000000000000",
            ),
            ("rollback", Some("latest"), 422, "`latest` does not name a release"),
            ("rollback", Some("ab"), 422, "`ab` does not name a release"),
        ] {
            refused("moody", action, release, status, why).await;
        }
        // A release of another handler is no release of this one.
        let other = host.current("send-message").await;
        let digest = other.as_str().unwrap();
        refused("moody", "rollback", Some(digest), 404, "no stored release of the handler").await;
        // A repeated rollback finds its work done.
        let path = "/admin/v1/handlers/moody/rollback";
        let again = host.admin.rest().post(path, json!({ "release": live })).await.expect(200);
        assert_eq!((&again["unchanged"], &again["complete"]), (&json!(true), &json!(true)), "{again}");
        assert_eq!(last_switch(host).await, ran);

        host.admin.try_out(&second, "canary=10").await.expect(200);
        let tried = last_switch(host).await;
        for (release, status, why) in [
            (&*live, 409, "not the release that was named"),
            ("000000000000", 404, "no stored release of the handler begins with 000000000000"),
            ("latest", 422, "`latest` does not name a release"),
        ] {
            refused("moody", "promote", Some(release), status, why).await;
        }
        assert_eq!(last_switch(host).await, tried);
        assert_eq!(host.current("moody").await, live);
    })
    .await;
}

async fn shadow(host: &Host, handler: &str) -> Value {
    let seen = host.admin.rest().get(&format!("/admin/v1/handlers/{handler}/shadow")).await.expect(200);
    seen["shadows"][0].clone()
}

#[tokio::test]
async fn a_shadow_runs_real_sends_and_writes_nothing() {
    Host::test(Options::default(), async |host| {
        let (mut ana, mut bo) = host.two_members("lobby").await;
        // A busy shadow skips calls, so it may take many calls until it has run some.
        let patient = Release::built("send-message").with_manifest(|manifest| {
            manifest["config"]["messages_per_minute"] = 1_000_000.into();
        });
        host.admin.release(&patient).await;
        let same = patient.variant(1);
        assert_eq!(host.admin.try_out(&same, "shadow=100%").await.expect(200)["complete"], true);
        let mut sent = 0;
        let seen = until("the shadow to be shown some", async || {
            ana.send(&format!("message {sent}")).await.expect_sent();
            bo.expect_message(&format!("message {sent}")).await;
            sent += 1;
            let seen = shadow(host, "send-message").await;
            (seen["same"].as_u64() >= Some(3)).then_some(seen)
        })
        .await;
        assert_eq!((&seen["release"], &seen["differing"]), (&json!(same.digest()), &json!(0)), "{seen}");
        // There is one message each, although the shadow ran the same code.
        let history =
            host.rest("ana").get(&format!("/api/v1/conversations/{}/messages?type=text", ana.room())).await;
        assert_eq!(history.expect(200)["messages"].as_array().unwrap().len(), sent);
        bo.expect_silence().await;

        // A different behaviour is reported, with the first call that showed it.
        let strict = Release::built("send-message").with_manifest(|manifest| {
            manifest["config"]["messages_per_minute"] = 1.into();
        });
        assert_eq!(host.admin.try_out(&strict, "shadow=100").await.expect(200)["complete"], true);
        let seen = until("the shadow to differ", async || {
            ana.send(&format!("message {sent}")).await.expect_sent();
            bo.expect_message(&format!("message {sent}")).await;
            sent += 1;
            let seen = shadow(host, "send-message").await;
            (seen["release"] == strict.digest() && seen["differing"].as_u64() >= Some(1)).then_some(seen)
        })
        .await;
        assert!(seen["examples"][0].as_str().unwrap().contains("diverged"), "{seen}");
        let ended =
            host.admin.rest().post("/admin/v1/handlers/send-message/unshadow", json!({})).await.expect(200);
        assert_eq!(ended["action"], "unshadow");
        ana.send("and on").await.expect_sent();
        bo.expect_message("and on").await;
    })
    .await;
}

#[tokio::test]
async fn each_release_has_its_own_metrics() {
    Host::test(Options::default(), async |host| {
        let (good, bad) = (moody("fine", "first"), moody("error", "second"));
        host.admin.release(&good).await;
        by_user(host, 3).await;
        host.admin.release(&bad).await;
        by_user(host, 2).await;
        let page = host.admin.rest().get("/metrics").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let value = |name: &str, release: &Release, label: &str| -> f64 {
            let (release, name) = (format!("release=\"{}\"", &release.digest()[..12]), format!("{name}{{"));
            let line = page
                .lines()
                .find(|line| line.starts_with(&name) && line.contains(&release) && line.contains(label));
            let line = line.unwrap_or_else(|| panic!("no {name} of {release} with {label} in\n{page}"));
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        assert_eq!(value("switchboard_calls_total", &good, "outcome=\"returned\""), 3.0);
        assert_eq!(value("switchboard_call_errors_total", &bad, "blame=\"guest\""), 2.0);
        assert_eq!(value("switchboard_call_errors_total", &good, "blame=\"guest\""), 0.0);
        assert_eq!(value("switchboard_call_seconds_count", &good, "trigger=\"http\""), 3.0);
        assert!(value("switchboard_host_calls_total", &good, "function=\"clock.now-ms\"") >= 3.0);
        assert!(value("switchboard_call_cpu_seconds_total", &good, "") > 0.0);
        assert!(value("switchboard_call_memory_high_bytes", &good, "") >= 65_536.0);
        for family in ["switchboard_nodes", "switchboard_outbox_behind", "switchboard_bus_up"] {
            until(format!("{family} to be there"), async || host.admin.metric(family).await).await;
        }
    })
    .await;
}
