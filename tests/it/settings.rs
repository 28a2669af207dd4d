//! Live settings: a change is on all nodes within a second, needs no restart and no deploy, and affects no
//! socket. A call sees one set of settings.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use switchboard_tests::crowd::{Chatter, Plan};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger::{self, Audit};
use switchboard_tests::patience::{until, within};
use switchboard_tests::release::Release;

const MOODY: &str = "/api/v1/guests/moody";
const OF_MOODY: &str = "/admin/v1/handlers/moody/config";
/// A size for CI machines. `scripts/bench --only settings` has 2,000 sockets and 1,000 changes.
const ROOMS: usize = 10;
const SOCKETS_A_ROOM: usize = 10;
const CHANGES: usize = 200;
/// Pause between two messages of a socket. Each message makes nine notifications, and the test waits until
/// all are stored.
const TALKS_EVERY: Duration = Duration::from_millis(500);
/// The time until the consumers have read the outbox, on a machine that is busy with other tests.
const READ_WITHIN: Duration = Duration::from_secs(120);

/// `moody` with rules for its settings.
fn moody() -> Release {
    Release::guest("moody").with_manifest(|manifest| {
        let rules = toml::toml! {
            [mood]
            type = "text"
            one_of = ["fine", "trap", "error", "slow"]
            [says]
            type = "text"
            chars_max = 20
        };
        manifest.insert("settings".into(), rules.into());
    })
}

async fn says(host: &Host) -> String {
    host.rest("ana").get(MOODY).await.expect(200)["says"].as_str().expect("a text").to_owned()
}

async fn change(host: &Host, body: Value) -> Value {
    let outcome = host.admin.rest().post(OF_MOODY, body).await.expect(200);
    assert_eq!(outcome["complete"], true, "{outcome}");
    outcome
}

/// The row of a setting in the list of this node.
async fn listed(host: &Host, key: &str) -> Value {
    let view = host.admin.rest().get(OF_MOODY).await.expect(200);
    let settings = view["settings"].as_array().expect("a list");
    settings.iter().find(|setting| setting["key"] == key).expect("the key").clone()
}

#[tokio::test]
async fn a_change_is_on_all_nodes_within_a_second_and_needs_no_restart() {
    Host::test(Options::default(), async |host| {
        let (second, third) = (host.another_node().await, host.another_node().await);
        let release = moody();
        host.admin.release(&release).await;
        let loaded = host.admin.metric("switchboard_releases_loaded").await;
        let generation =
            host.switchboard(&["config", "list", "moody", "--json"]).await.1["generation"].clone();
        assert_eq!(generation, 0);
        let (code, outcome) = host
            .switchboard(&["config", "set", "moody", "says", "hello", "--note", "a test", "--json"])
            .await;
        assert_eq!((code, &outcome["complete"]), (0, &json!(true)), "{outcome}");
        assert_eq!(outcome["nodes"].as_array().map(Vec::len), Some(3), "{outcome}");
        let took_ms = outcome["took_ms"].as_u64().expect("a time");
        println!("a change of a setting on three nodes: {took_ms} ms");
        assert!(took_ms < 1000, "{outcome}");
        // The command returns when all nodes have it.
        for node in [&*host, &second, &third] {
            assert_eq!(says(node).await, "hello");
        }
        assert_eq!(host.current("moody").await, release.digest());
        assert_eq!(host.admin.metric("switchboard_releases_loaded").await, loaded, "nothing was loaded");
        // A value that no other user of the machine may see is not on the command line.
        let set = ["config", "set", "moody", "says", "--stdin"];
        let (code, text) = host.switchboard_fed(&[], "-w\u{f6}rd-".as_bytes(), &set).await;
        assert_eq!((code, says(host).await.as_str()), (0, "-w\u{f6}rd-"), "{text}");
        let (code, text) = host.switchboard_fed(&[], b"\xff", &set).await;
        assert!(code == 1 && text.contains("is not UTF-8"), "{code} {text}");
        for wrong in [&set[..4], &["config", "set", "moody", "says", "hello", "--stdin"]] {
            assert_eq!(host.switchboard_fed(&[], b"", wrong).await.0, 2, "{wrong:?}");
        }
        let (code, outcome) = host.switchboard(&["config", "set", "moody", "says", "hello", "--json"]).await;
        assert_eq!(code, 0, "{outcome}");

        // A node that starts later has it too.
        let late = host.another_node().await;
        assert_eq!(says(&late).await, "hello");
        let audit = host.admin.rest().get("/admin/v1/audit?limit=1").await.expect(200);
        let entry = &audit["audit"][0];
        assert_eq!(entry["action"], format!("POST {OF_MOODY}"));
        let detail = format!("says (generation {})", outcome["generation"]);
        assert_eq!((&entry["detail"], &entry["who"]), (&json!(detail), &json!("admin")), "{audit}");
    })
    .await;
}

