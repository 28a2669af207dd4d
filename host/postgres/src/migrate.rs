//! Migrates a database to the schema of this build, and sets the passwords of the handlers' roles. Every node
//! may run it at start: one node does the work, and the others find it done.

use std::fmt;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use super::roles::{fingerprint, password};
use super::settings::Purpose;
use super::{Error, owner, server};
use crate::migrations::Migrations;
use switchboard_core::config::Config;
use switchboard_core::limits;
use switchboard_core::manifest::ROLE_PREFIX;

/// Maximum number of databases that an error names; it states the number of the others.
const OWNERS_NAMED_MAX: usize = 5;

/// What `migrate` does with a role whose password comes from another secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Refuse while other databases use the role, because their nodes could not log in any more.
    IfUnused,
    /// Set the password anyway. For an operator who changes the secret of several databases, or gives up the
    /// other databases.
    Take,
}

/// A role that other databases of this server use with another secret.
#[derive(Debug, PartialEq)]
pub struct RoleConflict {
    role: String,
    databases: Vec<String>,
}

/// The warnings of a successful migration.
#[derive(Debug, Default)]
pub struct Migrated {
    /// Roles whose temporary files nothing bounds, and whose bound the owner of the database may not set.
    pub unbounded: Vec<String>,
}

/// Migrates the database. Refuses to change a role that belongs to another database.
pub async fn run(config: &Config, migrations: &Migrations) -> Result<Migrated, Error> {
    run_with(config, migrations, Claim::IfUnused).await
}

pub async fn run_with(config: &Config, migrations: &Migrations, claim: Claim) -> Result<Migrated, Error> {
    migrate(config, migrations, claim, str::to_owned).await
}

/// Migrates a database with every statement rewritten before Postgres gets it. The checksums of such a
/// database differ, so only the same `rewrite` can migrate it further.
pub async fn run_rewritten(
    config: &Config,
    migrations: &Migrations,
    rewrite: fn(&str) -> String,
) -> Result<Migrated, Error> {
    migrate(config, migrations, Claim::IfUnused, rewrite).await
}

async fn migrate(
    config: &Config,
    migrations: &Migrations,
    claim: Claim,
    rewrite: impl Fn(&str) -> String,
) -> Result<Migrated, Error> {
    let secret = config.secret()?;
    let options = owner::options(config.database_url()?, "switchboard migrate")?;
    let mut connection = server::connect(&options, Purpose::Migration).await?;
    // Checked before anything is changed, for the roles of the migrations and those that this database
    // already had.
    if claim == Claim::IfUnused {
        owners_with_another_secret(&mut connection, secret, &migrations.roles()).await?;
    }
    migrations.migrator(rewrite).run(&mut connection).await.map_err(Error::Migrate)?;
    let roles: Vec<String> = sqlx::query_scalar("select name from switchboard.roles order by name")
        .fetch_all(&mut connection)
        .await
        .map_err(Error::Host)?;
    if claim == Claim::IfUnused {
        owners_with_another_secret(&mut connection, secret, &roles).await?;
    }
    let mut migrated = Migrated::default();
    for role in roles {
        if !set_up_login(&mut connection, secret, &role).await.map_err(Error::Host)? {
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

/// Fails when another database uses one of the roles with another secret. Postgres keeps, for the whole
/// server, which databases grant something to a role, and forgets a database that is dropped.
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
        // A comment that is not a fingerprint was written by somebody else.
        let is_mark = mark.len() == 64 && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_mark && mark != fingerprint(secret, &role) {
            return Err(Error::RoleConflict(RoleConflict { role, databases }));
        }
    }
    Ok(())
}

/// Sets the derived password, unless the role's comment says that it is already set: hashing takes time, and
/// roles belong to the whole server. Returns false when nothing bounds the role's temporary files.
async fn set_up_login(connection: &mut PgConnection, secret: &str, role: &str) -> sqlx::Result<bool> {
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
            Err(error)
                if code(&error).as_deref() == Some("XX000") && attempt < limits::ROLE_ALTER_ATTEMPTS_MAX =>
            {
                attempt += 1
            }
            done => return done,
        }
    }
}

/// Bounds the temporary files of a role, in which statements sort, hash and join. Only a superuser can set
/// the bound, or an owner with `grant set on parameter temp_file_limit`. An existing bound is the operator's
/// and stays.
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

/// Returns the roles whose temporary files nothing bounds: neither the server nor a setting of the role or
/// the database.
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

/// Returns all roles of this database whose temporary files nothing bounds.
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

impl fmt::Display for RoleConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = &self.databases[..self.databases.len().min(OWNERS_NAMED_MAX)];
        let more = self.databases.len() - named.len();
        let databases =
            named.join(", ") + &(if more > 0 { format!(" and {more} more") } else { String::new() });
        write!(
            f,
            "the role {} is used by another database of this server ({databases}) with another `secret`. Roles belong \
             to the whole server, and their passwords come from the secret: with the password of this database the nodes \
             of the other could not log in any more. Nothing was changed. Use the same `secret` for both, or another \
             server. Where the other database is not in use any more, drop it, or run `switchboard migrate --take-roles`",
            self.role
        )
    }
}

impl Migrated {
    /// The warning for the operator, if there is one.
    pub fn warning(&self) -> Option<String> {
        unbounded_warning(&self.unbounded)
    }
}

pub(super) fn unbounded_warning(roles: &[String]) -> Option<String> {
    let first = roles.first()?;
    let megabytes = limits::POSTGRES_TEMP_FILES_MB_MAX;
    Some(format!(
        "the temporary files of {} handler roles ({first}, …) have no bound, and the owner of the database may not set one: \
         one statement can fill the disk of Postgres. As a superuser, run `alter system set temp_file_limit = \
         '{megabytes}MB'` and `select pg_reload_conf()`, or `grant set on parameter temp_file_limit to` the owner and \
         then `switchboard migrate`",
        roles.len()
    ))
}
