//! The failures between a statement and its answer, and the one table that judges the server's errors by
//! SQLSTATE: whose fault an error is, whether the same statement may succeed later, and whether its
//! connection can be used again. Both drivers and every caller in the host use this table.
//!
//! The caller decides later what a failure means to it: the same lost connection is `retryable` before COMMIT
//! and `unknown-outcome` after it.

use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokio_postgres::error::Severity;

use switchboard_contract::postgres::{Error, SqlError};
use switchboard_core::Blame;

/// The meaning of a server's error for the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The same statement with the same data fails again.
    Permanent,
    /// Other work conflicted with the transaction, which may succeed when it runs again. A batch is split.
    Conflict,
    /// The server cannot run any statement of this kind now. The caller may try again later. A batch is not
    /// split.
    Unavailable,
    /// The deadline or an administrator cancelled the statement.
    Cancelled,
    /// It is unknown whether the statement, or its COMMIT, was executed.
    Unknown,
}

/// The judgement of one SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// `Guest` means the author of the statement. For a statement of the host that is the host ([`of_sqlx`]
    /// replaces it).
    pub blame: Blame,
    pub effect: Effect,
    /// When false, the connection is closed: its next statement would fail too, or its state is in doubt.
    pub keeps_connection: bool,
}

const fn judged(blame: Blame, effect: Effect, keeps_connection: bool) -> Judgement {
    Judgement { blame, effect, keeps_connection }
}

/// The statement or its data are wrong.
const STATEMENT: Judgement = judged(Blame::Guest, Effect::Permanent, true);
const CONFLICT: Judgement = judged(Blame::Backend, Effect::Conflict, true);
/// The server lacks memory, disk space or another resource. Another connection would not help.
const OUT_OF_RESOURCES: Judgement = judged(Blame::Backend, Effect::Unavailable, true);
/// The session, or the server behind it, cannot be used any more. A new connection may reach a working
/// server.
const SESSION_GONE: Judgement = judged(Blame::Backend, Effect::Unavailable, false);
const UNKNOWN: Judgement = judged(Blame::Backend, Effect::Unknown, false);
const CANCELLED: Judgement = judged(Blame::Host, Effect::Cancelled, true);
/// The server's data or code are broken for this statement. Trying again does not help.
const BROKEN: Judgement = judged(Blame::Backend, Effect::Permanent, false);

/// Judgements by class (two characters) and, where a code differs from its class, by code (five characters),
/// in the order of appendix A of the Postgres manual. [`judge`] says what happens to a class that is missing
/// here.
const TABLE: &[(&str, Judgement)] = &[
    // Success, warning, no data, statement not complete: these are errors only when a function raises them.
    ("00", STATEMENT),
    ("01", STATEMENT),
    ("02", STATEMENT),
    ("03", STATEMENT),
    // Connection exception. A pooler also answers with it when it lost its server after it passed the
    // statement on.
    ("08", UNKNOWN),
    // The server, or the foreign server, refused the connection: no statement was sent on it.
    ("08001", SESSION_GONE),
    ("08004", SESSION_GONE),
    ("09", STATEMENT),
    ("0A", STATEMENT),
    ("0B", STATEMENT),
    ("0F", STATEMENT),
    ("0L", STATEMENT),
    ("0P", STATEMENT),
    ("0Z", STATEMENT),
    ("10", STATEMENT),
    ("20", STATEMENT),
    ("21", STATEMENT),
    ("22", STATEMENT),
    ("23", STATEMENT),
    ("24", STATEMENT),
    ("25", STATEMENT),
    // A standby, or a primary that an operator or a provider made read-only. A handler cannot cause this
    // error, because it cannot use SET.
    ("25006", SESSION_GONE),
    // The server ended a transaction that was idle or open for too long, and the session with it.
    ("25P03", SESSION_GONE),
    ("25P04", SESSION_GONE),
    // The prepared statements of this session are gone: somebody discarded them, or a pooler changed the
    // session.
    ("26", SESSION_GONE),
    ("27", STATEMENT),
    // The role may not log in, or its password is wrong. Only an operator can correct that, and then it works
    // again.
    ("28", SESSION_GONE),
    ("2B", STATEMENT),
    ("2D", STATEMENT),
    ("2F", STATEMENT),
    ("34", STATEMENT),
    ("38", STATEMENT),
    ("39", STATEMENT),
    ("3B", STATEMENT),
    // The database does not exist: it was dropped, or is being restored.
    ("3D", SESSION_GONE),
    ("3F", STATEMENT),
    ("40", CONFLICT),
    // A constraint was violated at COMMIT.
    ("40002", STATEMENT),
    ("40003", UNKNOWN),
    ("42", STATEMENT),
    // Two drivers use this session at the same time (a pooler in transaction mode).
    ("42P05", SESSION_GONE),
    ("44", STATEMENT),
    // No memory, no disk, no connection left.
    ("53", OUT_OF_RESOURCES),
    // One statement may need all the memory, so a batch is split.
    ("53200", CONFLICT),
    ("53300", SESSION_GONE),
    // The statement exceeded a bound that an operator set: `temp_file_limit`.
    ("53400", STATEMENT),
    ("54", STATEMENT),
    ("55", STATEMENT),
    ("55006", CONFLICT),
    ("55P03", CONFLICT),
    // An operator intervened: shutdown, recovery, a dropped database, a session that was idle for too long;
    // or another session crashed.
    ("57", SESSION_GONE),
    ("57014", CANCELLED),
    // The server's files or its operating system failed.
    ("58", SESSION_GONE),
    ("72", CONFLICT),
    ("F0", SESSION_GONE),
    ("HV", STATEMENT),
    ("HV00N", SESSION_GONE),
    ("P0", STATEMENT),
    ("XX", BROKEN),
];