#[tokio::test]
async fn a_call_sees_one_set_of_settings() {
    Host::test(Options::default(), async |host| {
        let probe = Release::guest("probe").with_manifest(|manifest| {
            manifest["grants"]["postgres"] = "send_message".into();
            manifest["limits"]["deadline_ms"] = 10_000.into();
        });
        for name in ["PROBED", "DEFAULTED"] {
            let (code, text) = host.switchboard_fed(&[], b"of this test", &["secret", "set", name]).await;
            assert_eq!(code, 0, "{text}");
        }
        host.admin.release(&probe).await;
        let mut ana = host.client("ana").await;
        let calls = json!({ "calls": [
            ["config", "known"], ["query", "select 1 from pg_sleep(1.5)", []], ["config", "known"]] });
        ana.write(json!({ "type": "probe", "id": "slow", "payload": calls })).await;
        until("the call to wait in Postgres", async || {
            let sleeping = "select 1 from pg_stat_activity
                            where query = 'select 1 from pg_sleep(1.5)' and state = 'active'";
            (!host.database.rows(sleeping).await.is_empty()).then_some(())
        })
        .await;
        let path = "/admin/v1/handlers/probe/config";
        let outcome = host.admin.rest().post(path, json!({ "set": { "known": "no" } })).await.expect(200);
        assert_eq!(outcome["complete"], true, "a change does not wait for calls: {outcome}");
        // A call that began after the change has the new value, also while the other one still runs.
        let calls = json!({ "calls": [["config", "known"]] });
        let rest = host.client("bo").await.request("probe", calls).await.expect("probed");
        assert_eq!(rest["said"][0], "Some(\"no\")");
        let slow = ana.reply_to(&json!("slow")).await.expect("probed");
        assert_eq!((&slow["said"][0], &slow["said"][2]), (&json!("Some(\"yes\")"), &json!("Some(\"yes\")")));
        assert!(slow["said"][1].as_str().expect("a text").starts_with("Ok("), "{slow}");
    })
    .await;
}

#[tokio::test]
async fn an_override_of_a_node_is_shown_and_hides_the_live_value_there() {
    Host::test(Options::default(), async |host| {
        let other = host.another_node_with(Options::default().set("HANDLERS__MOODY__SAYS", "here")).await;
        host.admin.release(&moody()).await;
        let outcome = change(host, json!({ "set": { "says": "live" } })).await;
        let address = other.admin_address().to_string();
        assert_eq!(outcome["overridden"], json!([{ "key": "says", "nodes": [address] }]), "{outcome}");
        assert_eq!((says(host).await, says(&other).await), ("live".to_owned(), "here".to_owned()));

        let here = listed(host, "says").await;
        assert_eq!((&here["value"], &here["from"]), (&json!("live"), &json!("live")), "{here}");
        assert_eq!(here["overridden_on"], json!([address]));
        let there = listed(&other, "says").await;
        assert_eq!((&there["value"], &there["from"]), (&json!("here"), &json!("node")), "{there}");
        let place = "environment (SWITCHBOARD_HANDLERS__MOODY__SAYS)";
        assert_eq!(there["override"], json!({ "value": "here", "place": place }));
        assert_eq!((&there["live"]["value"], &there["default"]), (&json!("live"), &json!("first")));
        assert_eq!(
            (&there["live"]["by"], &there["rule"]),
            (&json!("admin"), &json!("a text of at most 20 characters"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_refused_at_once() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&moody()).await;
        let fleet =
            async || host.database.rows("select generation from switchboard.fleet").await[0].get::<_, i64>(0);
        let before = fleet().await;
        for (body, complaint) in [
            (
                json!({ "set": { "mood": "sad" } }),
                "mood is one of \"fine\", \"trap\", \"error\", \"slow\", not \"sad\"",
            ),
            (json!({ "set": { "says": "x".repeat(21) } }), "says is a text of at most 20 characters"),
            (json!({ "set": { "colour": "red" } }), "moody has no setting `colour`; it has mood, says"),
            (json!({ "set": { "mood": ["fine"] } }), "must be an object of texts, numbers or truth values"),
            (json!({ "set": { "mood": "fine" }, "unset": ["mood"] }), "is in `set` and in `unset`"),
            (json!({ "rollback": "yesterday" }), "`rollback` must be the generation of a change"),
            (json!({ "set": {}, "rollback": 1 }), "cannot be together"),
            (json!({}), "the body must have `set`, `unset` or `rollback`"),
        ] {
            let problem = host.admin.rest().post(OF_MOODY, body).await.expect_problem(422, "invalid");
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(complaint), "{detail}");
        }
        let (code, refused) = host.switchboard(&["config", "set", "moody", "mood", "sad", "--json"]).await;
        assert_eq!(code, 1);
        assert!(refused["error"].as_str().expect("an error").contains("mood is one of"), "{refused}");
        assert_eq!((fleet().await, says(host).await), (before, "first".to_owned()));

        // A release whose rules the stored value breaks is refused too.
        change(host, json!({ "set": { "says": "a long text" } })).await;
        let strict = moody().with_manifest(|manifest| {
            manifest["settings"]["says"]["chars_max"] = 5.into();
        });
        let problem = host.admin.deploy(&strict).await.expect_problem(409, "conflict");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains("the live setting says (set by admin) does not fit this release"),
            "{detail}"
        );
        assert_eq!(says(host).await, "a long text");
    })
    .await;
}

