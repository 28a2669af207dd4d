//! Tests with a real Postgres and Redis: two nodes of one fleet.

use sqlx::PgPool;

use super::*;
use switchboard_contract::types::Principal;
use switchboard_core::config::Config;
use switchboard_core::ids::{ConnectionId, NodeId, UserId};
use switchboard_core::shutdown::Shutdown;
use switchboard_fanout::{ConnectionInfo, Taken, Wakes};
use switchboard_postgres::poll::Poll;
use switchboard_protocol::session::Credentials;
use switchboard_redis::{Keyspace, Redis};
use switchboard_telemetry::Tracer;
use switchboard_testing::with_database;

async fn node(pool: &PgPool) -> (Revocations, Hub) {
    let redis_url = std::env::var("SWITCHBOARD_TEST_REDIS_URL")
        .expect("SWITCHBOARD_TEST_REDIS_URL names a Redis that these tests may write to");
    let config = Config { redis_url: Some(redis_url), ..Config::default() };
    let redis = Redis::connect(&config, Keyspace::bare()).unwrap();
    let node = NodeId::random();
    let hub = Hub::start(&redis, &node.to_string(), node, Wakes::default(), Tracer::default());
    (
        Revocations::start(
            revocations::Revocations::new(pool.clone()),
            Epochs::new(pool.clone()),
            hub.clone(),
        )
        .await
        .unwrap(),
        hub,
    )
}

/// The results of a running poll.
fn polls(pool: &PgPool, shutdown: &Shutdown) -> watch::Receiver<Polled> {
    let poll = Poll::new(pool.clone(), NodeId::random(), "127.0.0.1:9090".parse().unwrap());
    let (polls, guard) = (poll.results(), shutdown.guard());
    tokio::spawn(async move { poll.run(|| 0, guard).await });
    polls
}

fn ana(issued_ms: u64) -> Arc<Credentials> {
    Arc::new(Credentials {
        user: UserId::parse("ana").unwrap(),
        principal: Principal {
            user_id: "ana".to_owned(),
            name: None,
            roles: Vec::new(),
            session_id: format!("j{issued_ms}"),
        },
        groups: Box::default(),
        expires_ms: u64::MAX,
        issued_ms,
        renewed_as: None,
    })
}

fn of_user(before_ms: u64, forget_ms: u64) -> Revocation {
    Revocation { revoked: Revoked::User { user_id: "ana".into(), before_ms }, forget_ms }
}

const LATER: u64 = 4_000_000_000_000;

#[tokio::test]
async fn a_revocation_on_one_node_closes_the_connections_on_the_others() {
    with_database(|pool| async move {
        let ((here, _hub), (there, hub)) = (node(&pool).await, node(&pool).await);
        let shutdown = Shutdown::new();
        tokio::spawn(there.clone().follow(polls(&pool, &shutdown), shutdown.guard()));
        let connect = async |token: Arc<Credentials>| {
            let info = ConnectionInfo {
                connection: ConnectionId::random(),
                user: token.user.clone(),
                session: "s".into(),
            };
            let outlet = hub.open_connection(info).await;
            outlet.set_token(token);
            outlet
        };
        let (old, young) = (connect(ana(1_000)).await, connect(ana(9_000)).await);
        here.add(&of_user(5_000, LATER), "ops").await.unwrap();
        assert!(here.known().has(&ana(1_000)));
        // A quarter of a second on an idle machine; far less than this bound on a busy one.
        let closed = tokio::time::timeout(std::time::Duration::from_secs(20), old.ready()).await;
        assert!(closed.is_ok(), "the connection was not closed");
        assert_eq!(old.take(&mut Vec::new(), 1), Taken::Close(Close::TOKEN));
        assert_eq!(young.take(&mut Vec::new(), 1), Taken::All);
        assert!(there.known().has(&ana(1_000)) && !there.known().has(&ana(9_000)));
    })
    .await;
}

#[tokio::test]
async fn the_later_time_counts_and_survives_a_restart_until_its_tokens_expire() {
    with_database(|pool| async move {
        let (first, _hub) = node(&pool).await;
        first.add(&of_user(5_000, LATER), "ops").await.unwrap();
        // Repeated with an earlier time: no revoked token becomes valid again.
        first.add(&of_user(2_000, LATER - 1), "ops").await.unwrap();
        first
            .add(
                &Revocation { revoked: Revoked::Token("j9000".into()), forget_ms: timestamp::now_ms() - 1 },
                "ops",
            )
            .await
            .unwrap();
        assert!(first.known().has(&ana(4_000)) && first.known().has(&ana(9_000)));

        let (restarted, _hub) = node(&pool).await;
        assert!(restarted.known().has(&ana(4_000)));
        // Its token has expired, so it was deleted.
        assert!(!restarted.known().has(&ana(9_000)));
        assert_eq!(restarted.known().len(), 1);
        let rows: i64 = sqlx::query_scalar("select count(*) from switchboard.revocations")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(rows, 1);
    })
    .await;
}

#[tokio::test]
async fn revocations_that_are_added_at_once_are_all_applied_in_the_end() {
    with_database(|pool| async move {
        let ((one, _a), (two, _b)) = (node(&pool).await, node(&pool).await);
        let shutdown = Shutdown::new();
        tokio::spawn(two.clone().follow(polls(&pool, &shutdown), shutdown.guard()));
        let adds = (0..40).map(|number| {
            let by = if number % 2 == 0 { one.clone() } else { two.clone() };
            async move {
                let revoked = Revoked::Token(format!("t{number}"));
                by.add(&Revocation { revoked, forget_ms: LATER }, "ops").await.unwrap();
            }
        });
        futures_util::future::join_all(adds).await;
        one.read_new().await.unwrap();
        two.read_new().await.unwrap();
        assert_eq!((one.known().len(), two.known().len()), (40, 40));
    })
    .await;
}
