//! One-shot timers of a handler, and schedules with cron expressions: on one node, on two, and when a node
//! dies.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use switchboard_tests::client::Client;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::{until, within};
use switchboard_tests::release::Release;

const HOUR_MS: u64 = 3_600_000;
/// The guest has a deadline of a second. So its lease, four deadlines and two seconds, ends well before.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// Starts the guest, and signs ana in, who gets its pushes.
async fn with_guest(host: &Host) -> Client {
    host.admin.release(&Release::guest("timers")).await;
    host.client("ana").await
}

async fn ask(client: &mut Client, payload: Value) -> String {
    let answer = client.request("timers.do", payload).await.expect("timers.done");
    answer["said"].as_str().expect("a text").to_owned()
}

async fn set(client: &mut Client, timers: Value) {
    assert_eq!(ask(client, json!({ "do": "set", "timers": timers })).await, "Ok(())");
}

async fn cancel(client: &mut Client, key: &str) -> String {
    ask(client, json!({ "do": "cancel", "key": key })).await
}

async fn stored(host: &Host) -> i64 {
    host.database.rows("select count(*) from switchboard.timers").await[0].get(0)
}

async fn nothing_is_stored(host: &Host) {
    until("no timer to be left", async || (stored(host).await == 0).then_some(())).await;
}

/// The number of different timers that were counted.
async fn counted(host: &Host) -> u64 {
    let key = host.redis_key("timers:fired").await;
    let client = redis::Client::open(host.redis.url_at(None)).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    redis::cmd("SCARD").arg(key).query_async(&mut connection).await.expect("a number")
}

/// Sets timers that are due together. `count` is a multiple of 200.
async fn fill(client: &mut Client, count: u64, at_ms: u64) {
    for from in (0..count).step_by(200) {
        let filled = ask(client, json!({ "do": "fill", "from": from, "count": 200, "at_ms": at_ms })).await;
        assert_eq!(filled, "Ok(())");
    }
}

async fn failed(host: &Host) -> Vec<Value> {
    let (status, answer) = host.switchboard(&["events", "failed", "--json"]).await;
    assert_eq!(status, 0, "{answer}");
    answer["events"].as_array().expect("a list").clone()
}