#[tokio::test]
async fn rollback_restores() {
    Host::test(Options::default(), async |host| {
        host.admin.release(&moody()).await;
        let first = change(host, json!({ "set": { "says": "one" } })).await["generation"].to_string();
        change(host, json!({ "set": { "says": "two" }, "note": "why not" })).await;
        change(host, json!({ "unset": ["says"] })).await;
        assert_eq!(says(host).await, "first", "the default");
        let (code, back) = host.switchboard(&["config", "rollback", "moody", "--json"]).await;
        assert_eq!((code, says(host).await.as_str()), (0, "two"), "{back}");
        let (code, back) = host.switchboard(&["config", "rollback", "moody", &first, "--json"]).await;
        assert_eq!((code, says(host).await.as_str()), (0, "one"), "{back}");

        let (code, history) = host.switchboard(&["config", "history", "moody", "--json"]).await;
        assert_eq!(code, 0);
        let history = history["history"].as_array().expect("a list");
        let to: Vec<&Value> = history.iter().map(|event| &event["changes"][0]["to"]).collect();
        assert_eq!(to, [&json!("one"), &json!("two"), &json!(null), &json!("two"), &json!("one")]);
        assert_eq!((&history[3]["note"], &history[3]["by"]), (&json!("why not"), &json!("admin")));
        // A change that depends on what its operator saw is refused after another one.
        let (code, refused) =
            host.switchboard(&["config", "unset", "moody", "says", "--seen", &first, "--json"]).await;
        assert_eq!(code, 1);
        assert!(refused["error"].as_str().expect("an error").contains("came first"), "{refused}");
        assert_eq!(says(host).await, "one");
    })
    .await;
}

