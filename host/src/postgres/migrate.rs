//! Brings a database to the shape this build expects, and lets the handlers' roles log in. Every node may run it at start:
//! one does the work, the others find it done.

use std::str::FromStr;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, SqlSafeStr};

use super::Error;
use super::roles::{ROLE_PREFIX, fingerprint, password};
use crate::config::Config;

/// Versions 1000 to 1999 are the host's; those from 2000 the app's, and may use what the host's give.
const MIGRATIONS: &[(i64, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// Alterations of one role by two databases of a cluster at once fail for one of them; it tries again this often.
const ALTER_ATTEMPTS: usize = 20;

pub async fn run(config: &Config) -> Result<(), Error> {
    let url = config.database_url().map_err(Error::Config)?;
    let secret = config.secret().map_err(Error::Config)?;
    let options = PgConnectOptions::from_str(url).map_err(|error| Error::Url(error.to_string()))?;
    let options = options.application_name("switchboard migrate");
    let mut connection = PgConnection::connect_with(&options).await.map_err(Error::Host)?;
    // An owner called `switchboard` would look for the history in the schema of that name, once there is one.
    sqlx::raw_sql("set search_path = public").execute(&mut connection).await.map_err(Error::Host)?;
    all().run(&mut connection).await.map_err(Error::Migrate)?;
    let roles: Vec<String> = sqlx::query_scalar("select name from switchboard.roles order by name")
        .fetch_all(&mut connection)
        .await
        .map_err(Error::Host)?;
    for role in roles {
        let_log_in(&mut connection, secret, &role).await.map_err(Error::Host)?;
    }
    connection.close().await.map_err(Error::Host)
}

/// One history, so that a database ahead of this build is noticed.
fn all() -> Migrator {
    let migrations = MIGRATIONS.iter().map(|&(version, description, sql)| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// Sets the derived password, unless the role's comment says that it has it: hashing takes time, and roles belong to the
/// whole cluster.
async fn let_log_in(connection: &mut PgConnection, secret: &str, role: &str) -> Result<(), sqlx::Error> {
    let name = format!("{ROLE_PREFIX}{role}");
    let mark = fingerprint(secret, &name);
    for _ in 1..ALTER_ATTEMPTS {
        match alter(connection, role, &name, &mark, &password(secret, &name)).await {
            Err(sqlx::Error::Database(error)) if error.message().contains("concurrently") => {
                tokio::task::yield_now().await;
            }
            done => return done,
        }
    }
    alter(connection, role, &name, &mark, &password(secret, &name)).await
}

async fn alter(
    connection: &mut PgConnection,
    role: &str,
    name: &str,
    mark: &str,
    password: &str,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("select switchboard.ensure_role($1)").bind(role).execute(&mut *transaction).await?;
    let comment: Option<String> =
        sqlx::query_scalar("select shobj_description(oid, 'pg_authid') from pg_roles where rolname = $1")
            .bind(name)
            .fetch_one(&mut *transaction)
            .await?;
    if comment.as_deref() != Some(mark) {
        // Utility statements take no parameters. The name is checked by `switchboard.roles`, the rest is hex.
        let sql = format!(
            "alter role \"{name}\" login password '{password}'; comment on role \"{name}\" is '{mark}'"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

/// Changes with any migration: the name of a database that was migrated to this version.
pub fn fingerprint_of_all() -> String {
    let all: String = MIGRATIONS.iter().map(|(_, _, sql)| *sql).collect();
    crate::ids::Digest::of(all.as_bytes()).short()
}