async fn listed(host: &Host) -> Vec<Value> {
    let (status, answer) = host.switchboard(&["timers", "list", "timers", "--json"]).await;
    assert_eq!(status, 0, "{answer}");
    answer["timers"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_timer_fires_once_when_it_is_due_and_not_before() {
    Host::test(Options::default(), async |host| {
        let mut ana = with_guest(host).await;
        let (began, began_ms) = (Instant::now(), now_ms());
        set(&mut ana, json!([["soon", 1500, { "then": "push" }]])).await;
        let fired = ana.expect("fired").await;
        assert_eq!((&fired["key"], &fired["attempt"]), (&json!("soon"), &json!(1)));
        assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
        // The database adds the delay to its clock, which is that of this machine.
        let due_ms = fired["due_ms"].as_u64().expect("a time");
        assert!((began_ms + 1500..now_ms()).contains(&due_ms), "{due_ms} {began_ms}");
        nothing_is_stored(host).await;
        ana.expect_alive().await;
        assert!(ana.take_buffered("fired").is_none(), "it fired twice");
    })
    .await;
}

#[tokio::test]
async fn a_timer_can_be_replaced_cancelled_and_set_again_while_it_fires() {
    Host::test(Options::default(), async |host| {
        let mut ana = with_guest(host).await;
        let push = json!({ "then": "push" });
        set(&mut ana, json!([["a", HOUR_MS, push], ["b", HOUR_MS, push]])).await;
        assert_eq!(stored(host).await, 2);
        assert_eq!(cancel(&mut ana, "b").await, "Ok(true)");
        assert_eq!(cancel(&mut ana, "b").await, "Ok(false)");
        // A replaced timer counts from its new time.
        set(&mut ana, json!([["a", 0, push]])).await;
        assert_eq!(ana.expect("fired").await["key"], "a");
        nothing_is_stored(host).await;
        set(&mut ana, json!([["again", 0, { "then": "again" }]])).await;
        for _ in 0..3 {
            let fired = ana.expect("fired").await;
            assert_eq!((&fired["key"], &fired["attempt"]), (&json!("again"), &json!(1)));
        }
        nothing_is_stored(host).await;
        let refused = ask(&mut ana, json!({ "do": "set", "timers": [["", 0, push]] })).await;
        assert!(refused.contains("Refused") && refused.contains("a key has"), "{refused}");
        let refused = ask(&mut ana, json!({ "do": "set", "timers": [["a", 0, push], ["a", 0, push]] })).await;
        assert!(refused.contains("different keys"), "{refused}");
        assert_eq!(stored(host).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_failing_timer_is_retried_then_parked_then_retried_by_an_operator() {
    Host::test(Options::default(), async |host| {
        let mut ana = with_guest(host).await;
        set(
            &mut ana,
            json!([
                ["later", 0, { "then": "retry" }],
                ["panics", 0, { "then": "panic" }],
                ["panics too", 0, { "then": "panic" }],
                ["never", 0, { "then": "reject" }],
            ]),
        )
        .await;
        let fired = ana.expect("fired").await;
        assert_eq!((&fired["key"], &fired["attempt"]), (&json!("later"), &json!(2)));
        let parked =
            until("three to be parked", async || Some(failed(host).await).filter(|list| list.len() == 3))
                .await;
        let of = |key: &str| parked.iter().find(|event| event["key"] == key).expect("it is parked").clone();
        let expected = [("panics", 3, "trap"), ("panics too", 3, "trap"), ("never", 1, "never")];
        for (key, attempts, error) in expected {
            let event = of(key);
            assert_eq!((&event["consumer"], &event["event_type"]), (&json!("timers"), &json!("timer")));
            assert_eq!(event["attempts"], attempts, "{event}");
            assert!(event["error"].as_str().is_some_and(|text| text.contains(error)), "{event}");
        }
        assert!(listed(host).await.iter().all(|timer| timer["state"] == "parked"));

        let repaired =
            Release::guest("timers").with_manifest(|manifest| manifest["config"]["repaired"] = true.into());
        host.admin.release(&repaired).await;
        let id = |event: &Value| event["id"].as_str().expect("an id").to_owned();
        let (status, answer) = host.switchboard(&["events", "retry", &id(&of("panics")), "--json"]).await;
        assert_eq!(status, 0, "{answer}");
        let fired = ana.expect("fired").await;
        assert_eq!((&fired["key"], &fired["attempt"]), (&json!("panics"), &json!(1)));
        let (status, answer) = host.switchboard(&["events", "drop", &id(&of("never")), "--json"]).await;
        assert_eq!(status, 0, "{answer}");
        // The handler sets the parked one again.
        set(&mut ana, json!([["panics too", 0, { "then": "push" }]])).await;
        assert_eq!(ana.expect("fired").await["key"], "panics too");
        nothing_is_stored(host).await;
        assert!(failed(host).await.is_empty());
    })
    .await;
}

/// The timers of a retired handler wait for its return, or for an operator.
#[tokio::test]
async fn the_timers_of_a_retired_handler_wait_and_operators_can_cancel_them() {
    Host::test(Options::default(), async |host| {
        let mut ana = with_guest(host).await;
        let push = json!({ "then": "push" });
        set(&mut ana, json!([["a", HOUR_MS, push], ["b", HOUR_MS, push], ["c", HOUR_MS, push]])).await;
        host.admin.retire("timers").await.expect(200);
        let due_now = "update switchboard.timers set next_at = now(), due_at = now() where key = 'a'";
        host.database.run(due_now).await;
        let (status, answer) = host.switchboard(&["timers", "cancel", "timers", "b", "--json"]).await;
        assert_eq!((status, &answer["cancelled"]), (0, &json!(1)), "{answer}");
        let keys: Vec<_> = listed(host).await.iter().map(|timer| timer["key"].clone()).collect();
        assert_eq!(keys, ["a", "c"]);
        ana.expect_alive().await;
        assert!(ana.take_buffered("fired").is_none(), "no release is there to fire it");
        // The next poll of the node shows the timer of the handler that came back.
        host.admin.release(&Release::guest("timers").variant(2)).await;
        assert_eq!(ana.expect("fired").await["key"], "a");
        let (status, answer) = host.switchboard(&["timers", "cancel", "timers", "--all", "--json"]).await;
        assert_eq!((status, &answer["cancelled"]), (0, &json!(1)), "{answer}");
        assert_eq!(host.switchboard(&["timers", "cancel", "timers"]).await.0, 2);
        nothing_is_stored(host).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_timers_at_once_do_not_delay_other_calls() {
    Host::test(Options::default(), async |host| {
        const COUNT: u64 = 10_000;
        let mut ana = with_guest(host).await;
        // Due together, when the last one is set.
        fill(&mut ana, COUNT, now_ms() + HOUR_MS).await;
        host.database.run("update switchboard.timers set next_at = now(), due_at = now()").await;
        let began = Instant::now();
        let (mut slowest, mut asked) = (Duration::ZERO, 0);
        within(Duration::from_secs(120), "all timers to have fired", async || {
            // Another call of the same handler, while its timers fire.
            let call = Instant::now();
            assert_eq!(cancel(&mut ana, "no such timer").await, "Ok(false)");
            slowest = slowest.max(call.elapsed());
            asked += 1;
            (counted(host).await == COUNT).then_some(())
        })
        .await;
        let took = began.elapsed();
        println!("{COUNT} timers in {took:?}; the slowest of {asked} calls meanwhile took {slowest:?}");
        assert!(asked > 1 && slowest < Duration::from_secs(2), "{slowest:?} in {asked} calls");
        nothing_is_stored(host).await;
        let fired = host.admin.metric("switchboard_timers_fired_total").await;
        assert!(fired.is_some_and(|fired| fired >= COUNT as f64), "{fired:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_fires_the_timers_that_a_killed_node_had_claimed() {
    Host::test(Options::default(), async |host| {
        const COUNT: u64 = 4000;
        let mut ana = with_guest(host).await;
        fill(&mut ana, COUNT, now_ms() + HOUR_MS).await;
        let mut second = host.another_node().await;
        host.database.run("update switchboard.timers set next_at = now(), due_at = now()").await;
        until("some to have fired", async || (counted(host).await > COUNT / 10).then_some(())).await;
        second.kill().await;
        assert!(stored(host).await > 0, "the node was killed too late");
        within(TAKEN_OVER_WITHIN, "all timers to have fired", async || {
            (counted(host).await == COUNT).then_some(())
        })
        .await;
        within(TAKEN_OVER_WITHIN, "no timer to be left", async || (stored(host).await == 0).then_some(()))
            .await;
        assert!(failed(host).await.is_empty());
        drop(ana);
    })
    .await;
}

#[tokio::test]
async fn a_timer_survives_the_end_of_every_node() {
    Host::test(Options::default(), async |host| {
        let mut ana = with_guest(host).await;
        set(&mut ana, json!([["a", HOUR_MS, { "then": "count" }]])).await;
        drop(ana);
        host.kill().await;
        host.database.run("update switchboard.timers set next_at = now(), due_at = now()").await;
        host.start().await;
        until("it to have fired", async || (counted(host).await == 1).then_some(())).await;
        nothing_is_stored(host).await;
    })
    .await;
}

/// Both nodes see that the timer is due, and one of them fires it.
#[tokio::test]
async fn one_of_two_nodes_fires_a_timer() {
    Host::test(Options::default(), async |host| {
        let mut ana = with_guest(host).await;
        let mut second = host.another_node().await;
        let keys: BTreeSet<String> = (0..20).map(|n| format!("key {n}")).collect();
        let timers: Vec<_> = keys.iter().map(|key| json!([key, 2000, { "then": "push" }])).collect();
        set(&mut ana, json!(timers)).await;
        let mut fired = BTreeSet::new();
        for _ in &keys {
            let push = ana.expect("fired").await;
            assert_eq!(push["attempt"], 1, "{push}");
            assert!(fired.insert(push["key"].as_str().expect("a key").to_owned()), "twice: {push}");
        }
        assert_eq!(fired, keys);
        nothing_is_stored(host).await;
        ana.expect_alive().await;
        assert!(ana.take_buffered("fired").is_none(), "one fired twice");
        second.kill().await;
    })
    .await;
}

/// A cron expression for one minute of the day in a zone without changes of the clock, five and a half hours
/// ahead of UTC.
#[tokio::test]
async fn a_schedule_with_a_time_zone_runs_on_one_node_at_its_time() {
    Host::test(Options::default(), async |host| {
        const MINUTE_MS: u64 = 60_000;
        // There is time to deploy before the minute begins.
        let due_ms = (now_ms() + 20_000).div_ceil(MINUTE_MS) * MINUTE_MS;
        let local_minutes = due_ms / MINUTE_MS + 5 * 60 + 30;
        let expression = format!("{} {} * * *", local_minutes % 60, local_minutes / 60 % 24);
        let mut second = host.another_node().await;
        let scheduled = Release::guest("timers").with_manifest(|manifest| {
            let mut schedule = toml::Table::new();
            schedule.insert("name".into(), "daily".into());
            schedule.insert("cron".into(), expression.clone().into());
            schedule.insert("time_zone".into(), "Asia/Kolkata".into());
            manifest["on"]["schedule"] = toml::Value::Array(vec![schedule.into()]);
        });
        host.admin.release(&scheduled).await;
        assert!(now_ms() < due_ms, "the deploy took too long for this test");
        let mut ana = host.client("ana").await;
        let ticked = within(Duration::from_secs(100), "the schedule to run", async || {
            ana.expect_alive().await;
            ana.take_buffered("ticked")
        })
        .await;
        assert!(now_ms() >= due_ms);
        assert_eq!(ticked["name"], "daily");
        assert_eq!(ticked["due_ms"], due_ms, "{expression}");
        let stored = "select cron from switchboard.schedules where handler = 'timers'";
        let rows = host.database.rows(stored).await;
        assert_eq!(rows[0].get::<_, String>(0), format!("{expression} (Asia/Kolkata)"));
        until("the run to be given back", async || {
            let running = "select 1 from switchboard.schedules
                           where handler = 'timers' and running_until is not null";
            host.database.rows(running).await.is_empty().then_some(())
        })
        .await;
        ana.expect_alive().await;
        assert!(ana.take_buffered("ticked").is_none(), "both nodes ran it");
        second.kill().await;
    })
    .await;
}

#[tokio::test]
async fn a_release_that_sets_timers_needs_the_grant_and_the_binding() {
    Host::test(Options::default(), async |host| {
        let guest = Release::guest("timers");
        let without_grant = guest.with_manifest(|manifest| {
            manifest["grants"].as_table_mut().expect("a table").remove("timers");
        });
        let refusal = host.admin.deploy(&without_grant).await.expect(422).to_string();
        assert!(refusal.contains("grants.timers"), "{refusal}");
        let without_binding = guest.with_manifest(|manifest| {
            manifest["on"].as_table_mut().expect("a table").remove("timer");
        });
        let refusal = host.admin.deploy(&without_binding).await.expect(422).to_string();
        assert!(refusal.contains("on.timer"), "{refusal}");
        let wrong_cron = guest.with_manifest(|manifest| {
            manifest["on"]["schedule"][0]["cron"] = "0 25 * * *".into();
        });
        let refusal = host.admin.deploy(&wrong_cron).await.expect(422).to_string();
        assert!(refusal.contains("hour `25`"), "{refusal}");
    })
    .await;
}
