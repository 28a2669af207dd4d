//! A node that has nothing to do asks Postgres and Redis little, and still notices everything within the
//! bounds of `docs/decisions/idle-node.md`: also without wakes, without marks, and after the death of the
//! node that held the cursors.

use std::time::{Duration, Instant};

use serde_json::json;
use switchboard_tests::host::{Host, Options};
use switchboard_tests::patience::{until, within};

/// Longer than a poll, with time for a loaded machine; shorter than anything else that could deliver.
const POLLED: Duration = Duration::from_secs(5);

/// The commands that Redis has run, and the transactions of the database.
async fn work(host: &Host) -> (i64, i64) {
    let info = host.redis.say(&["INFO", "stats"]).await;
    let commands = info.lines().find_map(|line| line.trim().strip_prefix("total_commands_processed:"));
    let rows = host
        .database
        .rows("select xact_commit + xact_rollback from pg_stat_database where datname = current_database()")
        .await;
    (commands.expect("a counter").parse().expect("a number"), rows[0].get(0))
}

/// The number with which Redis answers a command.
async fn count(host: &Host, words: &[&str]) -> i64 {
    let client = redis::Client::open(host.redis.url_at(None)).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.expect("a number")
}

#[tokio::test]
async fn an_idle_node_makes_few_transactions_and_commands() {
    Host::test(Options::default(), async |host| {
        // The first sweeps and claims. Postgres counts a transaction up to ten seconds late.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let before = work(host).await;
        // A measurement itself costs a connection to each server.
        let between = work(host).await;
        let own = (between.0 - before.0, between.1 - before.1);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after = work(host).await;
        let (commands, transactions) = (after.0 - between.0 - own.0, after.1 - between.1 - own.1);
        // The targets are 10 and 3 a second, and `load` measures them. Here a sweep of all partitions may
        // fall into the ten seconds, and on a busy machine polls are repeated.
        assert!(commands <= 150 + 400, "{commands} commands in 10 s");
        assert!(transactions <= 100, "{transactions} transactions in 10 s");
    })
    .await;
}

/// Inserts the newest event of a user once more, as SQL outside of the host does it: nobody wakes a consumer.
async fn repeat_without_a_wake(host: &Host, user: &str) {
    let insert = "insert into switchboard.outbox (shard, position, id, event_type, key, payload) \
                  select shard, switchboard.next_position(shard), gen_random_uuid(), event_type, key, payload \
                  from switchboard.outbox where event_type = 'published' and key = ";
    host.database.run(&format!("{insert} 'user:{user}' order by position desc limit 1")).await;
}

#[tokio::test]
async fn an_event_without_a_wake_is_delivered_by_the_next_poll() {
    Host::test(Options::default(), async |host| {
        let mut bo = host.client("bo").await;
        host.publish(json!({"target": "user:bo", "type": "word", "payload": {"n": 1}})).await.expect(202);
        bo.expect("word").await;
        for _ in 0..3 {
            repeat_without_a_wake(host, "bo").await;
            tokio::time::timeout(POLLED, bo.expect("word")).await.expect("the poll shows the event");
        }
    })
    .await;
}

#[tokio::test]
async fn the_cursors_of_a_node_that_died_are_claimed_when_their_leases_end() {
    Host::test(Options::default(), async |host| {
        let mut other = host.another_node().await;
        let mut bo = other.client("bo").await;
        host.publish(json!({"target": "user:bo", "type": "word", "payload": {"n": 1}})).await.expect(202);
        bo.expect("word").await;
        let owners = "select count(*) from switchboard.cursors where lease_until > now() \
                      and owner not in (select id from switchboard.nodes where heartbeat_at > now() - interval '3 s')";
        // The first node started first, and holds the cursors.
        host.kill().await;
        repeat_without_a_wake(&other, "bo").await;
        within(Duration::from_secs(10), "the other node to deliver", async || {
            bo.expect_alive().await;
            bo.take_buffered("word")
        })
        .await;
        until("the other node to hold all cursors", async || {
            (other.database.rows(owners).await[0].get::<_, i64>(0) == 0).then_some(())
        })
        .await;
        other.kill().await;
        host.start().await;
    })
    .await;
}

