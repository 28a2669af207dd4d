//! What can go wrong between a statement and its answer, and the one table that judges the server's errors by SQLSTATE:
//! whose fault an error is, whether the same statement may succeed later, and whether its connection can be used again.
//! Both drivers and every caller in the host use this table.
//!
//! What an error means to the caller is decided later: the same loss is `retryable` before COMMIT and `unknown-outcome`
//! after it.

use sqlx::postgres::{PgDatabaseError, PgSeverity};
use tokio_postgres::error::Severity;

use crate::contract::postgres::{Error, SqlError};
use crate::error::Blame;

/// What an error of the server says about the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The same statement with the same data fails again.
    Permanent,
    /// Other work was in the way. The transaction may succeed when it runs again. A batch is split.
    Conflict,
    /// The server cannot do it now, whatever the statement is. The caller may try again later. A batch is not split.
    Unavailable,
    /// The statement was cancelled, by its deadline or by an administrator.
    Cancelled,
    /// Nobody knows whether the statement, or its COMMIT, was done.
    Unknown,
}

/// The judgement of one SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// `Guest` is the author of the statement. For a statement of the host that is the host ([`of_sqlx`] says so).
    pub blame: Blame,
    pub effect: Effect,
    /// False: the connection is closed, because the next statement on it would fail too or its state is in doubt.
    pub keeps_connection: bool,
}

const fn judged(blame: Blame, effect: Effect, keeps_connection: bool) -> Judgement {
    Judgement { blame, effect, keeps_connection }
}

/// The statement or its data are wrong.
const STATEMENT: Judgement = judged(Blame::Guest, Effect::Permanent, true);
const CONFLICT: Judgement = judged(Blame::Backend, Effect::Conflict, true);
/// The server lacks something now. Another connection would not help.
const LACKING: Judgement = judged(Blame::Backend, Effect::Unavailable, true);
/// This session, or the server behind it, is of no use any more. A new connection may reach a better one.
const AWAY: Judgement = judged(Blame::Backend, Effect::Unavailable, false);
const UNKNOWN: Judgement = judged(Blame::Backend, Effect::Unknown, false);
const CANCELLED: Judgement = judged(Blame::Host, Effect::Cancelled, true);
/// The server's data or code are broken for this statement. To try again does not mend them.
const BROKEN: Judgement = judged(Blame::Backend, Effect::Permanent, false);

/// By class (two characters) and, where a code differs from its class, by code (five characters). In the order of
/// appendix A of Postgres' manual. A class that is not here is one that a function raised: see [`judge`].
const TABLE: &[(&str, Judgement)] = &[
    // Success, warning, no data, statement not complete: errors only where a function raises them.
    ("00", STATEMENT),
    ("01", STATEMENT),
    ("02", STATEMENT),
    ("03", STATEMENT),
    // Connection exception. A pooler also answers so when it lost its server, after it passed the statement on.
    ("08", UNKNOWN),
    // The server, or the foreign server, refused the connection: nothing was sent on it.
    ("08001", AWAY),
    ("08004", AWAY),
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
    // A standby, or a primary that an operator or a provider made read-only. A handler cannot cause it: it cannot SET.
    ("25006", AWAY),
    // The server ended a transaction that was idle or open for too long, and the session with it.
    ("25P03", AWAY),
    ("25P04", AWAY),
    // The prepared statements of this session are gone: somebody discarded them, or a pooler changed the session.
    ("26", AWAY),
    ("27", STATEMENT),
    // The role may not log in, or its password is another. Only an operator can change that, and then it works again.
    ("28", AWAY),
    ("2B", STATEMENT),
    ("2D", STATEMENT),
    ("2F", STATEMENT),
    ("34", STATEMENT),
    ("38", STATEMENT),
    ("39", STATEMENT),
    ("3B", STATEMENT),
    // The database does not exist: it was dropped, or is being restored.
    ("3D", AWAY),
    ("3F", STATEMENT),
    ("40", CONFLICT),
    // A constraint was violated at COMMIT.
    ("40002", STATEMENT),
    ("40003", UNKNOWN),
    ("42", STATEMENT),
    // Two drivers believe that they own this session (a pooler in transaction mode).
    ("42P05", AWAY),
    ("44", STATEMENT),
    // No memory, no disk, no connection left.
    ("53", LACKING),
    // One statement may need all the memory, so a batch is split.
    ("53200", CONFLICT),
    ("53300", AWAY),
    // The statement passed a bound that an operator set for it: `temp_file_limit`.
    ("53400", STATEMENT),
    ("54", STATEMENT),
    ("55", STATEMENT),
    ("55006", CONFLICT),
    ("55P03", CONFLICT),
    // An operator intervened: shutdown, crash of another session, recovery, database dropped, session idle for too long.
    ("57", AWAY),
    ("57014", CANCELLED),
    // The server's files or its operating system failed.
    ("58", AWAY),
    ("72", CONFLICT),
    ("F0", AWAY),
    ("HV", STATEMENT),
    ("HV00N", AWAY),
    ("P0", STATEMENT),
    ("XX", BROKEN),
];

