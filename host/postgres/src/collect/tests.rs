//! Group commit against a real Postgres: which calls share a transaction, which call gets which rows, and
//! what a lost connection means.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::{CallOrder, Postgres, Session};
use super::*;
use crate::tests::world::{ROLE, World, with_world};
use switchboard_core::config::Config;

const INSERT: &str = "insert into sent (lane, body, transaction) \
     select c.lane, c.body, pg_current_xact_id()::text::bigint \
     from unnest($1::int[], $2::text[], $3::text[]) as c (n, lane, body) order by c.n";
/// Returns one row for each call: its number, its own text, and how many calls share the transaction.
const ANSWER: &str = "select c.n, c.body as yours, count(*) over ()::int as together \
     from unnest($1::int[], $2::text[], $3::text[]) as c (n, lane, body)";

async fn table(world: &World) {
    world
        .owner(
            "create table public.sent (id bigserial, lane text, body text unique check (body <> 'evil'), \
             transaction bigint); \
             grant all on public.sent to switchboard_test; grant usage on sequence public.sent_id_seq to switchboard_test",
        )
        .await;
}

fn call_of(lane: u32, body: &str) -> Collected {
    Collected {
        statements: vec![INSERT.to_owned(), ANSWER.to_owned()],
        row: vec![Value::Text(lane.to_string()), Value::Text(body.to_owned())],
        lane,
    }
}

async fn collect(mut session: Session, call: Collected) -> Result<Rows, Error> {
    session.collect(call).await
}

fn together(rows: &Rows) -> i64 {
    match rows.cells[..] {
        [Value::Text(_), Value::Integer(together)] => together,
        ref other => panic!("{other:?}"),
    }
}

/// Ungranted locks in this database. `pg_locks` shows those of all databases.
const WAITING: &str = "from pg_locks where not granted \
     and database = (select oid from pg_database where datname = current_database())";

async fn somebody_waits(world: &World) {
    while world.count(&format!("select count(*) {WAITING}")).await == 0 {
        tokio::task::yield_now().await;
    }
}