/// Judges an error by its SQLSTATE. `fatal` means that the server ended the session with the error.
///
/// A code of an unknown class comes from a function of the application: its statement failed.
pub(super) fn judge(code: &str, fatal: bool) -> Judgement {
    let find =
        |key: Option<&str>| TABLE.iter().find(|(of, _)| Some(*of) == key).map(|(_, judgement)| *judgement);
    let judgement = find(Some(code)).or_else(|| find(code.get(..2))).unwrap_or(STATEMENT);
    match judgement.effect {
        Effect::Unknown => judgement,
        // The session is gone, and the statement was not executed. The caller need not know which code caused
        // it.
        _ if fatal => SESSION_GONE,
        _ => judgement,
    }
}

/// Judges an error of the host's own statements.
pub(super) fn of_sqlx(error: &sqlx::Error) -> Judgement {
    let of_host = |judgement: Judgement| match judgement.blame {
        Blame::Guest => Judgement { blame: Blame::Host, ..judgement },
        _ => judgement,
    };
    match error {
        sqlx::Error::Database(error) => {
            let severity = error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
            let fatal = matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic));
            of_host(judge(error.code().as_deref().unwrap_or_default(), fatal))
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            UNKNOWN
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => SESSION_GONE,
        // The host's statement and the host's code do not match.
        _ => of_host(STATEMENT),
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    /// The server refused the statement.
    Sql(SqlError),
    /// Other work conflicted with the transaction: serialisation, deadlock, memory.
    Conflict(SqlError),
    /// The server cannot run the statement now, or it ended the session with an error. An open transaction
    /// was rolled back.
    Unavailable(SqlError),
    /// The host or an administrator cancelled the statement.
    Cancelled,
    /// No answer came, or an answer that does not say what was executed.
    Lost,
    /// The tables of a prepared statement changed. The next attempt prepares it again.
    Stale,
    /// This host refused the statement before it sent anything.
    Refused(String),
    /// The answer is larger than this many bytes. The rest was not read.
    TooLarge(u64),
    /// The answer holds a value that the contract cannot carry. The rest was not read.
    Undecodable(String),
}

