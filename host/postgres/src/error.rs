//! The error of this crate, for the host. Handlers get `contract::postgres::Error`, which says whether a
//! statement is known to be uncommitted ([`super::failure`]).

use std::time::Duration;

use tokio::time::timeout;

use crate::failure::{judge, of_sqlx};
use crate::{UnusableMigrations, UnusableServer, migrate};
use switchboard_core::{Blame, Blamed};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] switchboard_core::Error),
    /// The URL itself is left out, because it holds a password.
    #[error("`database_url` is not a Postgres URL: {0}")]
    Url(String),
    #[error("Postgres does not serve the host: {0}")]
    Host(sqlx::Error),
    /// The server answers, but does not meet the requirements of the host.
    #[error(transparent)]
    UnusableServer(#[from] UnusableServer),
    /// The files of the application are not migrations.
    #[error(transparent)]
    UnusableMigrations(#[from] UnusableMigrations),
    #[error("the database cannot be migrated: {0}")]
    Migrate(sqlx::migrate::MigrateError),
    /// Another database of the server uses the handlers' roles with another secret.
    #[error("{0}")]
    RoleConflict(migrate::RoleConflict),
    /// A statement of the host failed.
    #[error(transparent)]
    Statement(#[from] sqlx::Error),
    /// The outbox cannot be read.
    #[error("{}", message_of(.0))]
    Read(tokio_postgres::Error),
    /// The caller gave up. The statement may be executed nevertheless.
    #[error("Postgres did not answer within the time limit")]
    Late,
}

impl Error {
    /// True when the server is read-only: it is a standby, or an operator made it read-only.
    pub(super) fn is_read_only(&self) -> bool {
        match self {
            Self::Host(error) | Self::Statement(error) => {
                error.as_database_error().and_then(|error| error.code()).as_deref() == Some("25006")
            }
            _ => false,
        }
    }
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        match self {
            Self::Config(error) => error.blame(),
            Self::Url(_)
            | Self::UnusableServer(_)
            | Self::UnusableMigrations(_)
            | Self::Migrate(_)
            | Self::RoleConflict(_) => Blame::Operator,
            Self::Host(error) | Self::Statement(error) => of_sqlx(error).blame,
            Self::Read(error) => match error.as_db_error() {
                Some(refused) => judge(refused.code().code(), false).blame,
                None => Blame::Backend,
            },
            Self::Late => Blame::Backend,
        }
    }
}

/// Bounds the wait for a statement of the host: a server that hangs is like one that is not reachable.
pub async fn in_time<T>(
    wait: Duration,
    statement: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(wait, statement).await.unwrap_or(Err(Error::Late))
}

/// The code and the text of a server's error. The driver shows neither.
fn message_of(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refused) => format!("{}: {}", refused.code().code(), refused.message()),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whose_fault_it_is() {
        for (error, blame) in [
            (Error::Statement(sqlx::Error::RowNotFound), Blame::Host),
            (Error::Statement(sqlx::Error::PoolTimedOut), Blame::Backend),
            (Error::Host(sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into())), Blame::Backend),
            (Error::Url("x".to_owned()), Blame::Operator),
            (Error::Late, Blame::Backend),
        ] {
            assert_eq!(error.blame(), blame, "{error}");
        }
    }
}
