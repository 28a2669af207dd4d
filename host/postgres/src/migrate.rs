//! Brings a database to the shape this build expects, and lets the handlers' roles log in. Every node may run it at start:
//! one does the work, the others find it done.

use std::fmt;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, SqlSafeStr, SqlStr};

use super::roles::{fingerprint, password};
use super::settings::Purpose;
use super::{Error, owner, server};
use crate::config::Config;
use crate::limits;
use crate::manifest::ROLE_PREFIX;

/// Versions 1000 to 1999 are the host's; those from 2000 the app's, and may use what the host's give.
const MIGRATIONS: &[(i64, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// Alterations of one role by two databases of a cluster at once fail for one of them; it tries again this often.
const ALTER_ATTEMPTS: usize = 20;

/// Databases that an error names; of the others it tells the number.
const OWNERS_NAMED_MAX: usize = 5;

/// What `migrate` does with a role whose password comes from another secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Refuses while other databases use the role. Their nodes could not log in any more.
    IfUnused,
    /// Sets the password. For an operator who changes the secret of several databases, or gives up the others.
    Take,
}

/// A role that other databases of this server use, with another secret.
#[derive(Debug, PartialEq)]
pub struct Owned {
    role: String,
    databases: Vec<String>,
}

/// What is worth a warning after a migration that succeeded.
#[derive(Debug, Default)]
pub struct Migrated {
    /// Roles whose temporary files nothing bounds, and that the owner of the database may not bound.
    pub unbounded: Vec<String>,
}

/// Does not change a role that belongs to another database.
pub async fn run(config: &Config) -> Result<Migrated, Error> {
    run_with(config, Claim::IfUnused).await
}

pub async fn run_with(config: &Config, claim: Claim) -> Result<Migrated, Error> {
    migrate(config, claim, |sql| sql.into_sql_str()).await
}

/// The same with every statement rewritten before Postgres gets it. The history of such a database has checksums of its own,
/// so only the same `rewrite` migrates it further.
pub async fn run_rewritten(config: &Config, rewrite: fn(&str) -> String) -> Result<Migrated, Error> {
    migrate(config, Claim::IfUnused, |sql| AssertSqlSafe(rewrite(sql)).into_sql_str()).await
}

async fn migrate(
    config: &Config,
    claim: Claim,
    text: impl Fn(&'static str) -> SqlStr,
) -> Result<Migrated, Error> {
    let secret = config.secret().map_err(Error::Config)?;
    let options = owner::options(config.database_url().map_err(Error::Config)?, "switchboard migrate")?;
    let mut connection = server::connect(&options, Purpose::Migration).await?;
    // Before anything is changed. The roles are those of the migrations and those that this database had.
    if claim == Claim::IfUnused {
        let known: Vec<String> = roles_of_migrations().map(str::to_owned).collect();
        owners_with_another_secret(&mut connection, secret, &known).await?;
    }
    all(text).run(&mut connection).await.map_err(Error::Migrate)?;
    let roles: Vec<String> = sqlx::query_scalar("select name from switchboard.roles order by name")
        .fetch_all(&mut connection)
        .await
        .map_err(Error::Host)?;
    if claim == Claim::IfUnused {
        owners_with_another_secret(&mut connection, secret, &roles).await?;
    }
    let mut migrated = Migrated::default();
    for role in roles {
        if !let_log_in(&mut connection, secret, &role).await.map_err(Error::Host)? {
            migrated.unbounded.push(format!("{ROLE_PREFIX}{role}"));
        }
    }
    sqlx::query("select switchboard.prepare_write_probes()")
        .execute(&mut connection)
        .await
        .map_err(Error::Host)?;
    connection.close().await.map_err(Error::Host)?;
    Ok(migrated)
}

/// The host's own migrations, in their order, for tests that need no application.
pub fn of_the_host() -> impl Iterator<Item = &'static str> {
    MIGRATIONS.iter().filter(|(version, ..)| *version < 2000).map(|(_, _, sql)| *sql)
}

/// The names in `ensure_role('…')`.
fn roles_of_migrations() -> impl Iterator<Item = &'static str> {
    MIGRATIONS
        .iter()
        .flat_map(|(_, _, sql)| sql.split("ensure_role('").skip(1))
        .filter_map(|rest| Some(rest.split_once('\'')?.0))
}

/// Fails when another database uses one of the roles with another secret. Postgres itself keeps which databases grant
/// something to a role, for the whole server, and forgets a database that is dropped.
pub(super) async fn owners_with_another_secret(
    connection: &mut PgConnection,
    secret: &str,
    roles: &[String],
) -> Result<(), Error> {
    let names: Vec<String> = roles.iter().map(|role| format!("{ROLE_PREFIX}{role}")).collect();
    let found: Vec<(String, String, Vec<String>)> = sqlx::query_as(
        "select role.rolname::text, shobj_description(role.oid, 'pg_authid'), used.databases
         from pg_roles as role
         cross join lateral (
             select array_agg(distinct base.datname::text order by base.datname::text) as databases
             from pg_shdepend as dependency join pg_database as base on base.oid = dependency.dbid
             where dependency.refclassid = 'pg_authid'::regclass and dependency.refobjid = role.oid
               and base.datname <> current_database()) as used
         where role.rolname = any($1) and used.databases is not null
           and shobj_description(role.oid, 'pg_authid') is not null
         order by 1",
    )
    .bind(names)
    .fetch_all(connection)
    .await
    .map_err(Error::Host)?;
    for (role, mark, databases) in found {
        // A comment that is no mark is somebody's note.
        let is_mark = mark.len() == 64 && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_mark && mark != fingerprint(secret, &role) {
            return Err(Error::Owned(Owned { role, databases }));
        }
    }
    Ok(())
}