impl Failure {
    /// A login that the server or a pooler refused. No statement was sent, so its outcome is known.
    pub(crate) fn of_login(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refused) => Self::Unavailable(SqlError {
                code: refused.code().code().to_owned(),
                message: refused.message().to_owned(),
                constraint: None,
            }),
            None => Self::Lost,
        }
    }

    /// The failure of a connection that cannot write. A handler cannot use such a connection.
    pub(crate) fn read_only() -> Self {
        Self::Unavailable(SqlError {
            code: "25006".to_owned(),
            message: "the server is a standby or was made read-only".to_owned(),
            constraint: None,
        })
    }

    /// True when the whole answer was read and the connection still works.
    pub(crate) fn ends_the_answer(&self) -> bool {
        match self {
            Self::Sql(_) | Self::Conflict(_) | Self::Unavailable(_) => true,
            Self::Cancelled | Self::Stale | Self::Refused(_) => true,
            Self::Lost | Self::TooLarge(_) | Self::Undecodable(_) => false,
        }
    }

    /// True when no call may use the connection after this failure.
    pub(crate) fn makes_connection_unusable(&self) -> bool {
        match self {
            Self::Sql(error) | Self::Conflict(error) => !judge(&error.code, false).keeps_connection,
            // A different judgement in the table means that the error was fatal.
            Self::Unavailable(error) => judge(&error.code, false) != OUT_OF_RESOURCES,
            Self::Lost => true,
            Self::Cancelled | Self::Stale | Self::Refused(_) | Self::TooLarge(_) | Self::Undecodable(_) => {
                false
            }
        }
    }

    /// True when the server is read-only. Connections that were opened to it earlier cannot be used either.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::Unavailable(error) if error.code == "25006")
    }

    /// True when the server refused a login because of its password.
    pub(crate) fn is_wrong_password(&self) -> bool {
        matches!(self, Self::Unavailable(error) if error.code == "28P01")
    }

    /// The error for a statement that cannot have changed anything: it only reads, or its transaction is
    /// still open.
    pub(crate) fn uncommitted(self) -> Error {
        match self {
            Self::Sql(error) => Error::Sql(error),
            Self::Conflict(error) | Self::Unavailable(error) => Error::Retryable(code_and_message(&error)),
            Self::Cancelled => Error::Deadline,
            Self::Lost => Error::Retryable("the connection to Postgres was lost".to_owned()),
            Self::Stale => Error::Retryable("the tables of a prepared statement changed".to_owned()),
            Self::Refused(reason) | Self::Undecodable(reason) => Error::Refused(reason),
            Self::TooLarge(bytes) => Error::TooLarge(bytes),
        }
    }

    /// The error for COMMIT, and for a statement that may write and is its own transaction.
    pub(crate) fn committing(self) -> Error {
        match self {
            Self::Lost => Error::UnknownOutcome,
            other => other.uncommitted(),
        }
    }
}

/// For logs and operators: the SQLSTATE and the server's message.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sql(error) | Self::Conflict(error) | Self::Unavailable(error) => {
                f.write_str(&code_and_message(error))
            }
            Self::Cancelled => f.write_str("the statement was cancelled"),
            Self::Lost => f.write_str("the connection to Postgres was lost"),
            Self::Stale => f.write_str("the tables of a prepared statement changed"),
            Self::Refused(reason) | Self::Undecodable(reason) => f.write_str(reason),
            Self::TooLarge(bytes) => write!(f, "the answer has more than {bytes} bytes"),
        }
    }
}

fn code_and_message(error: &SqlError) -> String {
    format!("{}: {}", error.code, error.message)
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // The connection was closed, reset or cut by our own guard, or the answer was not understood. The
            // answer is lost each time.
            return Self::Lost;
        };
        let code = db.code().code();
        let fatal = matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
        if code == "0A000" && db.routine() == Some("RevalidateCachedQuery") {
            return Self::Stale;
        }
        let error = || SqlError {
            code: code.to_owned(),
            message: db.message().to_owned(),
            constraint: db.constraint().map(str::to_owned),
        };
        match judge(code, fatal).effect {
            Effect::Permanent => Self::Sql(error()),
            Effect::Conflict => Self::Conflict(error()),
            Effect::Unavailable => Self::Unavailable(error()),
            Effect::Cancelled => Self::Cancelled,
            Effect::Unknown => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests;
