//! The error of this crate: a test or an invocation could not run. A test that fails is a
//! [`crate::report::Verdict`], not an error.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use switchboard_contract::redis;
use switchboard_core::{Blame, Blamed};
use switchboard_runtime as runtime;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandbox refuses the release, or does not start.
    #[error(transparent)]
    Release(#[from] runtime::Error),
    #[error("cannot read {path}: {1}", path = .0.display())]
    Read(PathBuf, io::Error),
    /// A file that is not a test, or SQL that a scenario cannot use.
    #[error("{}: {reason}", path.display())]
    Case { path: PathBuf, reason: String },
    /// The input does not fit the trigger.
    #[error("{0}")]
    Input(String),
    /// The scenario, or the URL of a service, breaks a rule.
    #[error("{0}")]
    Setup(String),
    #[error("Postgres failed to {attempt}: {error}")]
    Postgres { attempt: &'static str, error: switchboard_postgres::Error },
    /// Postgres refused the SQL of a scenario, or failed meanwhile.
    #[error("{}: {error}", path.display())]
    Fixture { path: PathBuf, error: switchboard_postgres::Error },
    #[error(transparent)]
    Redis(#[from] switchboard_redis::Error),
    #[error("the Redis command `{command}` failed: {error:?}")]
    RedisCommand { command: String, error: redis::Error },
    /// The service was not ready after this time.
    #[error("{0} was not ready after {wait} s", wait = .1.as_secs())]
    NotReady(&'static str, Duration),
    /// The task of a test panicked.
    #[error("a test ended without a result: {0}")]
    Task(tokio::task::JoinError),
}

/// Maps an error: `map_err(postgres("read a row"))`.
pub(crate) fn postgres<E: Into<switchboard_postgres::Error>>(
    attempt: &'static str,
) -> impl FnOnce(E) -> Error {
    move |error| Error::Postgres { attempt, error: error.into() }
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        match self {
            Self::Release(error) => error.blame(),
            Self::Read(..) | Self::Case { .. } | Self::Input(_) | Self::Setup(_) => Blame::Operator,
            Self::Postgres { error, .. } => error.blame(),
            // The author of the scenario wrote the statement, unless Postgres could not run any.
            Self::Fixture { error, .. } => match error.blame() {
                Blame::Backend => Blame::Backend,
                _ => Blame::Operator,
            },
            Self::Redis(error) => error.blame(),
            Self::RedisCommand { error, .. } => match error {
                redis::Error::Refused(_) | redis::Error::Failed(_) | redis::Error::TooLarge(_) => {
                    Blame::Operator
                }
                redis::Error::Unavailable | redis::Error::Deadline => Blame::Backend,
            },
            Self::NotReady(..) => Blame::Backend,
            Self::Task(_) => Blame::Host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whose_fault_it_is() {
        let fixture = |error: sqlx::Error| Error::Fixture { path: "a.sql".into(), error: error.into() };
        let command = |error| Error::RedisCommand { command: "GET".to_owned(), error };
        for (error, blame) in [
            (Error::Input("the input must be an object".to_owned()), Blame::Operator),
            (postgres("copy the template")(sqlx::Error::PoolTimedOut), Blame::Backend),
            (fixture(sqlx::Error::RowNotFound), Blame::Operator),
            (fixture(sqlx::Error::PoolTimedOut), Blame::Backend),
            (command(redis::Error::Failed("WRONGTYPE".to_owned())), Blame::Operator),
            (command(redis::Error::Unavailable), Blame::Backend),
            (Error::NotReady("Redis", Duration::from_secs(5)), Blame::Backend),
        ] {
            assert_eq!(error.blame(), blame, "{error}");
        }
    }
}