/// A setting that is not public is a secret for everything that is shown.
#[tokio::test]
async fn a_value_that_is_not_public_is_in_no_answer_log_or_recording() {
    const SECRET: &str = "s3cret-of-this-test";
    let options = Options::default()
        .set("RECORDING_DIR", "recordings")
        .set("RECORDING_CALLS", "all")
        .set("RECORDING_BODIES", true);
    Host::test(options, async |host| {
        let quiet = moody().with_manifest(|manifest| {
            manifest["public_settings"] = toml::Value::Array(vec!["mood".into()]);
        });
        host.admin.release(&quiet).await;
        let outcome = change(host, json!({ "set": { "says": SECRET } })).await;
        assert_eq!(says(host).await, SECRET, "the handler has it");
        let refused =
            host.admin.rest().post(OF_MOODY, json!({ "set": { "says": format!("{SECRET}!!") } })).await;
        let refused = refused.expect_problem(422, "invalid");
        assert!(refused["detail"].as_str().unwrap_or_default().ends_with("not the given value"), "{refused}");
        let list = host.admin.rest().get(OF_MOODY).await.expect(200);
        let history = host.admin.rest().get(&format!("{OF_MOODY}/history")).await.expect(200);
        let audit = host.admin.rest().get("/admin/v1/audit").await.expect(200);
        let mut places = vec![outcome.to_string(), refused.to_string(), audit.to_string(), host.log()];
        for shown in [&list, &history] {
            assert!(shown.to_string().contains("[setting says]"), "{shown}");
            places.push(shown.to_string());
        }
        let recorded = until("a recording of the call", async || {
            let recorded = host.files_of("recordings/moody");
            recorded.iter().any(|text| text.contains("[setting says]")).then_some(recorded)
        })
        .await;
        places.extend(recorded);
        for place in places {
            assert!(!place.contains(SECRET), "{place}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_changes_do_not_touch_busy_sockets() {
    // No `without_rate_limits`: an override would hide the live setting.
    let options = Options::default()
        .set("HANDLERS__CONVERSATIONS__CONVERSATIONS_PER_MINUTE", 0)
        .set("HANDLERS__CONVERSATIONS__MEMBERS_PER_MINUTE", 0)
        .set("FRAMES_PER_SECOND", 1_000_000)
        .set("FRAMES_BURST", 1_000_000);
    Host::test(options, async |host| {
        let path = "/admin/v1/handlers/send-message/config";
        let rate = async |most: usize| {
            let body = json!({ "set": { "messages_per_minute": most } });
            let outcome = host.admin.rest().post(path, body).await.expect(200);
            assert_eq!(outcome["complete"], true, "{outcome}");
            outcome["took_ms"].as_u64().expect("a time")
        };
        rate(100_000_000).await;
        let mut rooms = Vec::new();
        for room in 0..ROOMS {
            let users: Vec<_> = (0..SOCKETS_A_ROOM).map(|n| format!("user-{room}-{n}")).collect();
            let users: Vec<_> = users.iter().map(String::as_str).collect();
            rooms.push(host.group(&format!("room {room}"), &users).await);
        }
        let mut crowd = Vec::new();
        for (n, room) in rooms.iter().enumerate() {
            for member in 0..SOCKETS_A_ROOM {
                let plan = Plan::talker(format!("user-{n}-{member}"), room, TALKS_EVERY);
                crowd.push(Chatter::start(host.address, plan).await);
            }
        }
        let acknowledged = |crowd: &[Chatter]| crowd.iter().map(Chatter::acknowledged).sum::<usize>();
        let loaded = host.admin.metric("switchboard_releases_loaded").await;
        let swaps = host.admin.metric("switchboard_swaps_total").await;
        let (before, began, mut slowest_ms) = (acknowledged(&crowd), Instant::now(), 0);
        for n in 1..=CHANGES {
            slowest_ms = slowest_ms.max(rate(100_000_000 + n).await);
        }
        let took = began.elapsed();
        let during = acknowledged(&crowd) - before;
        assert!(during > CHANGES, "the sockets were busy: {during} messages in {took:?}");
        assert_eq!(host.admin.metric("switchboard_releases_loaded").await, loaded);
        assert_eq!(host.admin.metric("switchboard_swaps_total").await, swaps);

        for chatter in &mut crowd {
            chatter.stop_sending().await;
        }
        let mut histories = BTreeMap::new();
        for (n, room) in rooms.iter().enumerate() {
            let history = ledger::history(&host.rest(&format!("user-{n}-0")), room).await;
            let head = *history.last_key_value().expect("a room with messages").0;
            for chatter in &crowd[n * SOCKETS_A_ROOM..(n + 1) * SOCKETS_A_ROOM] {
                chatter.expect_up_to(room, head).await;
            }
            histories.insert(room.clone(), history);
        }
        let records: Vec<_> = crowd.iter().map(Chatter::record).collect();
        let audit = Audit::of(&histories, &records);
        println!(
            "{CHANGES} changes of settings in {took:?} (the slowest {slowest_ms} ms), {} sockets: {during} messages \
             meanwhile, {} disconnects, {} refusals, {} duplicates, {} reordered, {} lost",
            crowd.len(),
            audit.disconnects.len(),
            audit.refusals.len(),
            audit.duplicates.len(),
            audit.reordered.len(),
            audit.undelivered.len() + audit.acknowledged_lost.len(),
        );
        audit.expect_untouched();
        within(READ_WITHIN, "every consumer to have read the outbox", async || {
            host.database.outbox_unread().await.is_empty().then_some(())
        })
        .await;

        // The count of refusals must be able to differ from zero: the live setting has its effect.
        rate(1).await;
        let mut one = host.client("user-0-0").await;
        one.enter(&rooms[0]).await;
        one.send("the first of this minute, or not").await;
        one.send("one too many").await.expect_error("rate_limited");
        drop(crowd);
    })
    .await;
}
