//! The requirements for the Postgres server. A node and `migrate` check them before anything else. When a
//! requirement is not met, the start is refused with the reason and the remedy.

use std::io::ErrorKind;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{Connection, Row};
use tokio::time::{Instant, sleep, timeout};

use super::Error;
use super::owner;
use super::settings::Purpose;
use switchboard_core::limits;

/// The migrations use MERGE, and primary keys of partitioned tables in the form of Postgres 15.
const VERSION_MIN: i32 = 150_000;
/// Why this server cannot be used. Each message says what to do.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum UnusableServer {
    #[error(
        "Postgres {0} is too old: Switchboard needs Postgres 15 or newer. Upgrade the server, or name another \
         one in `database_url`"
    )]
    Version(String),
    #[error(
        "the database {database} has the encoding {encoding}, in which not every text can be stored: Switchboard \
         needs UTF8. Create another database (create database … encoding 'UTF8' template template0) and name it \
         in `database_url`"
    )]
    Encoding { database: String, encoding: String },
    #[error(
        "the server was built with floating-point timestamps (integer_datetimes = off), which the drivers cannot \
         read. Use a server that was built without this option"
    )]
    FloatingDatetimes,
    #[error(
        "session_replication_role is {0} for the owner of the database, which turns triggers and foreign keys \
         off. Reset this setting of the server, the database or the role"
    )]
    Replication(String),
    #[error(
        "the database {database} is read-only: the server is a standby, or default_transaction_read_only is on. \
         Name the primary in `database_url`, or reset this setting"
    )]
    ReadOnly { database: String },
    #[error(
        "a connection pooler in transaction or statement mode (for instance PgBouncer) stands between this \
         process and Postgres. It changes the server session between two transactions, so prepared statements, \
         settings, LISTEN and locks are lost. Set `pool_mode = session` for this database, or name Postgres \
         itself in `database_url`"
    )]
    Pooled,
}

/// Opens a session on a server that meets the requirements, and sends its settings.
pub(super) async fn connect(options: &PgConnectOptions, purpose: Purpose) -> Result<PgConnection, Error> {
    let opened = async {
        let mut connection = reach(options).await?;
        let unfit = match of_server(&mut connection).await? {
            Some(unfit) => Some(unfit),
            None if is_pooled(options, &mut connection).await? => Some(UnusableServer::Pooled),
            None => None,
        };
        if unfit.is_none() {
            owner::prepare(&mut connection, purpose).await?;
        }
        Ok((connection, unfit))
    };
    match timeout(limits::POSTGRES_HOST_WAIT, opened).await {
        Ok(Ok((connection, None))) => Ok(connection),
        Ok(Ok((_, Some(unfit)))) => Err(Error::UnusableServer(unfit)),
        Ok(Err(error)) => Err(Error::Host(error)),
        Err(_) => Err(Error::Host(sqlx::Error::PoolTimedOut)),
    }
}

/// Connects. A server that is starting up, or has no free connection at the moment, is tried again for half
/// of the time-out.
async fn reach(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let until = Instant::now() + limits::POSTGRES_HOST_WAIT / 2;
    loop {
        let error = match PgConnection::connect_with(options).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let starting = match &error {
            sqlx::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
            error => {
                let code = error.as_database_error().and_then(|error| error.code());
                matches!(code.as_deref(), Some("57P03" | "53300"))
            }
        };
        if !starting || Instant::now() > until {
            return Err(error);
        }
        sleep(limits::POSTGRES_REACH_AGAIN_AFTER).await;
    }
}

async fn of_server(connection: &mut PgConnection) -> sqlx::Result<Option<UnusableServer>> {
    // Simple queries, because a pooler in transaction mode fails prepared statements, and the pooler is to be
    // recognised here.
    let row = sqlx::raw_sql(
        "select current_setting('server_version_num') as number, current_setting('server_version') as version,
                current_setting('server_encoding') as encoding, current_setting('integer_datetimes') as datetimes,
                current_setting('session_replication_role') as replication,
                current_setting('transaction_read_only') as read_only, current_database()::text as database",
    )
    .fetch_one(connection)
    .await?;
    judge(&row)
}

fn judge(row: &PgRow) -> sqlx::Result<Option<UnusableServer>> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let number: i32 = text("number")?.parse().unwrap_or(0);
    let database = text("database")?;
    Ok(if number < VERSION_MIN {
        Some(UnusableServer::Version(text("version")?))
    } else if text("encoding")? != "UTF8" {
        Some(UnusableServer::Encoding { database, encoding: text("encoding")? })
    } else if text("datetimes")? != "on" {
        Some(UnusableServer::FloatingDatetimes)
    } else if text("replication")? != "origin" {
        Some(UnusableServer::Replication(text("replication")?))
    } else if text("read_only")? == "on" {
        Some(UnusableServer::ReadOnly { database })
    } else {
        None
    })
}

/// Finds out whether a pooler in transaction or statement mode is in between. Two connections that are open
/// at the same time have two server sessions, and each keeps its own. Such a pooler gives the session of one
/// to the other, or changes it while the other is in a transaction.
async fn is_pooled(options: &PgConnectOptions, one: &mut PgConnection) -> sqlx::Result<bool> {
    let mut two = PgConnection::connect_with(options).await?;
    let first = session(one).await?;
    for _ in 0..limits::POOLER_CHECKS {
        if session(&mut two).await? == first {
            return Ok(true);
        }
        if let Err(error) = sqlx::raw_sql("begin").execute(&mut two).await {
            // The pooler's error is "Transaction blocks not allowed in statement pooling mode". No server
            // refuses a BEGIN.
            return if matches!(error, sqlx::Error::Database(_)) { Ok(true) } else { Err(error) };
        }
        let other = session(&mut two).await?;
        let again = session(one).await?;
        sqlx::raw_sql("rollback").execute(&mut two).await?;
        if other == first || again != first {
            return Ok(true);
        }
    }
    two.close().await?;
    Ok(false)
}

async fn session(connection: &mut PgConnection) -> sqlx::Result<String> {
    sqlx::raw_sql("select pg_backend_pid()::text").fetch_one(connection).await?.try_get(0)
}