/// One history, so that a database ahead of this build is noticed.
fn all(text: impl Fn(&'static str) -> SqlStr) -> Migrator {
    let migrations = MIGRATIONS.iter().map(|&(version, description, sql)| {
        Migration::new(version, description.into(), MigrationType::Simple, text(sql), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// Sets the derived password, unless the role's comment says that it has it: hashing takes time, and roles belong to the
/// whole cluster. False when nothing bounds the role's temporary files.
async fn let_log_in(connection: &mut PgConnection, secret: &str, role: &str) -> sqlx::Result<bool> {
    let name = format!("{ROLE_PREFIX}{role}");
    let (mark, password) = (fingerprint(secret, &name), password(secret, &name));
    let mut attempt = 1;
    loop {
        let altered = async {
            alter(connection, role, &name, &mark, &password).await?;
            bound_temporary_files(connection, &name).await
        };
        match altered.await {
            // "Tuple concurrently updated" has no code of its own, and its text is in the server's language.
            Err(error) if code(&error).as_deref() == Some("XX000") && attempt < ALTER_ATTEMPTS => {
                attempt += 1
            }
            done => return done,
        }
    }
}

/// A statement of a handler sorts, hashes and joins in temporary files, at the disk's speed. Only a superuser sets the
/// bound, or an owner with `grant set on parameter temp_file_limit`. A bound that is there already is the operator's.
async fn bound_temporary_files(connection: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    if unbounded(&mut *connection, &[name.to_owned()]).await?.is_empty() {
        return Ok(true);
    }
    let megabytes = limits::POSTGRES_TEMP_FILES_MB_MAX;
    let sql = format!("alter role \"{name}\" set temp_file_limit = '{megabytes}MB'");
    match sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await {
        Ok(_) => Ok(true),
        Err(error) if code(&error).as_deref() == Some("42501") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Those of these roles whose temporary files nothing bounds: not the server, and not a setting of the role or database.
async fn unbounded(connection: impl sqlx::PgExecutor<'_>, names: &[String]) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select role.rolname::text from pg_roles as role
         where role.rolname = any($1) and current_setting('temp_file_limit') = '-1' and not exists (
             select from pg_db_role_setting as setting cross join unnest(setting.setconfig) as line
             where setting.setrole in (0, role.oid)
               and setting.setdatabase in (0, (select oid from pg_database where datname = current_database()))
               and split_part(line, '=', 1) = 'temp_file_limit' and split_part(line, '=', 2) <> '-1')
         order by 1",
    )
    .bind(names)
    .fetch_all(connection)
    .await
}

/// The same for all roles of this database.
pub(super) async fn unbounded_roles(pool: &sqlx::PgPool) -> sqlx::Result<Vec<String>> {
    let roles: Vec<String> =
        sqlx::query_scalar("select 'switchboard_' || name from switchboard.roles").fetch_all(pool).await?;
    unbounded(pool, &roles).await
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
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

impl fmt::Display for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = &self.databases[..self.databases.len().min(OWNERS_NAMED_MAX)];
        let more = self.databases.len() - named.len();
        let databases =
            named.join(", ") + &(if more > 0 { format!(" and {more} more") } else { String::new() });
        write!(
            f,
            "the role {} is in use by another database of this server ({databases}), with another `secret`. Roles belong \
             to the whole server, and their passwords come from the secret: with the password of this database the nodes \
             of the other could not log in any more. Nothing was changed. Use the same `secret` for both, or another \
             server. Where the other database is not in use any more, drop it, or run `switchboard migrate --take-roles`",
            self.role
        )
    }
}

impl Migrated {
    /// What to tell the operator, where there is something.
    pub fn warning(&self) -> Option<String> {
        unbounded_warning(&self.unbounded)
    }
}

pub(super) fn unbounded_warning(roles: &[String]) -> Option<String> {
    let first = roles.first()?;
    let megabytes = limits::POSTGRES_TEMP_FILES_MB_MAX;
    Some(format!(
        "nothing bounds the temporary files of {} roles of handlers ({first}, …), and the owner of the database may not: \
         one statement can fill the disk of Postgres. As a superuser, run `alter system set temp_file_limit = \
         '{megabytes}MB'` and `select pg_reload_conf()`, or `grant set on parameter temp_file_limit to` the owner and \
         then `switchboard migrate`",
        roles.len()
    ))
}