/// Starts all calls at once and returns their results in the same order.
async fn all(world: &World, calls: impl IntoIterator<Item = Collected>) -> Vec<Result<Rows, Error>> {
    let calls = calls.into_iter().map(|call| tokio::spawn(collect(world.session(), call)));
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn calls_that_arrive_during_a_batch_form_the_next_and_each_gets_its_own_rows() {
    with_world(4, async |world| {
        table(&world).await;
        let calls = (0..200).map(|n| call_of(7, &format!("message {n}")));
        for (n, answer) in all(&world, calls).await.into_iter().enumerate() {
            let rows = answer.unwrap();
            assert_eq!(rows.columns, ["yours", "together"]);
            assert_eq!(rows.cells[0], Value::Text(format!("message {n}")));
            assert_eq!(rows.affected, 1);
            assert!(together(&rows) as usize <= limits::COLLECT_BATCH_MAX);
        }
        assert_eq!(world.count("select count(*) from sent").await, 200);
        // The first call runs alone; then each batch is full.
        let batches = world.count("select count(distinct transaction) from sent").await;
        assert!((3..=10).contains(&batches), "{batches} batches");
        // The rows are stored in the order of the calls.
        let misplaced = "select count(*) from sent where body <> 'message ' || (id - 1)";
        assert_eq!(world.count(misplaced).await, 0);
    })
    .await;
}

#[tokio::test]
async fn calls_of_other_lanes_roles_and_releases_do_not_share() {
    with_world(8, async |world| {
        table(&world).await;
        let mut calls = Vec::new();
        for n in 0..40 {
            let generation = Digest::of(if n % 2 == 0 { b"old" } else { b"new" });
            let session =
                world.postgres.session(Some(ROLE), generation, Instant::now() + Duration::from_secs(10));
            calls.push(tokio::spawn(collect(session, call_of(n / 2 % 2, &format!("{} {n}", n % 4)))));
        }
        for call in calls {
            call.await.unwrap().unwrap();
        }
        let mixed = "select count(*) from (select from sent group by transaction \
                     having count(distinct split_part(body, ' ', 1)) > 1) as mixed";
        assert_eq!(world.count(mixed).await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_sql_error_is_returned_only_to_the_calls_that_caused_it() {
    with_world(4, async |world| {
        table(&world).await;
        let body = |n: usize| match n {
            13 | 14 | 63 => "evil".to_owned(),
            // Postgres has no encoding for this text.
            40 => "\0".to_owned(),
            _ => format!("good {n}"),
        };
        let answers = all(&world, (0..100).map(|n| call_of(1, &body(n)))).await;
        for (n, answer) in answers.into_iter().enumerate() {
            match (n, answer) {
                (13 | 14 | 63, Err(Error::Sql(error))) => {
                    assert_eq!(
                        (error.code.as_str(), error.constraint.as_deref()),
                        ("23514", Some("sent_body_check"))
                    );
                }
                (40, Err(Error::Sql(error))) => assert_eq!(error.code, "22021"),
                (_, Ok(rows)) => assert_eq!(rows.cells[0], Value::Text(format!("good {n}"))),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(world.count("select count(*) from sent").await, 96);
        // An error that every call of the batch causes is returned to every call, without splitting the
        // batch.
        let mut nonsense = call_of(2, "x");
        nonsense.statements[0] = "insert into nowhere select $1::int[], $2::text[], $3::text[]".to_owned();
        for answer in all(&world, vec![nonsense; 3]).await {
            assert!(matches!(answer, Err(Error::Sql(error)) if error.code == "42P01"));
        }
        assert_eq!(world.postgres.usage().1, 0);
    })
    .await;
}

#[tokio::test]
async fn a_row_without_a_valid_call_number_is_an_error() {
    with_world(2, async |world| {
        table(&world).await;
        for last in [
            "select n + 1, 'x' from unnest($1::int[]) as n",
            "select -1, 'x'",
            "select 'text'",
            "select null::int",
            "insert into sent (body) values (null)",
        ] {
            let mut odd = call_of(1, "x");
            odd.statements = vec!["select $1::int[], $2::text[], $3::text[]".to_owned(), last.to_owned()];
            assert!(matches!(world.session().collect(odd).await, Err(Error::Refused(_))), "{last}");
        }
        // The last statement may return no row for a call, or several.
        let mut none = call_of(1, "x");
        none.statements[1] = "select 0 where false".to_owned();
        assert_eq!(world.session().collect(none).await.unwrap().cells, []);
        let mut several = call_of(1, "y");
        several.statements[1] = "select 0, g from generate_series(1, 3) as g".to_owned();
        let rows = world.session().collect(several).await.unwrap();
        assert_eq!((rows.cells.len(), rows.affected), (3, 3));
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_its_batch() {
    with_world(4, async |world| {
        table(&world).await;
        let mut held = world.session();
        held.begin().await.unwrap();
        held.query("select switchboard.lock(array['held'])", &[]).await.unwrap();
        let locked = |body: &str| {
            let mut call = call_of(1, body);
            call.statements.insert(0, "select switchboard.lock(array['held'])".to_owned());
            call
        };
        let leaves = tokio::spawn(collect(world.session(), locked("leaves")));
        somebody_waits(&world).await;
        // A caller that leaves while its batch is in flight does not know whether the row is stored.
        let impatient = world.session_of(Duration::from_millis(50));
        let stays = tokio::spawn(collect(world.session(), locked("stays")));
        assert_eq!(collect(impatient, locked("never started")).await, Err(Error::Deadline));
        leaves.abort();
        assert!(leaves.await.unwrap_err().is_cancelled());
        held.rollback().await.unwrap();
        stays.await.unwrap().unwrap();
        assert_eq!(world.count("select count(*) from sent where body = 'leaves'").await, 1);
        assert_eq!(world.count("select count(*) from sent").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_is_busy() {
    with_world(4, async |world| {
        table(&world).await;
        let mut held = world.session();
        held.begin().await.unwrap();
        held.query("select switchboard.lock(array['held'])", &[]).await.unwrap();
        let mut call = call_of(1, "x");
        call.statements = vec![
            "select switchboard.lock(array['held'])".to_owned(),
            "select n, x from unnest($1::int[], $2::text[], $3::text[]) as c (n, x)".to_owned(),
        ];
        let call = || {
            let deadline = Instant::now() + Duration::from_secs(60);
            let session = world.postgres.session(Some(ROLE), Digest::of(b"release"), deadline);
            Box::pin(collect(session, call.clone()))
        };
        // The first call is in flight before the others arrive.
        let first = tokio::spawn(call());
        somebody_waits(&world).await;
        let mut waiting: Vec<_> = (0..limits::COLLECT_QUEUE_MAX).map(|_| call()).collect();
        assert!(waiting.iter_mut().all(|call| call.now_or_never().is_none()));
        assert_eq!(call().await, Err(Error::Busy));
        held.rollback().await.unwrap();
        first.await.unwrap().unwrap();
        for answer in join_all(waiting).await {
            answer.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn invalid_collections_are_refused() {
    with_world(2, async |world| {
        let refused = async |call: Collected| {
            let answer = world.session().collect(call).await;
            assert!(matches!(answer, Err(Error::Refused(_))), "{answer:?}");
        };
        refused(Collected { statements: vec![], row: vec![], lane: 0 }).await;
        refused(Collected { statements: vec!["commit".to_owned()], row: vec![], lane: 0 }).await;
        let statement = "select $1::int[]".to_owned();
        refused(Collected {
            statements: vec![statement.clone(); limits::COLLECT_STATEMENTS_MAX + 1],
            row: vec![],
            lane: 0,
        })
        .await;
        refused(Collected {
            statements: vec![statement],
            row: vec![Value::Null; limits::PARAMETERS_MAX + 1],
            lane: 0,
        })
        .await;
        // The statement uses more parameters than the row has.
        refused(Collected {
            statements: vec!["select $1::int[], $2::text[]".to_owned()],
            row: vec![],
            lane: 0,
        })
        .await;
        let mut session = world.session();
        session.begin().await.unwrap();
        assert!(matches!(session.collect(call_of(0, "x")).await, Err(Error::Refused(_))));
        session.finish().await;
    })
    .await;
}

/// A TCP proxy that cuts the connection at COMMIT: before it passes COMMIT on, or after.
async fn cutting_proxy(server: SocketAddr, passes_commit: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move {
                let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
                loop {
                    tokio::select! {
                        read = client.read(&mut up) => {
                            let read = read.unwrap_or(0);
                            let commit = up[..read].windows(7).position(|word| word == b"commit\0");
                            match commit {
                                Some(at) if !passes_commit => {
                                    // Pass everything except COMMIT. The server's answer reaches nobody.
                                    let _ = server.write_all(&up[..at - 5]).await;
                                    return;
                                }
                                _ => {}
                            }
                            if read == 0 || server.write_all(&up[..read]).await.is_err() {
                                return;
                            }
                            if commit.is_some() {
                                // Wait until the server answered COMMIT, and do not pass this answer on.
                                while let Ok(read) = server.read(&mut down).await {
                                    if read == 0 || down[..read].windows(7).any(|word| word == b"COMMIT\0") {
                                        return;
                                    }
                                }
                            }
                        }
                        read = server.read(&mut down) => {
                            let read = read.unwrap_or(0);
                            if read == 0 || client.write_all(&down[..read]).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_lost_answer_is_an_unknown_outcome_and_is_never_tried_again() {
    with_world(2, async |world| {
        table(&world).await;
        let url = world.config.database_url.clone().unwrap();
        let (head, tail) = url.split_once('@').unwrap();
        let (server, database) = tail.split_once('/').unwrap();
        for (passes_commit, stored) in [(true, 1), (false, 0)] {
            let proxy = cutting_proxy(server.parse().unwrap(), passes_commit).await;
            let config = Config {
                // The host's own pool commits nothing in this test.
                database_url: Some(format!("{head}@{proxy}/{database}")),
                ..world.config.clone()
            };
            let postgres = Postgres::connect(&config).await.unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            let session = postgres.session(Some(ROLE), Digest::of(b""), deadline);
            let body = format!("commit passed: {passes_commit}");
            assert_eq!(collect(session, call_of(1, &body)).await, Err(Error::UnknownOutcome));
            assert_eq!(
                world.count(&format!("select count(*) from sent where body = '{body}'")).await,
                stored
            );
            postgres.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_that_the_server_ends_before_commit_is_retryable() {
    with_world(4, async |world| {
        table(&world).await;
        let mut held = world.session();
        held.begin().await.unwrap();
        held.query("select switchboard.lock(array['held'])", &[]).await.unwrap();
        let mut locked = call_of(1, "ended");
        locked.statements.insert(0, "select switchboard.lock(array['held'])".to_owned());
        let call = tokio::spawn(collect(world.session(), locked));
        somebody_waits(&world).await;
        world.owner(&format!("select pg_terminate_backend(pid) {WAITING}")).await;
        assert!(matches!(call.await.unwrap(), Err(Error::Retryable(_))));
        held.finish().await;
        assert_eq!(world.count("select count(*) from sent").await, 0);
    })
    .await;
}

#[tokio::test]
async fn overlapping_calls_of_one_connection_commit_in_their_order_and_share_commits() {
    with_world(4, async |world| {
        table(&world).await;
        let mut order = CallOrder::default();
        let mut calls = Vec::new();
        for n in 0..300 {
            let (rank, ordered) = order.begin();
            let mut session = world.session().in_order(Some(rank));
            // Some calls use another lane, which could commit first.
            let call = call_of(7 + u32::from(n % 50 == 49), &format!("message {n}"));
            calls.push(tokio::spawn(async move { session.collect(call).await }));
            if n % 10 != 0 {
                continue;
            }
            // Like a connection: the next call begins once this one is queued.
            ordered.await.unwrap();
        }
        for call in calls {
            call.await.unwrap().unwrap();
        }
        let misplaced = "select count(*) from sent where body <> 'message ' || (id - 1)";
        assert_eq!(world.count(misplaced).await, 0);
        let commits = world.count("select count(distinct transaction) from sent").await;
        assert!(commits < 200, "{commits} commits for 300 calls");
    })
    .await;
}

#[tokio::test]
async fn a_write_waits_also_for_the_call_before_those_that_ended_early() {
    with_world(4, async |world| {
        table(&world).await;
        let mut order = CallOrder::default();
        let (first, _first_asks) = order.begin();
        let mut later = Vec::new();
        for n in 1..=4 {
            let (rank, asks) = order.begin();
            let mut session = world.session().in_order(Some(rank));
            let call = call_of(7, &format!("message {n}"));
            later.push(tokio::spawn(async move { session.collect(call).await }));
            asks.await.unwrap();
        }
        let last = later.pop().unwrap();
        for early in later {
            early.abort();
            assert!(early.await.unwrap_err().is_cancelled());
        }
        assert_eq!(world.count("select count(*) from sent").await, 0, "the first call has not ended");

        drop(first);
        last.await.unwrap().unwrap();
        assert_eq!(world.count("select count(*) from sent where body = 'message 4'").await, 1);
        assert_eq!(world.count("select count(*) from sent").await, 1);
    })
    .await;
}

/// The statements of a call lock `held` first, so a test can keep a batch in flight.
fn locked_call_of(body: &str) -> Collected {
    let mut call = call_of(7, body);
    call.statements.insert(0, "select switchboard.lock(array['held'])".to_owned());
    call
}

#[tokio::test]
async fn the_second_half_of_a_split_batch_waits_for_the_end_of_the_calls_before_it() {
    with_world(4, async |world| {
        table(&world).await;
        let mut held = world.session();
        held.begin().await.unwrap();
        held.query("select switchboard.lock(array['held'])", &[]).await.unwrap();
        let in_flight = tokio::spawn(collect(world.session(), locked_call_of("in flight")));
        somebody_waits(&world).await;

        // The next batch: five calls of one connection, one of them refused, and one of another connection.
        let mut order = CallOrder::default();
        let mut calls = Vec::new();
        for body in ["message 1", "message 2", "message 3", "evil", "message 5"] {
            let (rank, asks) = order.begin();
            let mut session = world.session().in_order(Some(rank));
            let call = locked_call_of(body);
            calls.push(tokio::spawn(async move { (session.collect(call).await, session) }));
            asks.await.unwrap();
        }
        let other = tokio::spawn(collect(world.session(), locked_call_of("of another connection")));
        tokio::task::yield_now().await;
        held.rollback().await.unwrap();
        in_flight.await.unwrap().unwrap();

        // The batch is split. The first half commits, and the other connection does not wait for it. The
        // first call writes again, as `send-message` does, and nothing of its connection comes between.
        let mut calls = calls.into_iter();
        let mut next = async || calls.next().expect("a call").await.unwrap();
        let (first, mut session) = next().await;
        first.unwrap();
        other.await.unwrap().unwrap();
        session.collect(locked_call_of("message 1 again")).await.unwrap();
        drop(session);
        for answer in ["message 2", "message 3", "evil", "message 5"] {
            let (result, _ended) = next().await;
            assert_eq!(result.is_err(), answer == "evil", "{answer}: {result:?}");
        }
        let bodies =
            "select string_agg(body, ', ' order by id) as bodies from sent where body like 'message%'";
        let wanted = "message 1, message 2, message 3, message 1 again, message 5";
        let is_wanted = format!("select count(*) from ({bodies}) as stored where bodies = '{wanted}'");
        assert_eq!(world.count(&is_wanted).await, 1, "{wanted}");
    })
    .await;
}
