//! Redis and Postgres lost under load: killed, frozen, restarted. No acknowledged message is lost; the host
//! reports its state and recovers by itself.

use std::time::Duration;

use hyper::Method;
use switchboard_tests::checker::Books;
use switchboard_tests::crowd::{Chatter, Plan, Record};
use switchboard_tests::host::{Host, Options};
use switchboard_tests::ledger::{self, Audit};
use switchboard_tests::patience::until;
use switchboard_tests::proxy::Proxy;
use switchboard_tests::services::{self, Postgres, Redis};
use tokio::time::Instant;

/// Required by the product: delivery resumes by itself within this time after Redis is back.
const RESUMES_WITHIN: Duration = Duration::from_secs(2);

/// Two rooms with three members each, who all write.
struct Load {
    rooms: Vec<String>,
    crowd: Vec<Chatter>,
}

impl Load {
    async fn begin(host: &Host) -> Self {
        Self::of(host, |user, room| Plan::talker(user, room, Duration::from_millis(10))).await
    }

    async fn of(host: &Host, plan: impl Fn(&str, &str) -> Plan) -> Self {
        let users = ["ana", "bo", "cy"];
        let (mut rooms, mut crowd) = (Vec::new(), Vec::new());
        for n in 0..2 {
            let room = host.group(&format!("room {n}"), &users).await;
            for user in users {
                let plan = plan(user, &room);
                crowd.push(Chatter::start(host.address, plan).await);
            }
            rooms.push(room);
        }
        let load = Self { rooms, crowd };
        load.goes_on("at the beginning").await;
        load
    }

    fn acknowledged(&self) -> usize {
        self.crowd.iter().map(Chatter::acknowledged).sum()
    }

    fn pushed(&self) -> usize {
        self.records().iter().map(|record| record.pushed.len()).sum()
    }

    fn refused(&self) -> usize {
        self.records().iter().map(|record| record.refusals.len()).sum()
    }

    fn records(&self) -> Vec<Record> {
        self.crowd.iter().map(Chatter::record).collect()
    }

    /// Waits until messages are acknowledged again.
    async fn goes_on(&self, when: &str) {
        let before = self.acknowledged();
        until(format!("messages to be acknowledged {when}"), async || {
            (self.acknowledged() > before + 60).then_some(())
        })
        .await;
    }

    /// Waits until all work is done, and compares the results.
    async fn end(mut self, host: &Host) -> Audit {
        for chatter in &mut self.crowd {
            chatter.stop_sending().await;
        }
        let audit = ledger::audit(host, &self.rooms, &self.crowd).await;
        println!(
            "{} acknowledged, {} deliveries of {} owed, {} duplicates, {} refusals, {} disconnects",
            audit.acknowledged,
            audit.delivered,
            audit.owed,
            audit.duplicates.len(),
            audit.refusals.len(),
            audit.disconnects.len()
        );
        audit.expect_kept();
        let checked = Books::of(&self.rooms, &self.crowd).check(host.address, |_| "ana".to_owned()).await;
        checked.expect("a correct history");
        audit
    }
}

/// The answers of `/readyz` and `/healthz` in one text.
async fn health(host: &Host) -> String {
    let mut text = String::new();
    for path in ["/readyz", "/healthz"] {
        if let Ok(answer) = host.admin.rest().try_send(Method::GET, path, &[], "").await {
            text += &answer.to_string();
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_redis_is_killed_under_load() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let load = Load::begin(host).await;
        let healthy = health(host).await;
        host.redis.kill();
        // Sending needs only Postgres, so it continues.
        load.goes_on("without Redis").await;
        until("health to tell of the loss", async || (health(host).await != healthy).then_some(())).await;

        host.redis.start_again().await;
        let back = Instant::now();
        let pushed = load.pushed();
        until("delivery to resume", async || (load.pushed() > pushed + 20).then_some(())).await;
        let resumed = back.elapsed();
        println!("delivery resumed {resumed:?} after Redis was back");
        assert!(resumed <= RESUMES_WITHIN, "delivery took {resumed:?} to resume");
        until("health to be well again", async || host.admin.ready().await.then_some(())).await;
        load.goes_on("with Redis back").await;
        let audit = load.end(host).await;
        assert!(audit.disconnects.is_empty(), "sockets were closed: {:?}", audit.disconnects);
        assert!(audit.refusals.is_empty(), "sends were refused: {:?}", audit.refusals);
    })
    .await;
}

