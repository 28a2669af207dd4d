//! Handlers' sessions against a real Postgres.

mod away;
mod defaults;
mod owned;
mod read_only;
pub(crate) mod world;

use std::time::Duration;

use switchboard_contract::postgres::{Error, Value};
use switchboard_core::limits;

use super::*;
use world::{World, migrated, with_world};

const MOMENT: Duration = Duration::from_millis(300);

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn code(error: &Error) -> &str {
    match error {
        Error::Sql(error) => &error.code,
        other => panic!("not an SQL error: {other:?}"),
    }
}

async fn table(world: &World) {
    world.owner("create table public.t (id int primary key, note text); grant all on public.t to switchboard_test").await;
}

/// Tries until the condition holds. The timeout of the test is the bound.
async fn until(mut so: impl AsyncFnMut() -> bool) {
    while !so().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn every_value_survives_the_way_there_and_back() {
    with_world(2, async |world| {
        let mut session = world.session();
        let values = [
            ("boolean", Value::Boolean(true), None),
            ("int2", Value::Integer(-7), None),
            ("int4", Value::Integer(7), None),
            ("int8", Value::Integer(i64::MIN), None),
            ("float8", Value::Float(0.1), None),
            ("float8", Value::Float(1.5e300), None),
            ("float4", Value::Float(0.5), None),
            ("text", text("quote ' \" \\ {} ü ✓"), None),
            ("varchar(5)", text("12345"), None),
            ("bytea", Value::Bytes(vec![0, 1, 255, b'\\']), None),
            ("uuid", text("01890a5d-ac96-774b-bcce-b302099a8057"), None),
            ("json", text("{\"a\": [1, null]}"), None),
            ("jsonb", text("{\"a\":1}"), Some(text("{\"a\": 1}"))),
            ("timestamptz", text("2025-02-28T23:59:59.123+01:00"), Some(text("2025-02-28T22:59:59.123Z"))),
            ("text[]", Value::Texts(vec!["a,\"b\\".into(), String::new(), "NULL".into()]), None),
            ("text[]", Value::Texts(vec![]), None),
            ("uuid[]", Value::Texts(vec!["01890a5d-ac96-774b-bcce-b302099a8057".into()]), None),
            ("int8[]", Value::Integers(vec![1, -2, i64::MAX]), None),
            ("int4[]", Value::Integers(vec![]), None),
            ("text", Value::Null, None),
            ("int4", Value::Null, None),
        ];
        for (ty, value, comes_back) in values {
            let sql = format!("select $1::{ty} as v");
            let rows = session
                .query(&sql, std::slice::from_ref(&value))
                .await
                .unwrap_or_else(|e| panic!("{ty}: {e:?}"));
            assert_eq!(rows.columns, ["v"]);
            assert_eq!(rows.cells, [comes_back.unwrap_or(value)], "{ty}");
            assert_eq!(rows.affected, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_contract_cannot_carry_is_refused_with_its_column() {
    with_world(2, async |world| {
        let mut session = world.session();
        for sql in ["select now()::timestamp as odd", "select 1.5::numeric as odd", "select row(1) as odd"] {
            match session.query(sql, &[]).await {
                Err(Error::Refused(reason)) => assert!(reason.contains("`odd`"), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(session.query("select array['a', null]", &[]).await, Err(Error::Refused(_))));
        assert!(matches!(session.query("select $1::int", &[]).await, Err(Error::Refused(_))));
        assert!(matches!(session.query("select 1", &[Value::Null]).await, Err(Error::Refused(_))));
        let nul = session.query("select $1::text", &[text("a\0b")]).await.unwrap_err();
        assert_eq!(code(&nul), "22021");
        assert_eq!(code(&session.query("select 1; select 2", &[]).await.unwrap_err()), "42601");
        // A function without a result, and a value past each bound.
        assert_eq!(
            session.query("select switchboard.lock(array['a'])", &[]).await.unwrap().cells,
            [Value::Null]
        );
        let many = vec![Value::Null; limits::PARAMETERS_MAX + 1];
        assert!(matches!(session.query("select 1", &many).await, Err(Error::Refused(_))));
        let large = [text(&"x".repeat(limits::PARAMETERS_BYTES_MAX))];
        assert!(matches!(session.query("select length($1)", &large).await, Err(Error::Refused(_))));
    })
    .await;
}

#[tokio::test]
async fn a_handler_can_neither_leave_its_role_nor_leave_anything_behind() {
    with_world(2, async |world| {
        let mut session = world.session();
        for forbidden in [
            "select set_config('search_path', 'evil', false)",
            "select pg_advisory_lock(1)",
            "select pg_try_advisory_xact_lock(1, 2)",
            "select pg_notify('a', 'b')",
            "select pg_terminate_backend(1)",
            "select lo_create(0)",
            "select setseed(0.5)",
            "select 1 into temp leftover",
            "select 1 into leftover",
            "insert into switchboard.outbox (shard, position, id, event_type, key, payload) \
             values (0, 1, gen_random_uuid(), 'x', 'x', '{}')",
            "select setval('switchboard.outbox_position_0', 1)",
            "select switchboard.ensure_role('evil')",
            "select * from switchboard.cursors",
            "select * from switchboard.releases",
            "select pg_read_file('/etc/passwd')",
        ] {
            let error = session.query(forbidden, &[]).await.unwrap_err();
            assert_eq!(code(&error), "42501", "{forbidden}: {error:?}");
        }
        for refused in
            ["set role postgres", "reset role", "begin", "do $$ begin end $$", "copy t to stdout", ""]
        {
            assert!(matches!(session.query(refused, &[]).await, Err(Error::Refused(_))), "{refused}");
        }
        let rows = session.query("select current_user::text, session_user::text", &[]).await.unwrap();
        assert_eq!(rows.cells, [text("switchboard_test"), text("switchboard_test")]);
        let mut nobody = world.postgres.session(None, Digest::of(b""), Instant::now() + MOMENT);
        assert!(matches!(nobody.query("select 1", &[]).await, Err(Error::Refused(_))));
        let mut unknown =
            world.postgres.session(Some("nobody"), Digest::of(b""), Instant::now() + MOMENT * 10);
        // No statement was sent, and an operator can correct the cause.
        assert!(matches!(unknown.query("select 1", &[]).await, Err(Error::Retryable(_))));
    })
    .await;
}

#[tokio::test]
async fn a_transaction_is_whole_or_nothing() {
    with_world(1, async |world| {
        table(&world).await;
        let mut session = world.session();
        session.begin().await.unwrap();
        assert!(matches!(session.begin().await, Err(Error::Refused(_))));
        assert_eq!(session.transaction_execute("insert into t values (1, 'a')", &[]).await.unwrap(), 1);
        // With one connection in all, a plain query would wait for itself if it took a second connection.
        assert_eq!(session.query("select note from t", &[]).await.unwrap().cells, [text("a")]);
        session.commit().await.unwrap();
        assert!(!session.in_transaction());
        assert!(matches!(session.transaction_query("select 1", &[]).await, Err(Error::Refused(_))));

        session.begin().await.unwrap();
        session.execute("insert into t values (2, 'b')", &[]).await.unwrap();
        session.rollback().await.unwrap();
        assert_eq!(world.count("select count(*) from t").await, 1);

        // After a failed statement nothing is committed, and COMMIT returns an error.
        session.begin().await.unwrap();
        session.execute("insert into t values (3, 'c')", &[]).await.unwrap();
        let twice = session.execute("insert into t values (1, 'again')", &[]).await.unwrap_err();
        assert!(
            matches!(&twice, Error::Sql(e) if e.code == "23505" && e.constraint.as_deref() == Some("t_pkey"))
        );
        assert_eq!(code(&session.execute("insert into t values (4, 'd')", &[]).await.unwrap_err()), "25P02");
        assert_eq!(code(&session.commit().await.unwrap_err()), "25P02");
        assert_eq!(world.count("select count(*) from t").await, 1);

        // A transaction that is left open, at the end of the call or when its future is dropped.
        session.begin().await.unwrap();
        session.execute("insert into t values (5, 'e')", &[]).await.unwrap();
        session.finish().await;
        let mut other = world.session();
        other.begin().await.unwrap();
        other.execute("insert into t values (6, 'f')", &[]).await.unwrap();
        drop(other);
        assert_eq!(session.query("select id from t", &[]).await.unwrap().cells, [Value::Integer(1)]);
        assert_eq!(
            world
                .count(
                    "select count(*) from pg_stat_activity where datname = current_database() \
                                and state like 'idle in transaction%'"
                )
                .await,
            0
        );
    })
    .await;
}

#[tokio::test]
async fn a_statement_past_its_deadline_is_cancelled_and_costs_only_its_call() {
    with_world(2, async |world| {
        let begun = Instant::now();
        let mut slow = world.session_of(MOMENT);
        assert_eq!(slow.query("select pg_sleep(60)", &[]).await, Err(Error::Deadline));
        assert!(begun.elapsed() < MOMENT * 3);
        // Also a call that is dropped in the middle.
        let mut dropped = world.session();
        let _ = tokio::time::timeout(MOMENT, dropped.query("select pg_sleep(60)", &[])).await;
        drop(dropped);
        until(async || {
            world
                .count(
                    "select count(*) from pg_stat_activity where query like '%pg_sleep%' \
                         and state = 'active' and pid <> pg_backend_pid()",
                )
                .await
                == 0
        })
        .await;
        assert!(world.session().query("select 1", &[]).await.is_ok());
        // Inside a transaction, its earlier work is lost.
        table(&world).await;
        let mut session = world.session_of(MOMENT);
        session.begin().await.unwrap();
        session.execute("insert into t values (1, 'a')", &[]).await.unwrap();
        assert_eq!(session.query("select pg_sleep(60)", &[]).await, Err(Error::Deadline));
        assert!(matches!(session.commit().await, Err(Error::Retryable(_))));
        assert_eq!(world.count("select count(*) from t").await, 0);
        until(async || world.postgres.usage().1 == 0).await;
    })
    .await;
}

#[tokio::test]
async fn answers_are_bounded_while_they_are_read() {
    with_world(2, async |world| {
        let mut session = world.session();
        let too_large = Err(Error::TooLarge(limits::ANSWER_BYTES_MAX as u64));
        assert_eq!(
            session.query("select repeat('x', 1000) from generate_series(1, 1000000)", &[]).await,
            too_large
        );
        assert_eq!(session.query("select from generate_series(1, 1000000)", &[]).await, too_large);
        // One cell that is too large is refused by its header, before it is held in memory.
        assert_eq!(session.query("select repeat('x', 200000000)", &[]).await, too_large);
        let fits = session.query("select repeat('x', 4000000) as x", &[]).await.unwrap();
        assert!(matches!(&fits.cells[..], [Value::Text(text)] if text.len() == 4_000_000));
    })
    .await;
}

#[tokio::test]
async fn one_budget_serves_all_roles_and_nobody_waits_past_the_deadline() {
    with_world(2, async |world| {
        world.owner("select switchboard.ensure_role('other')").await;
        migrated(&world.config).await.unwrap();
        let other = |deadline_in| {
            world.postgres.session(Some("other"), Digest::of(b"o"), Instant::now() + deadline_in)
        };
        // A role has its fair share, so a second call of it waits, and a call of another role does not.
        let mut first = world.session();
        first.begin().await.unwrap();
        assert_eq!(world.session_of(MOMENT).query("select 1", &[]).await.unwrap_err(), Error::Busy);
        other(MOMENT * 10).query("select 1", &[]).await.unwrap();
        assert_eq!(world.postgres.usage(), (2, 0));
        // A third role closes the idle connection of the second.
        world.owner("select switchboard.ensure_role('third')").await;
        migrated(&world.config).await.unwrap();
        let mut third = world.postgres.session(Some("third"), Digest::of(b"t"), Instant::now() + MOMENT * 10);
        third.begin().await.unwrap();
        assert_eq!(world.postgres.usage().0, 2);
        // All connections are in use. A waiting call gets the next one that becomes free, opened anew for its
        // role.
        let waiting = tokio::spawn({
            let mut session = other(MOMENT * 20);
            async move { session.query("select current_user::text", &[]).await }
        });
        until(async || world.postgres.usage().1 == 1).await;
        first.finish().await;
        assert_eq!(waiting.await.unwrap().unwrap().cells, [text("switchboard_other")]);
        third.finish().await;
    })
    .await;
}

#[tokio::test]
async fn two_roles_whose_statements_hang_leave_connections_to_a_third() {
    with_world(8, async |world| {
        for role in ["hangs_a", "hangs_b"] {
            world.owner(&format!("select switchboard.ensure_role('{role}')")).await;
        }
        migrated(&world.config).await.unwrap();
        let session = |role: &str, deadline_in| {
            world.postgres.session(Some(role), Digest::of(role.as_bytes()), Instant::now() + deadline_in)
        };
        // More calls than connections. Each call that gets a connection keeps it.
        let mut held = Vec::new();
        for role in ["hangs_a", "hangs_b"].repeat(8) {
            let mut one = session(role, MOMENT);
            if one.begin().await.is_ok() {
                held.push(one);
            }
        }
        assert!((4..8).contains(&held.len()), "{} held", held.len());
        // More calls of these roles wait than there are connections.
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let mut one = session("hangs_a", MOMENT * 20);
                tokio::spawn(async move { one.begin().await.map(|()| one) })
            })
            .collect();
        until(async || world.postgres.usage().1 == waiting.len()).await;
        // A call of a third role does not wait.
        for _ in 0..20 {
            world.session_of(MOMENT).query("select 1", &[]).await.unwrap();
        }
        assert_eq!(world.postgres.usage().1, waiting.len());
        // Connections that come back go to the waiting calls, but some always stay free for others.
        for mut one in held {
            one.finish().await;
            drop(one);
            world.session_of(MOMENT).query("select 1", &[]).await.unwrap();
        }
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    })
    .await;
}

#[tokio::test]
async fn the_server_ending_a_session_is_retryable_before_commit() {
    with_world(4, async |world| {
        table(&world).await;
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'switchboard_test' \
                    and datname = current_database()";
        let mut session = world.session();
        session.begin().await.unwrap();
        session.execute("insert into t values (1, 'a')", &[]).await.unwrap();
        world.owner(kill).await;
        assert!(matches!(session.execute("insert into t values (2, 'b')", &[]).await, Err(Error::Retryable(_))));
        assert!(matches!(session.commit().await, Err(Error::Retryable(_))));
        // Idle connections that the server ended are not used again.
        session.query("select 1", &[]).await.unwrap();
        world.owner(kill).await;
        until(async || world.session().query("select 1", &[]).await.is_ok()).await;
        assert_eq!(world.count("select count(*) from t").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_changed_table_is_noticed_by_prepared_statements() {
    with_world(1, async |world| {
        table(&world).await;
        let mut session = world.session();
        session.execute("insert into t values (1, 'a')", &[]).await.unwrap();
        assert_eq!(session.query("select * from t", &[]).await.unwrap().columns.len(), 2);
        world.owner("alter table t add column more int").await;
        assert!(matches!(session.query("select * from t", &[]).await, Err(Error::Retryable(_))));
        assert_eq!(session.query("select * from t", &[]).await.unwrap().columns.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn where_nothing_could_be_revoked_a_connection_is_reset_after_each_call() {
    with_world(1, async |world| {
        world.owner("grant execute on function pg_catalog.set_config(text, text, boolean), pg_catalog.pg_advisory_lock(bigint), pg_catalog.pg_advisory_unlock_all() to public").await;
        let mut first = world.session();
        first.query("select set_config('search_path', 'evil', false), pg_advisory_lock(7)", &[]).await.unwrap();
        let pid = first.query("select pg_backend_pid()", &[]).await.unwrap();
        let mut second = world.session();
        let left = "select pg_backend_pid(), current_setting('search_path'), \
                    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())";
        let rows = second.query(left, &[]).await.unwrap();
        assert_eq!(rows.cells[0], pid.cells[0], "the same connection");
        assert_eq!(rows.cells[1..], [text("public"), Value::Integer(0)]);
    })
    .await;
}

#[tokio::test]
async fn an_owner_who_is_no_superuser_can_migrate() {
    with_world(1, async |world| {
        let (owner, database) = (
            format!("owner_{}", uuid::Uuid::now_v7().simple()),
            format!("db_{}", uuid::Uuid::now_v7().simple()),
        );
        world.owner(&format!("create role {owner} login createrole createdb password 'owner'")).await;
        world.owner(&format!("create database {database} owner {owner}")).await;
        let url = world.config.database_url.clone().unwrap();
        let (_, server) = url.split_once('@').unwrap();
        let (server, _) = server.split_once('/').unwrap();
        let config = Config {
            database_url: Some(format!("postgres://{owner}:owner@{server}/{database}")),
            ..world.config.clone()
        };
        let migrated = migrated(&config).await;
        if migrated.is_ok() {
            let postgres = Postgres::connect(&config).await.unwrap();
            sqlx::query("select switchboard.ensure_role('test')").execute(postgres.host()).await.unwrap();
            let mut session = postgres.session(Some("test"), Digest::of(b""), Instant::now() + MOMENT * 20);
            let rows = session.query("select current_user::text", &[]).await;
            postgres.close().await;
            assert_eq!(rows.unwrap().cells, [text("switchboard_test")]);
        }
        world.owner(&format!("drop database {database} with (force)")).await;
        world.owner(&format!("drop role {owner}")).await;
        migrated.unwrap();
    })
    .await;
}

/// Text with every character that has a meaning in an array literal.
fn awkward() -> impl proptest::strategy::Strategy<Value = String> {
    proptest::string::string_regex("([a-z\u{e9}\u{1f600}]|[\"\\\\{},' \n]|NULL|null){0,12}").unwrap()
}

#[tokio::test]
async fn every_column_of_a_collection_arrives_as_it_left() {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;

    with_world(2, async |world| {
        let mut runner = TestRunner::deterministic();
        let column = vec(
            (
                option::of(awkward()),
                option::of(vec(proptest::num::u8::ANY, 0..8)),
                option::of(vec(awkward(), 0..4)),
            ),
            1..40,
        );
        let sql = "select c.n, c.t, c.b, c.a::text[], c.i \
             from unnest($1::int[], $2::text[], $3::bytea[], $4::text[], $5::int8[]) as c (n, t, b, a, i)";
        for _ in 0..100 {
            let rows = column.new_tree(&mut runner).unwrap().current();
            let calls = rows.iter().enumerate().map(|(n, (text, bytes, texts))| {
                let row = vec![
                    text.clone().map_or(Value::Null, Value::Text),
                    bytes.clone().map_or(Value::Null, Value::Bytes),
                    texts.clone().map_or(Value::Null, Value::Texts),
                    Value::Integer(n as i64 - 7),
                ];
                let collected = switchboard_contract::postgres::Collected {
                    statements: vec![sql.to_owned()],
                    row: row.clone(),
                    lane: 0,
                };
                let mut session = world.session();
                async move { (session.collect(collected).await, row) }
            });
            for (answer, row) in futures_util::future::join_all(calls).await {
                assert_eq!(answer.unwrap().cells, row);
            }
        }
    })
    .await;
}
