//! What can go wrong between a statement and its answer, before it is known what that means to the caller: the same loss is
//! `retryable` before COMMIT and `unknown-outcome` after it.

use tokio_postgres::error::Severity;

use crate::contract::postgres::{Error, SqlError};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    /// The server refused the statement.
    Sql(SqlError),
    /// The server refused it now: serialisation, deadlock, no resources.
    Retryable(String),
    /// Cancelled, by us or by an administrator.
    Cancelled,
    /// The server ended the session and said so. An open transaction was rolled back.
    Ended(String),
    /// No answer.
    Lost,
    /// A prepared statement outlived its tables; the next attempt prepares it again.
    Stale,
    /// Refused by this host before anything was sent.
    Refused(String),
    /// The answer is larger than this many bytes; the rest was not read.
    TooLarge(u64),
    /// The answer holds what the contract cannot carry; the rest was not read.
    Undecodable(String),
}

impl Failure {
    /// Nothing of the answer is still to come, and the connection lives.
    pub fn ends_the_answer(&self) -> bool {
        match self {
            Self::Sql(_) | Self::Retryable(_) | Self::Cancelled | Self::Stale | Self::Refused(_) => true,
            Self::Ended(_) | Self::Lost | Self::TooLarge(_) | Self::Undecodable(_) => false,
        }
    }

    /// For a statement that cannot have changed anything: it reads, or its transaction is open.
    pub fn uncommitted(self) -> Error {
        match self {
            Self::Sql(error) => Error::Sql(error),
            Self::Retryable(reason) | Self::Ended(reason) => Error::Retryable(reason),
            Self::Cancelled => Error::Deadline,
            Self::Lost => Error::Retryable("the connection to Postgres was lost".to_owned()),
            Self::Stale => Error::Retryable("the tables of a prepared statement changed".to_owned()),
            Self::Refused(reason) | Self::Undecodable(reason) => Error::Refused(reason),
            Self::TooLarge(bytes) => Error::TooLarge(bytes),
        }
    }

    /// For COMMIT, and for a statement that is its own transaction and may write.
    pub fn committing(self) -> Error {
        match self {
            Self::Lost => Error::UnknownOutcome,
            other => other.uncommitted(),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // Closed, reset, cut by our own guard, or not understood: each time the answer is lost.
            return Self::Lost;
        };
        let code = db.code().code();
        let reason = || format!("{}: {}", code, db.message());
        match code {
            _ if matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) => {
                match &code[..2] {
                    // Wrong role or password, no such database: asking again does not help.
                    "28" | "3D" | "42" => Self::Refused(reason()),
                    _ => Self::Ended(reason()),
                }
            }
            "57014" => Self::Cancelled,
            // Serialisation failure, deadlock, lock not available.
            "40001" | "40P01" | "55P03" => Self::Retryable(reason()),
            "0A000" if db.routine() == Some("RevalidateCachedQuery") => Self::Stale,
            // Out of memory, disk or slots; shutting down.
            _ if code.starts_with("53") || code.starts_with("57P") => Self::Retryable(reason()),
            _ => Self::Sql(SqlError {
                code: code.to_owned(),
                message: db.message().to_owned(),
                constraint: db.constraint().map(str::to_owned),
            }),
        }
    }
}
