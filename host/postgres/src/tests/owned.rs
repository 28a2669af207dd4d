//! Roles belong to the whole server, and databases with different secrets must not take them from each other.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::*;

#[tokio::test]
async fn a_role_that_another_database_uses_with_another_secret_is_not_taken() {
    with_world(1, async |world| {
        // A role of two databases. No other test uses it.
        let role = format!("shared_{}", uuid::Uuid::now_v7().simple());
        let use_it = format!(
            "select switchboard.ensure_role('{role}'); create table public.s (n int); \
             grant select on public.s to switchboard_{role}"
        );
        world.owner(&use_it).await;
        migrated(&world.config).await.unwrap();
        let url = world.config.database_url.clone().unwrap();
        let (server, first) = url.rsplit_once('/').unwrap();
        let mut admin = PgConnection::connect(&url).await.unwrap();
        let second = format!("switchboard_test_{}", uuid::Uuid::now_v7().simple());
        let mut run = async |sql: String| {
            sqlx::raw_sql(AssertSqlSafe(sql.clone()))
                .execute(&mut admin)
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e}"))
        };
        run(format!("create database {second}")).await;
        let ours = Config { database_url: Some(format!("{server}/{second}")), ..world.config.clone() };
        let theirs =
            Config { secret: Some("another secret, of more than 32 characters".to_owned()), ..ours.clone() };

        // Several databases may use the same secret. A different one is refused before anything is changed.
        let error = migrated(&theirs).await.map(drop).unwrap_err();
        assert!(matches!(error, super::super::Error::RoleConflict(_)), "{error}");
        let mut of_second = PgConnection::connect(ours.database_url.as_deref().unwrap()).await.unwrap();
        let tables: i64 = sqlx::query_scalar(
            "select count(*) from pg_tables where schemaname in ('public', 'switchboard', 'app')",
        )
        .fetch_one(&mut of_second)
        .await
        .unwrap();
        assert_eq!(tables, 0);
        migrated(&ours).await.expect("the same secret");

        // Only with the role of this test, because other tests use the roles of the migrations.
        let asked = [role.clone()];
        let refused =
            migrate::owners_with_another_secret(&mut of_second, "another secret", &asked).await.unwrap_err();
        assert!(
            refused.to_string().contains(&format!(
                "switchboard_{role} is used by another database of this server ({first})"
            )),
            "{refused}"
        );
        migrate::owners_with_another_secret(&mut of_second, world.config.secret().unwrap(), &asked)
            .await
            .unwrap();
        // The only database that uses the role may change its secret.
        let mut of_first = PgConnection::connect(&url).await.unwrap();
        migrate::owners_with_another_secret(&mut of_first, "another secret", &asked).await.unwrap();
        // A dropped database uses no role.
        world.owner(&format!("drop owned by switchboard_{role}; drop table public.s")).await;
        migrate::owners_with_another_secret(&mut of_second, "another secret", &asked).await.unwrap();

        world.owner(&format!("drop role switchboard_{role}")).await;
        drop(of_second);
        run(format!("drop database {second} with (force)")).await;
    })
    .await;
}
