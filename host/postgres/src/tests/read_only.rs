//! Servers that answer but do not write, and roles that may not log in. A handler's call gets a retryable
//! error, and the connection is closed, because another connection may reach a server that writes. The host
//! recovers without an operator.

use super::*;

/// A role that no other test uses: roles belong to the whole server.
struct Role(String);

impl Role {
    async fn new(world: &World) -> Self {
        let name = format!("once_{}", uuid::Uuid::now_v7().simple());
        world.owner(&format!("select switchboard.ensure_role('{name}')")).await;
        migrated(&world.config).await.unwrap();
        Self(name)
    }

    fn session(&self, world: &World) -> Session {
        world.postgres.session(Some(&self.0), Digest::of(b""), Instant::now() + Duration::from_secs(10))
    }

    async fn alter(&self, world: &World, how: &str) {
        world.owner(&format!("alter role switchboard_{} {how}", self.0)).await;
    }

    async fn drop_role(self, world: &World) {
        world.owner(&format!("drop owned by switchboard_{0}; drop role switchboard_{0}", self.0)).await;
    }
}

/// Ends every session of the test's database except the one that runs this statement.
const END_OTHERS: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
                          where datname = current_database() and pid <> pg_backend_pid()";

/// The error that a handler gets: retryable, with this SQLSTATE.
fn assert_retryable(answer: &Result<impl std::fmt::Debug, Error>, code: &str) {
    assert!(matches!(answer, Err(Error::Retryable(why)) if why.starts_with(code)), "{answer:?}");
}

#[tokio::test]
async fn a_read_only_server_is_retryable_and_the_host_recovers_without_an_operator() {
    with_world(8, async |world| {
        table(&world).await;
        let roles = ["test".to_owned()];
        let write = async |id: i64| {
            let id = [Value::Integer(id)];
            world.session().execute("insert into t values ($1, 'a')", &id).await
        };
        assert_eq!(write(1).await, Ok(1));
        world.postgres.can_write(&roles).await.expect("the role can write");

        let database = world.config.database_url.as_deref().unwrap().rsplit_once('/').unwrap().1.to_owned();
        world.owner(&format!("alter database {database} set default_transaction_read_only = on")).await;
        world.owner(END_OTHERS).await;
        // The first calls may find connections that were just ended. No call gets an error that blames its
        // statement.
        let answer = loop {
            match write(2).await {
                Err(Error::Retryable(why)) if why.starts_with("25006") => {
                    break Err::<u64, _>(Error::Retryable(why));
                }
                Err(Error::Retryable(_) | Error::UnknownOutcome) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_retryable(&answer, "25006");
        // Reads fail too: each call opens a connection, and the host refuses one that cannot write.
        let calls = (0..20).map(|_| async { world.session().query("select 1", &[]).await });
        for answer in futures_util::future::join_all(calls).await {
            assert_retryable(&answer, "25006");
        }
        assert_eq!(world.postgres.usage().0, 0, "a connection that cannot write was kept");
        until(async || world.postgres.can_write(&roles).await.is_err_and(|why| why.reason.contains("25006")))
            .await;

        // The setting is only a default, so a session can end it for itself and then for the database.
        let mut owner = sqlx::postgres::PgConnection::connect(world.config.database_url.as_deref().unwrap())
            .await
            .unwrap();
        let reset = format!("alter database {database} reset default_transaction_read_only");
        for sql in ["set default_transaction_read_only = off".to_owned(), reset] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut owner).await.unwrap();
        }
        until(async || write(3).await == Ok(1)).await;
        until(async || world.postgres.can_write(&roles).await.is_ok()).await;
        // The connections of the host itself recover too.
        until(async || sqlx::query("create table h (n int)").execute(world.postgres.host()).await.is_ok())
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_becomes_read_only_is_closed_with_the_idle_ones() {
    with_world(8, async |world| {
        table(&world).await;
        // `alter system` changes the open sessions like this: the setting applies from their next transaction
        // on.
        let idle: Vec<_> = (0..3).map(|_| world.session()).collect();
        for mut session in idle {
            session.begin().await.unwrap();
            session.finish().await;
        }
        world
            .owner(
                "create function public.freeze() returns void language plpgsql security definer as \
                 $$ begin perform pg_catalog.set_config('transaction_read_only', 'on', true); end $$; \
                 grant execute on function public.freeze to switchboard_test",
            )
            .await;
        let mut call = world.session();
        call.begin().await.unwrap();
        call.query("select public.freeze()", &[]).await.unwrap();
        assert_retryable(&call.execute("insert into t values (1, 'a')", &[]).await, "25006");
        assert!(matches!(call.commit().await, Err(Error::Retryable(_))));
        until(async || world.postgres.usage().0 == 0).await;
        assert_eq!(world.session().execute("insert into t values (1, 'a')", &[]).await, Ok(1));
    })
    .await;
}

#[tokio::test]
async fn a_role_that_may_not_log_in_is_retryable_and_named() {
    with_world(4, async |world| {
        let role = Role::new(&world).await;
        let roles = ["test".to_owned(), role.0.clone()];
        role.alter(&world, "nologin").await;
        assert_retryable(&role.session(&world).query("select 1", &[]).await, "28000");
        let why = world.postgres.can_write(&roles).await.unwrap_err();
        assert_eq!(why.role, format!("switchboard_{}", role.0), "the role that was refused is tried at once");
        assert!(why.is_of_one_role && why.reason.starts_with("28000"), "{why}");

        role.alter(&world, "login connection limit 0").await;
        assert_retryable(&role.session(&world).query("select 1", &[]).await, "53300");
        role.alter(&world, "connection limit -1").await;
        role.session(&world).query("select 1", &[]).await.unwrap();
        until(async || world.postgres.can_write(&roles).await.is_ok()).await;
        role.drop_role(&world).await;
    })
    .await;
}

#[tokio::test]
async fn without_roles_there_is_nothing_to_probe_and_a_missing_probe_function_is_reported() {
    with_world(2, async |world| {
        assert_eq!(world.postgres.can_write(&[]).await, Ok(()));
        world.owner("drop function switchboard.probe_write").await;
        let why = world.postgres.can_write(&["test".to_owned()]).await.unwrap_err();
        assert!(why.to_string().contains("switchboard migrate") && !why.is_of_one_role, "{why}");
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_hangs_is_reported_and_leaves_no_lock_request() {
    with_world(2, async |world| {
        let roles = ["test".to_owned()];
        world.postgres.can_write(&roles).await.unwrap();
        let mut owner = sqlx::postgres::PgConnection::connect(world.config.database_url.as_deref().unwrap())
            .await
            .unwrap();
        sqlx::raw_sql("begin; lock table switchboard.write_probes").execute(&mut owner).await.unwrap();
        until(async || {
            world.postgres.can_write(&roles).await.is_err_and(|why| why.reason.contains("no COMMIT"))
        })
        .await;
        until(async || world.count("select count(*) from pg_locks where not granted").await == 0).await;
        sqlx::raw_sql("rollback").execute(&mut owner).await.unwrap();
        until(async || world.postgres.can_write(&roles).await.is_ok()).await;
    })
    .await;
}