/// The backend of Postgres that waits for a lock with a statement of this text.
async fn waiting_backend(host: &Host, statement: &str) -> Option<i32> {
    let waiting =
        "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let rows = host
        .database
        .rows(&format!("{waiting} and query like '{statement}' order by query_start desc"))
        .await;
    rows.first().map(|row| row.get(0))
}

#[tokio::test]
async fn a_poll_that_hangs_is_given_up_after_a_second_and_the_node_recovers() {
    Host::test(Options::default(), async |host| {
        let mut bo = host.client("bo").await;
        host.publish(json!({"target": "user:bo", "type": "word", "payload": {"n": 1}})).await.expect(202);
        bo.expect("word").await;
        let lock = host.database.connect().await;
        lock.run("begin; lock table switchboard.nodes in access exclusive mode").await;
        let mut polls = Vec::new();
        let mut second_began_at = None;
        while polls.len() < 4 {
            let next = until("the next poll to wait for the lock", async || {
                waiting_backend(host, "-- The poll of a node%").await.filter(|pid| !polls.contains(pid))
            })
            .await;
            polls.push(next);
            second_began_at = second_began_at.or((polls.len() == 2).then(Instant::now));
        }
        // A poll takes a second. With the maximum time of other queries, two polls would take ten.
        let two_polls = second_began_at.expect("a second poll").elapsed();
        assert!(two_polls < Duration::from_secs(8), "{two_polls:?} for two polls");
        // The leases of the cursors cannot be renewed. Readiness reports it after 10 s and the deadline.
        let reason = within(Duration::from_secs(60), "the consumers to be named", async || {
            let checks = host.admin.rest().get("/readyz").await.json()["checks"].clone();
            checks["consumers"].as_str().filter(|reason| *reason != "ok").map(str::to_owned)
        })
        .await;
        assert!(reason.contains("has not renewed its shards"), "{reason}");
        lock.run("rollback").await;
        until("the node to be ready again", async || host.admin.ready().await.then_some(())).await;
        repeat_without_a_wake(host, "bo").await;
        bo.expect("word").await;
    })
    .await;
}

#[tokio::test]
async fn a_claim_of_schedules_that_hangs_is_given_up_and_repeated() {
    Host::test(Options::default(), async |host| {
        let runs = async || {
            let page = host.admin.rest().get("/metrics").await;
            let page = String::from_utf8_lossy(&page.body).into_owned();
            let of_sweeps = |line: &&str| {
                line.starts_with("switchboard_call_seconds_count")
                    && line.contains("handler=\"presence-sweep\"")
            };
            page.lines()
                .filter(of_sweeps)
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>()
        };
        let failures = || {
            let is_failure = |line: &&str| {
                line.contains("cannot claim a fleet schedule; this node tries again")
                    && line.contains("presence-sweep")
            };
            host.log().lines().filter(is_failure).count()
        };
        let lock = host.database.connect().await;
        lock.run("begin; lock table switchboard.schedules in access exclusive mode").await;
        // The second one shows that the first did not stop the schedule.
        within(Duration::from_secs(40), "two claims to fail", async || (failures() >= 2).then_some(())).await;
        lock.run("rollback").await;
        let before = runs().await;
        // The heartbeats of presence run too, once in three seconds.
        within(Duration::from_secs(10), "sweeps to run again", async || {
            (runs().await > before + 5.0).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_user_of_a_dead_node_goes_offline_although_the_mark_of_the_partition_is_lost() {
    Host::test(Options::default().set("HANDLERS__PRESENCE_SWEEP__GRACE_MS", 300), async |host| {
        let mut other = host.another_node().await;
        let bo = other.client("bo").await;
        let status = async |host: &Host| -> String {
            let rows = host.database.rows("select status from app.presence where user_id = 'bo'").await;
            rows.first().map_or_else(String::new, |row| row.get(0))
        };
        until("bo to be online", async || (status(host).await == "online").then_some(())).await;
        // As if the node had died between the entry of the lease and the addition of the partition.
        let busy = host.redis_key("{p:busy}").await;
        until("a sweep to have read all partitions", async || {
            (count(host, &["SISMEMBER", &busy, "scanned"]).await == 1).then_some(())
        })
        .await;
        other.kill().await;
        for partition in 0..64 {
            count(host, &["SREM", &busy, &partition.to_string()]).await;
        }
        within(Duration::from_secs(20), "bo to be offline", async || {
            (status(host).await == "offline").then_some(())
        })
        .await;
        drop(bo);
    })
    .await;
}
