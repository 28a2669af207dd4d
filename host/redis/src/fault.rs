//! The meaning of a server's error: whose fault it is, whether the same command can succeed later, and
//! whether the node should stay connected to this server. There is one table, so that no other code
//! interprets a code of Redis.

use redis::ServerError;

/// The meaning of a code for the server and the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// This server cannot be the writable primary, or not for a while. The node connects again, perhaps to
    /// another server. The command fails with `unavailable`.
    Server,
    /// The right server refuses for now. The node stays connected and looks for a better server. The command
    /// fails with `unavailable`.
    Refusal,
    /// The memory of Redis is full. Reads and deletions still work, so the command fails with `failed` and
    /// its caller decides.
    Full,
    /// A server of a cluster answers that the key is, or will be, on another server. The next attempt finds
    /// it.
    Moved,
    /// The command is wrong, and another attempt fails too. The command fails with `failed`.
    Caller,
}

/// The code, its fault, and what readiness reports about a server that answers with it.
const CODES: &[(&str, Fault, &str)] = &[
    ("ASK", Fault::Moved, "slots of the cluster are moving"),
    ("BUSY", Fault::Refusal, "a script runs for too long and blocks all other commands"),
    ("CLUSTERDOWN", Fault::Server, "the cluster does not serve all slots"),
    ("DENIED", Fault::Server, "the server is in protected mode and refuses this node"),
    ("IOERR", Fault::Refusal, "the server could not read or write its data"),
    ("LOADING", Fault::Server, "the server loads its data set"),
    ("MASTERDOWN", Fault::Server, "the server is a replica that lost its primary"),
    ("MISCONF", Fault::Refusal, "the server cannot save its data to disk and refuses writes"),
    ("MOVED", Fault::Moved, "slots of the cluster have moved"),
    ("NOAUTH", Fault::Server, "the server requires a password, but `redis_url` has none"),
    ("NOPERM", Fault::Refusal, "the user of `redis_url` lacks a permission that the node needs"),
    ("NOREPLICAS", Fault::Refusal, "too few replicas are connected, so the server refuses writes"),
    ("OOM", Fault::Full, "the memory of the server is full and it refuses writes"),
    ("READONLY", Fault::Server, "the server is a replica and refuses writes"),
    ("TRYAGAIN", Fault::Moved, "slots of the cluster are moving"),
    ("WRONGPASS", Fault::Server, "the server refuses the password of `redis_url`"),
];

impl Fault {
    pub(super) fn of(error: &ServerError) -> Self {
        row(code(error)).map_or(Self::Caller, |row| row.1)
    }

    /// The fault of a code that the driver reports.
    pub(super) fn of_code(code: &str) -> Self {
        row(code).map_or(Self::Caller, |row| row.1)
    }

    /// True when the command was not executed, for a reason that passes.
    pub(super) fn is_unavailable(self) -> bool {
        match self {
            Self::Server | Self::Refusal | Self::Moved => true,
            Self::Full | Self::Caller => false,
        }
    }
}

/// The meaning of the error for operators: a sentence and the code.
pub(super) fn explained(code: &str) -> String {
    match row(code) {
        Some((code, _, meaning)) => format!("{meaning} ({code})"),
        None => format!("the server answers {code}"),
    }
}

/// The code of an error. Up to version 6, the server wraps the code of what stopped a script: `ERR Error
/// running script …: -READONLY …`.
pub(super) fn code(error: &ServerError) -> &str {
    if error.code() != "ERR" {
        return error.code();
    }
    let within = error.details().filter(|details| details.contains("user_script"));
    let known = |code: &&str| within.is_some_and(|details| details.contains(&format!(" -{code} ")));
    CODES.iter().map(|(code, ..)| *code).find(known).unwrap_or("ERR")
}

fn row(code: &str) -> Option<&'static (&'static str, Fault, &'static str)> {
    CODES.iter().find(|(known, ..)| *known == code)
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn error(text: &str) -> ServerError {
        match redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// The texts of Redis 7.0 and 6.2.
    #[test]
    fn every_code_has_its_fault() {
        for (text, fault) in [
            ("ASK 3999 127.0.0.1:6381", Fault::Moved),
            (
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
                Fault::Refusal,
            ),
            ("BUSYGROUP Consumer Group name already exists", Fault::Caller),
            ("BUSYKEY Target key name already exists.", Fault::Caller),
            ("CLUSTERDOWN The cluster is down", Fault::Server),
            ("CROSSSLOT Keys in request don't hash to the same slot", Fault::Caller),
            ("DENIED Redis is running in protected mode", Fault::Server),
            ("ERR wrong number of arguments for 'get' command", Fault::Caller),
            ("ERR unknown command 'FOO'", Fault::Caller),
            ("EXECABORT Transaction discarded because of previous errors.", Fault::Caller),
            ("INPROG Failover already in progress.", Fault::Caller),
            ("IOERR error or timeout reading to target instance", Fault::Refusal),
            ("LOADING Redis is loading the dataset in memory", Fault::Server),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                Fault::Server,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to",
                Fault::Refusal,
            ),
            ("MOVED 3999 127.0.0.1:6381", Fault::Moved),
            ("NOAUTH Authentication required.", Fault::Server),
            ("NOGROUP No such key 'x' or consumer group 'y'", Fault::Caller),
            ("NOPERM this user has no permissions to run the 'set' command", Fault::Refusal),
            ("NOREPLICAS Not enough good replicas to write.", Fault::Refusal),
            ("NOSCRIPT No matching script. Please use EVAL.", Fault::Caller),
            ("NOTBUSY No scripts in execution right now.", Fault::Caller),
            ("OOM command not allowed when used memory > 'maxmemory'.", Fault::Full),
            ("READONLY You can't write against a read only replica.", Fault::Server),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Fault::Moved),
            ("UNKILLABLE Sorry the script already executed write commands", Fault::Caller),
            ("WRONGPASS invalid username-password pair or user is disabled.", Fault::Server),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Fault::Caller),
            ("SOMETHING that a later version says", Fault::Caller),
            (
                "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write",
                Fault::Server,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:1: user_script:1: my own words",
                Fault::Caller,
            ),
            (
                "READONLY You can't write against a read only replica. script: 3f, on @user_script:1.",
                Fault::Server,
            ),
        ] {
            let error = error(text);
            assert_eq!(Fault::of(&error), fault, "{text}");
        }
        assert!(CODES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn only_what_passes_is_unavailable() {
        for (fault, expected) in [
            (Fault::Server, true),
            (Fault::Refusal, true),
            (Fault::Moved, true),
            (Fault::Full, false),
            (Fault::Caller, false),
        ] {
            assert_eq!(fault.is_unavailable(), expected, "{fault:?}");
        }
        assert_eq!(explained("OOM"), "the memory of the server is full and it refuses writes (OOM)");
        assert_eq!(explained("NEW"), "the server answers NEW");
    }
}