/// Each connection has 64 frames in flight all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_messages_keep_their_order_when_redis_is_killed() {
    Host::test(Options::default().without_rate_limits(), async |host| {
        let load = Load::of(host, |user, room| Plan::pipelining(user, room, 64)).await;
        host.redis.kill();
        load.goes_on("without Redis").await;
        host.redis.start_again().await;
        until("health to be well again", async || host.admin.ready().await.then_some(())).await;
        load.goes_on("with Redis back").await;
        let audit = load.end(host).await;
        assert!(audit.disconnects.is_empty(), "sockets were closed: {:?}", audit.disconnects);
        assert!(audit.refusals.is_empty(), "sends were refused: {:?}", audit.refusals);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_postgres_is_killed_under_load() {
    let postgres = Postgres::start(&["fsync = off"]).await;
    let database = postgres.database().await;
    let options = Options::default().without_rate_limits();
    Host::test_over(database, Redis::start().await, options, async |host| {
        let load = Load::begin(host).await;
        postgres.kill();
        let refused = load.refused();
        until("sends to be refused", async || (load.refused() > refused + 6).then_some(())).await;
        until("the host to say that it is not ready", async || (!host.admin.ready().await).then_some(()))
            .await;

        postgres.start_again().await;
        until("the host to be ready again", async || host.admin.ready().await.then_some(())).await;
        load.goes_on("with Postgres back").await;
        for record in load.records() {
            for (_, frame) in &record.refusals {
                assert_eq!(frame["payload"]["code"], "unavailable", "{frame}");
                assert_eq!(frame["payload"]["retryable"], true, "{frame}");
            }
        }
        let audit = load.end(host).await;
        assert!(audit.disconnects.is_empty(), "sockets were closed: {:?}", audit.disconnects);
    })
    .await;
}

/// A read-only Postgres, as after a full disk at a provider, or after a failover that leaves the old server
/// at the same address: it answers, and does not write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_postgres_becomes_read_only_under_load() {
    let database = services::database().await;
    let (name, owner) = (database.name.clone(), database.connect().await);
    let options = Options::default().without_rate_limits();
    Host::test_over(database, Redis::start().await, options, async |host| {
        let load = Load::begin(host).await;
        owner.run(&format!("alter database {name} set default_transaction_read_only = on")).await;
        owner
            .run(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where datname = current_database() and pid <> pg_backend_pid()",
            )
            .await;
        let refused = load.refused();
        until("sends to be refused", async || (load.refused() > refused + 30).then_some(())).await;

        owner.run(&format!("alter database {name} reset default_transaction_read_only")).await;
        load.goes_on("with Postgres writable again").await;
        until("the host to be ready again", async || host.admin.ready().await.then_some(())).await;
        for record in load.records() {
            for (_, frame) in &record.refusals {
                assert_eq!(frame["payload"]["code"], "unavailable", "{frame}");
                assert_eq!(frame["payload"]["retryable"], true, "{frame}");
            }
        }
        let audit = load.end(host).await;
        assert!(audit.disconnects.is_empty(), "sockets were closed: {:?}", audit.disconnects);
        let parked = host.database.rows("select 1 from switchboard.parked").await;
        assert!(parked.is_empty(), "{} events were given up", parked.len());
    })
    .await;
}

/// Worse than dead: the connections stay open and nothing answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_redis_freezes_under_load() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    let options = Options::default().without_rate_limits().redis_at(proxy.address());
    Host::test_over(services::database().await, redis, options, async |host| {
        let load = Load::begin(host).await;
        proxy.freeze();
        load.goes_on("with Redis frozen").await;
        until("the host to notice", async || (!health(host).await.is_empty()).then_some(())).await;
        proxy.heal();
        load.goes_on("with Redis thawed").await;
        load.end(host).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_postgres_freezes_under_load() {
    let database = services::database().await;
    let proxy = Proxy::to(database.postgres.address()).await;
    let options = Options::default().without_rate_limits().database_at(proxy.address());
    Host::test_over(database, Redis::start().await, options, async |host| {
        let load = Load::begin(host).await;
        proxy.freeze();
        let refused = load.refused();
        // No call waits longer than its deadline.
        until("sends to be refused", async || (load.refused() > refused + 6).then_some(())).await;
        proxy.heal();
        load.goes_on("with Postgres thawed").await;
        let audit = load.end(host).await;
        assert!(audit.disconnects.is_empty(), "sockets were closed: {:?}", audit.disconnects);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_connections_are_cut_repeatedly() {
    let (database, redis) = (services::database().await, Redis::start().await);
    let to_postgres = Proxy::to(database.postgres.address()).await;
    let to_redis = Proxy::to(redis.address()).await;
    let options = Options::default()
        .without_rate_limits()
        .database_at(to_postgres.address())
        .redis_at(to_redis.address());
    Host::test_over(database, redis, options, async |host| {
        let load = Load::begin(host).await;
        for round in 0..10 {
            let proxy = if round % 2 == 0 { &to_postgres } else { &to_redis };
            proxy.cut();
            until("the host to notice, or to go on without", async || {
                (!host.admin.ready().await || round % 2 == 1).then_some(())
            })
            .await;
            proxy.heal();
            load.goes_on(&format!("after cut {round}")).await;
        }
        load.end(host).await;
    })
    .await;
}
