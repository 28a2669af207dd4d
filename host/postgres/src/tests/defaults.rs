//! Defaults of servers, databases and roles that differ from ours, and servers that cannot be used.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::*;

/// The opposite of every setting that the product needs, as far as a database can set it.
const STRANGE: &[(&str, &str)] = &[
    ("standard_conforming_strings", "off"),
    ("default_transaction_isolation", "repeatable read"),
    ("search_path", "pg_catalog"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("row_security", "off"),
    ("quote_all_identifiers", "on"),
    ("datestyle", "German"),
    ("timezone", "Asia/Ho_Chi_Minh"),
    ("intervalstyle", "iso_8601"),
    ("extra_float_digits", "-3"),
    ("bytea_output", "escape"),
    ("lock_timeout", "1ms"),
    ("synchronous_commit", "off"),
    ("gin_fuzzy_search_limit", "1"),
    ("idle_session_timeout", "1h"),
    ("password_encryption", "md5"),
];

/// A database with these defaults.
async fn strange(admin: &mut PgConnection, options: &str) -> String {
    let name = format!("switchboard_test_{}", uuid::Uuid::now_v7().simple());
    execute(admin, &format!("create database {name} {options}")).await;
    for (setting, value) in STRANGE {
        execute(admin, &format!("alter database {name} set {setting} = '{value}'")).await;
    }
    name
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn of_database(config: &Config, name: &str) -> Config {
    let server = config.database_url.as_deref().unwrap().rsplit_once('/').unwrap().0.to_owned();
    Config { database_url: Some(format!("{server}/{name}")), ..config.clone() }
}

#[tokio::test]
async fn no_session_depends_on_the_defaults_of_the_server() {
    with_world(2, async |world| {
        let mut admin = PgConnection::connect(world.config.database_url.as_deref().unwrap()).await.unwrap();
        let name = strange(&mut admin, "").await;
        let config = of_database(&world.config, &name);
        migrated(&config).await.expect("the migrations run under any defaults");
        let postgres = Postgres::connect(&config).await.unwrap();

        let lower: bool = sqlx::query_scalar("select has_function_privilege('public', 'lower(text)', 'execute')")
            .fetch_one(postgres.host())
            .await
            .unwrap();
        assert!(lower, "a pattern of 1000_roles was read with another meaning");
        let settings = "select string_agg(concat_ws('=', name, setting), ' ' order by name) from pg_settings \
                        where name in ('standard_conforming_strings', 'default_transaction_isolation', 'array_nulls', \
                        'TimeZone', 'DateStyle', 'lock_timeout', 'synchronous_commit', 'bytea_output')";
        let expected = "DateStyle=ISO, MDY TimeZone=UTC array_nulls=on bytea_output=hex \
                        default_transaction_isolation=read committed lock_timeout=0 standard_conforming_strings=on \
                        synchronous_commit=on";
        let of_host: String =
            sqlx::query(settings).fetch_one(postgres.host()).await.unwrap().try_get(0).unwrap();
        assert_eq!(of_host, expected);
        let mut call =
            postgres.session(Some("send_message"), Digest::of(b""), Instant::now() + Duration::from_secs(10));
        assert_eq!(call.query(settings, &[]).await.unwrap().cells, [text(expected)]);

        // The host's own transactions see what other transactions committed after they began.
        let mut transaction = postgres.host().begin().await.unwrap();
        let level: String =
            sqlx::query_scalar("show transaction_isolation").fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(level, "read committed");
        drop(transaction);
        drop(call);
        postgres.close().await;
        execute(&mut admin, &format!("drop database {name} with (force)")).await;
    })
    .await;
}

#[tokio::test]
async fn functions_that_were_revoked_by_mistake_are_given_back() {
    with_world(2, async |world| {
        // The effect of the migration 1000_roles where `standard_conforming_strings` was off.
        world.owner("revoke execute on function lower(text), log(numeric) from public").await;
        assert_eq!(
            world
                .session()
                .query("select lower('A')", &[])
                .await
                .map_err(|error| code(&error).to_owned())
                .err()
                .as_deref(),
            Some("42501")
        );
        world.owner("delete from public._sqlx_migrations where version = 1311").await;
        migrated(&world.config).await.unwrap();
        let rows = world.session().query("select lower('A'), log(1.0)::float8", &[]).await.unwrap();
        assert_eq!(rows.cells, [text("a"), Value::Float(0.0)]);
        assert_eq!(code(&world.session().query("select lo_create(0)", &[]).await.unwrap_err()), "42501");
    })
    .await;
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_text_is_refused_at_start() {
    with_world(1, async |world| {
        let mut admin = PgConnection::connect(world.config.database_url.as_deref().unwrap()).await.unwrap();
        let ascii = "encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0";
        let name = strange(&mut admin, ascii).await;
        let config = of_database(&world.config, &name);
        let refused = super::super::Error::UnusableServer(UnusableServer::Encoding {
            database: name.clone(),
            encoding: "SQL_ASCII".to_owned(),
        });
        for error in
            [migrated(&config).await.unwrap_err(), Postgres::connect(&config).await.map(drop).unwrap_err()]
        {
            assert_eq!(error.to_string(), refused.to_string());
        }
        execute(&mut admin, &format!("drop database {name} with (force)")).await;

        let replica = strange(&mut admin, "").await;
        execute(&mut admin, &format!("alter database {replica} set default_transaction_read_only = on"))
            .await;
        let error = Postgres::connect(&of_database(&world.config, &replica)).await.map(drop).unwrap_err();
        assert!(
            matches!(error, super::super::Error::UnusableServer(UnusableServer::ReadOnly { .. })),
            "{error}"
        );
        execute(&mut admin, &format!("drop database {replica} with (force)")).await;
    })
    .await;
}

#[tokio::test]
async fn a_handler_cannot_fill_the_disk_with_temporary_files() {
    with_world(2, async |world| {
        let large = "select count(*) from (select repeat('x', 1000) || n as line from generate_series(1, 300000) as n \
                     order by line offset 1) as sorted";
        assert_eq!(code(&world.session().query(large, &[]).await.unwrap_err()), "53400");
        world.session().query("select 1", &[]).await.expect("the connection is used again");
        assert_eq!(migrated(&world.config).await.unwrap().unbounded, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn an_owner_without_the_privilege_is_warned_that_nothing_bounds_temporary_files() {
    with_world(1, async |world| {
        let url = world.config.database_url.clone().unwrap();
        let mut admin = PgConnection::connect(&url).await.unwrap();
        let once = uuid::Uuid::now_v7().simple().to_string();
        let (owner, name, role) =
            (format!("owner_{once}"), format!("switchboard_test_{once}"), format!("own_{once}"));
        execute(&mut admin, &format!("create role {owner} login createrole password 'known'")).await;
        execute(&mut admin, &format!("create database {name} owner {owner}")).await;
        let config = of_database(&world.config, &name);
        let (_, server) = config.database_url.as_deref().unwrap().split_once('@').unwrap();
        let config =
            Config { database_url: Some(format!("postgres://{owner}:known@{server}")), ..config.clone() };
        migrated(&config).await.expect("the owner need not be a superuser");
        let mut connection = PgConnection::connect(config.database_url.as_deref().unwrap()).await.unwrap();
        execute(&mut connection, &format!("select switchboard.ensure_role('{role}')")).await;
        connection.close().await.unwrap();

        let first = migrated(&config).await.unwrap();
        assert_eq!(first.unbounded, [format!("switchboard_{role}")]);
        assert!(first.warning().unwrap().contains("alter system set temp_file_limit = '64MB'"));
        execute(&mut admin, &format!("grant set on parameter temp_file_limit to {owner}")).await;
        assert_eq!(migrated(&config).await.unwrap().unbounded, Vec::<String>::new());

        execute(&mut admin, &format!("drop database {name} with (force)")).await;
        execute(&mut admin, &format!("revoke set on parameter temp_file_limit from {owner}")).await;
        execute(&mut admin, &format!("drop role switchboard_{role}, {owner}")).await;
    })
    .await;
}
