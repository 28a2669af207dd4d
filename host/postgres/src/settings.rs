//! The settings of each session with Postgres, each with its reason: the product must not depend on the
//! defaults of the server, the database or the role.
//!
//! They are set by statements after the login, not as start-up options: PgBouncer refuses most options.
//!
//! Left to the operator on purpose: `default_transaction_read_only` (operators and providers make a database
//! read-only with it, for instance when the disk is nearly full), tablespaces, costs and memory of the
//! planner, logging. `synchronous_commit = off` is replaced by `on` ([`DURABLE`]), other values of it are the
//! operator's.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use switchboard_core::limits;

/// The purpose of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A handler's statements, and the reading of the outbox: the path of a message.
    Handler,
    /// The host's own tables, as the owner of the database.
    Host,
    /// Migrations, as the owner of the database.
    Migration,
}

use Purpose::{Handler, Host, Migration};

const ALL: &[Purpose] = &[Handler, Host, Migration];
const SERVING: &[Purpose] = &[Handler, Host];

struct Setting {
    of: &'static [Purpose],
    name: &'static str,
    value: Value,
}

enum Value {
    Text(&'static str),
    Time(Duration),
}

const fn set(of: &'static [Purpose], name: &'static str, text: &'static str) -> Setting {
    Setting { of, name, value: Value::Text(text) }
}

const fn set_time(of: &'static [Purpose], name: &'static str, time: Duration) -> Setting {
    Setting { of, name, value: Value::Time(time) }
}

/// Only settings that every role may set on every supported version.
const SETTINGS: &[Setting] = &[
    // ---- what a statement means ----
    // A backslash in a literal is a backslash. Off, a `like` pattern of a migration matched other functions.
    set(ALL, "standard_conforming_strings", "on"),
    // Locks are taken in one statement, and the next one must see what the last holder committed. Under
    // `repeatable read` the host's own transactions fail with 40001.
    set(ALL, "default_transaction_isolation", "read committed"),
    // Names without a schema are those of `public`, also where a schema has the name of the role.
    set(ALL, "search_path", "public"),
    // The element NULL of an array literal is a null. Batches (`collect`) and cursors are sent as array
    // literals.
    set(ALL, "array_nulls", "on"),
    // `x = null` is null, never `x is null`.
    set(ALL, "transform_null_equals", "off"),
    // A table with row security is filtered. Off, every statement on it fails.
    set(ALL, "row_security", "on"),
    // An index scan of a search returns every match. Other values cut it at random.
    set(ALL, "gin_fuzzy_search_limit", "0"),
    // Names of partitions are built by `format('%I')` and compared with names.
    set(ALL, "quote_all_identifiers", "off"),
    // ---- what text looks like, on the way in and out ----
    // Both drivers read UTF-8.
    set(ALL, "client_encoding", "UTF8"),
    // All times are UTC, in RFC 3339. A date without a zone is one of UTC.
    set(ALL, "timezone", "UTC"),
    set(ALL, "datestyle", "ISO, MDY"),
    set(ALL, "intervalstyle", "postgres"),
    // A float survives the way to text and back.
    set(ALL, "extra_float_digits", "1"),
    set(ALL, "bytea_output", "hex"),
    // `to_char` writes the same digits and names on every server.
    set(ALL, "lc_numeric", "C"),
    set(ALL, "lc_monetary", "C"),
    set(ALL, "lc_time", "C"),
    // ---- time ----
    // Pools keep idle connections. If the server ended them, the next call would fail.
    set(ALL, "idle_session_timeout", "0"),
    // A wait for a lock is bounded by the call's deadline and by `statement_timeout`. A shorter bound of the
    // server would make waiting for a row that another call has locked an error.
    set(ALL, "lock_timeout", "0"),
    // A statement does not outlive its call, also when this process is gone and cannot cancel it.
    set_time(&[Handler], "statement_timeout", limits::POSTGRES_STATEMENT_MAX),
    // Partitions are made and dropped by one statement, which may take long.
    set_time(&[Host], "statement_timeout", limits::POSTGRES_HOST_STATEMENT_MAX),
    // An index of a large table takes hours.
    set(&[Migration], "statement_timeout", "0"),
    // An open transaction of a node that is cut off holds locks: the one that switches releases, or
    // one of a handler.
    set_time(SERVING, "idle_in_transaction_session_timeout", limits::POSTGRES_IDLE_TRANSACTION_MAX),
    set(&[Migration], "idle_in_transaction_session_timeout", "0"),
    // Within this time the server notices that the client of a running statement is gone.
    set_time(SERVING, "client_connection_check_interval", limits::POSTGRES_CLIENT_CHECK_EVERY),
    // ---- plans ----
    // A prepared statement is planned once. By default, Postgres plans the send statement anew for every
    // small batch: 2 ms instead of 0.7 ms of its processor time. The plan must stay right when the tables
    // grow: it uses an index wherever there is one, and spends no time on compiling a plan of milliseconds.
    set(&[Handler], "plan_cache_mode", "force_generic_plan"),
    set(&[Handler], "enable_seqscan", "off"),
    set(&[Handler], "jit", "off"),
    // ---- events ----
    // The server reports the events that a statement inserts, so that this node need not read them.
    set(&[Handler], "switchboard.report_events", "on"),
    // ---- logins ----
    // Works with `md5` and `scram-sha-256` in pg_hba.conf; an md5 password works only with the first.
    set(&[Migration], "password_encryption", "scram-sha-256"),
];

/// Sent where `synchronous_commit` is off: an acknowledgement follows the COMMIT, and what is acknowledged
/// must survive a crash of the server.
pub(super) const DURABLE: &str = "set synchronous_commit = on";

/// The statements for a session, to be sent as one simple query.
pub(super) fn statements(purpose: Purpose) -> &'static str {
    static HANDLER: LazyLock<String> = LazyLock::new(|| written(Handler));
    static HOST: LazyLock<String> = LazyLock::new(|| written(Host));
    static MIGRATION: LazyLock<String> = LazyLock::new(|| written(Migration));
    match purpose {
        Handler => &HANDLER,
        Host => &HOST,
        Migration => &MIGRATION,
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Time(time) => write!(f, "{}ms", time.as_millis()),
        }
    }
}

fn written(purpose: Purpose) -> String {
    let of = SETTINGS.iter().filter(|setting| setting.of.contains(&purpose));
    // `set x = a, b` is a list; a quoted value is one value for every setting here.
    of.map(|setting| format!("set {} = '{}'; ", setting.name, setting.value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_sets_a_setting_once() {
        for purpose in ALL {
            let names: Vec<_> =
                SETTINGS.iter().filter(|set| set.of.contains(purpose)).map(|set| set.name).collect();
            let mut once = names.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(names.len(), once.len(), "{purpose:?}");
        }
        for setting in SETTINGS {
            let value = setting.value.to_string();
            assert!(!value.contains(['\'', '\\']), "{} is not quoted", setting.name);
        }
        assert!(statements(Migration).contains("set statement_timeout = '0'; "));
        assert!(statements(Handler).contains("set statement_timeout = '65000ms'; "));
        assert!(!statements(Migration).contains("enable_seqscan"));
    }
}