/// Judges an error by its SQLSTATE. `fatal` says that the server ended the session with it.
///
/// A code of an unknown class is one that a function of the application raised: its statement failed.
pub(super) fn judge(code: &str, fatal: bool) -> Judgement {
    let find =
        |key: Option<&str>| TABLE.iter().find(|(of, _)| Some(*of) == key).map(|(_, judgement)| *judgement);
    let judgement = find(Some(code)).or_else(|| find(code.get(..2))).unwrap_or(STATEMENT);
    match judgement.effect {
        Effect::Unknown => judgement,
        // The session is gone, and the statement was not done. What the code blames does not matter to the caller.
        _ if fatal => AWAY,
        _ => judgement,
    }
}

/// The same for the host's own statements.
pub fn blame_of_sqlx(error: &sqlx::Error) -> Blame {
    of_sqlx(error).blame
}

/// A statement of the host met a server that does not write.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("25006")
}

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
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => AWAY,
        // The host's statement and its code do not fit each other.
        _ => of_host(STATEMENT),
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    /// The server refused the statement.
    Sql(SqlError),
    /// Other work was in the way of the transaction: serialisation, deadlock, memory.
    Conflict(SqlError),
    /// The server cannot do it now, or ended the session and said so. An open transaction was rolled back.
    Unavailable(SqlError),
    /// Cancelled, by us or by an administrator.
    Cancelled,
    /// No answer, or an answer that does not tell what was done.
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
    /// A login that the server or a pooler refused. Nothing was sent, so its outcome is known.
    pub fn of_login(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(refused) => Self::Unavailable(SqlError {
                code: refused.code().code().to_owned(),
                message: refused.message().to_owned(),
                constraint: None,
            }),
            None => Self::Lost,
        }
    }

    /// A connection that cannot write is worth nothing to a handler.
    pub fn read_only() -> Self {
        Self::Unavailable(SqlError {
            code: "25006".to_owned(),
            message: "the server is a standby or was made read-only".to_owned(),
            constraint: None,
        })
    }

    /// Nothing of the answer is still to come, and the connection lives.
    pub fn ends_the_answer(&self) -> bool {
        match self {
            Self::Sql(_) | Self::Conflict(_) | Self::Unavailable(_) => true,
            Self::Cancelled | Self::Stale | Self::Refused(_) => true,
            Self::Lost | Self::TooLarge(_) | Self::Undecodable(_) => false,
        }
    }

    /// The connection must serve nobody after this.
    pub fn spoils_the_connection(&self) -> bool {
        match self {
            Self::Sql(error) | Self::Conflict(error) => !judge(&error.code, false).keeps_connection,
            // Another effect in the table means that the error was fatal.
            Self::Unavailable(error) => judge(&error.code, false) != LACKING,
            Self::Lost => true,
            Self::Cancelled | Self::Stale | Self::Refused(_) | Self::TooLarge(_) | Self::Undecodable(_) => {
                false
            }
        }
    }

    /// The server does not write: every connection that was opened before is of no use either.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Unavailable(error) if error.code == "25006")
    }

    /// For a statement that cannot have changed anything: it reads, or its transaction is open.
    pub fn uncommitted(self) -> Error {
        match self {
            Self::Sql(error) => Error::Sql(error),
            Self::Conflict(error) | Self::Unavailable(error) => Error::Retryable(said(&error)),
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

/// For logs and operators: the code and the server's sentence.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sql(error) | Self::Conflict(error) | Self::Unavailable(error) => f.write_str(&said(error)),
            Self::Cancelled => f.write_str("the statement was cancelled"),
            Self::Lost => f.write_str("the connection to Postgres was lost"),
            Self::Stale => f.write_str("the tables of a prepared statement changed"),
            Self::Refused(reason) | Self::Undecodable(reason) => f.write_str(reason),
            Self::TooLarge(bytes) => write!(f, "the answer has more than {bytes} bytes"),
        }
    }
}

fn said(error: &SqlError) -> String {
    format!("{}: {}", error.code, error.message)
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // Closed, reset, cut by our own guard, or not understood: each time the answer is lost.
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
