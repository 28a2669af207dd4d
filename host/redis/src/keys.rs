//! The commands that a handler may use, and which of their words are keys. Pure. These commands are not in
//! the table: commands that walk over keys (`KEYS`, `SCAN`), block (`BLPOP`), administer (`FLUSHALL`,
//! `CONFIG`), run code (`EVAL`), name keys by pattern (`SORT … BY`), belong to the bus (`PUBLISH`), or take
//! memory that their caller does not send (`COPY`, `…STORE`, `APPEND`). [`super::bounds`] bounds the
//! remaining commands of the last kind.

use switchboard_core::limits;

/// Which words of a command are keys. The command's name is word 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Keyed {
    /// `TIME`
    No,
    /// `GET key …`
    First,
    /// `LMOVE key key …`
    FirstTwo,
    /// `DEL key …`: all words.
    All,
    /// `MSET key value …`: every other word.
    Pairs,
    /// `ZUNION n key…`
    Counted,
    /// `XREAD … STREAMS key… id…`
    Streams,
}

/// Sorted by name, for a binary search.
const COMMANDS: &[(&str, Keyed)] = &[
    ("BITCOUNT", Keyed::First),
    ("BITPOS", Keyed::First),
    ("DECR", Keyed::First),
    ("DECRBY", Keyed::First),
    ("DEL", Keyed::All),
    ("EXISTS", Keyed::All),
    ("EXPIRE", Keyed::First),
    ("EXPIREAT", Keyed::First),
    ("EXPIRETIME", Keyed::First),
    ("GEOADD", Keyed::First),
    ("GEODIST", Keyed::First),
    ("GEOPOS", Keyed::First),
    ("GEOSEARCH", Keyed::First),
    ("GET", Keyed::First),
    ("GETBIT", Keyed::First),
    ("GETDEL", Keyed::First),
    ("GETEX", Keyed::First),
    ("GETRANGE", Keyed::First),
    ("GETSET", Keyed::First),
    ("HDEL", Keyed::First),
    ("HEXISTS", Keyed::First),
    ("HGET", Keyed::First),
    ("HGETALL", Keyed::First),
    ("HINCRBY", Keyed::First),
    ("HINCRBYFLOAT", Keyed::First),
    ("HKEYS", Keyed::First),
    ("HLEN", Keyed::First),
    ("HMGET", Keyed::First),
    ("HMSET", Keyed::First),
    ("HRANDFIELD", Keyed::First),
    ("HSCAN", Keyed::First),
    ("HSET", Keyed::First),
    ("HSETNX", Keyed::First),
    ("HSTRLEN", Keyed::First),
    ("HVALS", Keyed::First),
    ("INCR", Keyed::First),
    ("INCRBY", Keyed::First),
    ("INCRBYFLOAT", Keyed::First),
    ("LINDEX", Keyed::First),
    ("LINSERT", Keyed::First),
    ("LLEN", Keyed::First),
    ("LMOVE", Keyed::FirstTwo),
    ("LMPOP", Keyed::Counted),
    ("LPOP", Keyed::First),
    ("LPOS", Keyed::First),
    ("LPUSH", Keyed::First),
    ("LPUSHX", Keyed::First),
    ("LRANGE", Keyed::First),
    ("LREM", Keyed::First),
    ("LSET", Keyed::First),
    ("LTRIM", Keyed::First),
    ("MGET", Keyed::All),
    ("MSET", Keyed::Pairs),
    ("MSETNX", Keyed::Pairs),
    ("PERSIST", Keyed::First),
    ("PEXPIRE", Keyed::First),
    ("PEXPIREAT", Keyed::First),
    ("PEXPIRETIME", Keyed::First),
    ("PFADD", Keyed::First),
    ("PFCOUNT", Keyed::All),
    ("PFMERGE", Keyed::All),
    ("PING", Keyed::No),
    ("PSETEX", Keyed::First),
    ("PTTL", Keyed::First),
    ("RENAME", Keyed::FirstTwo),
    ("RENAMENX", Keyed::FirstTwo),
    ("RPOP", Keyed::First),
    ("RPOPLPUSH", Keyed::FirstTwo),
    ("RPUSH", Keyed::First),
    ("RPUSHX", Keyed::First),
    ("SADD", Keyed::First),
    ("SCARD", Keyed::First),
    ("SDIFF", Keyed::All),
    ("SET", Keyed::First),
    ("SETBIT", Keyed::First),
    ("SETEX", Keyed::First),
    ("SETNX", Keyed::First),
    ("SETRANGE", Keyed::First),
    ("SINTER", Keyed::All),
    ("SINTERCARD", Keyed::Counted),
    ("SISMEMBER", Keyed::First),
    ("SMEMBERS", Keyed::First),
    ("SMISMEMBER", Keyed::First),
    ("SMOVE", Keyed::FirstTwo),
    ("SPOP", Keyed::First),
    ("SRANDMEMBER", Keyed::First),
    ("SREM", Keyed::First),
    ("SSCAN", Keyed::First),
    ("STRLEN", Keyed::First),
    ("SUNION", Keyed::All),
    ("TIME", Keyed::No),
    ("TOUCH", Keyed::All),
    ("TTL", Keyed::First),
    ("TYPE", Keyed::First),
    ("UNLINK", Keyed::All),
    ("XADD", Keyed::First),
    ("XDEL", Keyed::First),
    ("XLEN", Keyed::First),
    ("XRANGE", Keyed::First),
    ("XREAD", Keyed::Streams),
    ("XREVRANGE", Keyed::First),
    ("XTRIM", Keyed::First),
    ("ZADD", Keyed::First),
    ("ZCARD", Keyed::First),
    ("ZCOUNT", Keyed::First),
    ("ZDIFF", Keyed::Counted),
    ("ZINCRBY", Keyed::First),
    ("ZINTER", Keyed::Counted),
    ("ZINTERCARD", Keyed::Counted),
    ("ZLEXCOUNT", Keyed::First),
    ("ZMPOP", Keyed::Counted),
    ("ZMSCORE", Keyed::First),
    ("ZPOPMAX", Keyed::First),
    ("ZPOPMIN", Keyed::First),
    ("ZRANDMEMBER", Keyed::First),
    ("ZRANGE", Keyed::First),
    ("ZRANGEBYLEX", Keyed::First),
    ("ZRANGEBYSCORE", Keyed::First),
    ("ZRANK", Keyed::First),
    ("ZREM", Keyed::First),
    ("ZREMRANGEBYLEX", Keyed::First),
    ("ZREMRANGEBYRANK", Keyed::First),
    ("ZREMRANGEBYSCORE", Keyed::First),
    ("ZREVRANGE", Keyed::First),
    ("ZREVRANGEBYLEX", Keyed::First),
    ("ZREVRANGEBYSCORE", Keyed::First),
    ("ZREVRANK", Keyed::First),
    ("ZSCAN", Keyed::First),
    ("ZSCORE", Keyed::First),
    ("ZUNION", Keyed::Counted),
];

/// All commands that handlers may use.
pub(super) fn commands() -> impl Iterator<Item = (&'static str, Keyed)> {
    COMMANDS.iter().copied()
}

/// Every key that a command touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys<'a> {
    args: &'a [String],
    positions: Vec<usize>,
}

impl<'a> Keys<'a> {
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.positions.iter().map(|at| self.args[*at].as_str())
    }

    /// The positions of the keys among the words of the command; its name is word 0.
    pub(super) fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.positions.iter().copied()
    }
}

/// Where the answer of a command holds keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Answer {
    NoKeys,
    /// `[key, …]`
    KeyFirst,
    /// `[[key, …], …]`
    KeyOfEach,
}

impl Answer {
    pub(super) fn of(command: &str) -> Self {
        let is = |name: &str| command.eq_ignore_ascii_case(name);
        if is("LMPOP") || is("ZMPOP") {
            Self::KeyFirst
        } else if is("XREAD") {
            Self::KeyOfEach
        } else {
            Self::NoKeys
        }
    }
}

/// The reason why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// Returns the keys of a command. Refuses a command that is not in the table, or whose words do not fit its
/// shape.
pub fn of(args: &[String]) -> Result<Keys<'_>, Refused> {
    let (name, words) = args.split_first().ok_or_else(|| Refused("a command must have a name".to_owned()))?;
    let upper = name.to_ascii_uppercase();
    let index = COMMANDS
        .binary_search_by(|(known, _)| (*known).cmp(&upper))
        .map_err(|_| Refused(format!("`{}` is not a command for handlers", shown(name))))?;
    let keyed = COMMANDS[index].1;
    let positions = find(keyed, words)
        .filter(|keys| !keys.is_empty() || keyed == Keyed::No)
        .ok_or_else(|| Refused(format!("`{upper}` has words in a form that this command does not allow")))?;
    // The name of the command comes before the words.
    let keys = Keys { args, positions: positions.into_iter().map(|at| at + 1).collect() };
    if keys.iter().any(|key| key.len() > limits::REDIS_KEY_BYTES_MAX) {
        return Err(Refused(format!("a key has at most {} bytes", limits::REDIS_KEY_BYTES_MAX)));
    }
    Ok(keys)
}

/// Returns the positions of the keys among the words after the name.
fn find(keyed: Keyed, words: &[String]) -> Option<Vec<usize>> {
    let up_to = |count: usize| (count <= words.len()).then(|| (0..count).collect());
    match keyed {
        Keyed::No => Some(Vec::new()),
        Keyed::First => up_to(1),
        Keyed::FirstTwo => up_to(2),
        Keyed::All => up_to(words.len()),
        Keyed::Pairs if words.len().is_multiple_of(2) => Some((0..words.len()).step_by(2).collect()),
        Keyed::Pairs => None,
        Keyed::Counted => {
            let count: usize = words.first()?.parse().ok()?;
            let end = count.checked_add(1).filter(|end| *end <= words.len())?;
            Some((1..end).collect())
        }
        Keyed::Streams => {
            let at = words.iter().position(|word| word.eq_ignore_ascii_case("STREAMS"))?;
            // Only COUNT may come before it. BLOCK would block every other call on the connection.
            match &words[..at] {
                [] => {}
                [count, _] if count.eq_ignore_ascii_case("COUNT") => {}
                _ => return None,
            }
            let streams = words.len() - at - 1;
            streams.is_multiple_of(2).then(|| (at + 1..at + 1 + streams / 2).collect())
        }
    }
}

/// An unknown name is repeated only in characters and a length that a command could have.
fn shown(name: &str) -> String {
    const BYTES_MAX: usize = 32;
    match name.len() {
        ..=BYTES_MAX if name.chars().all(|c| c.is_ascii_graphic()) => name.to_owned(),
        // A part of it could be a part of a secret, which the host would not find.
        bytes => format!("({bytes} bytes)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(command: &str) -> Option<Vec<String>> {
        let args: Vec<String> = command.split(' ').map(str::to_owned).collect();
        of(&args).ok().map(|keys| keys.iter().map(str::to_owned).collect())
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(COMMANDS.is_sorted_by(|(a, _), (b, _)| a < b));
    }

    #[test]
    fn every_key_of_a_command_is_found() {
        for (command, expected) in [
            ("get a", "a"),
            ("SET a v NX PX 100", "a"),
            ("MGET a b c", "a b c"),
            ("MSET a 1 b 2", "a b"),
            ("del a b", "a b"),
            ("LMOVE a b LEFT RIGHT", "a b"),
            ("ZRANGEBYSCORE a -inf +inf LIMIT 0 5", "a"),
            ("ZUNION 2 a b WEIGHTS 1 2", "a b"),
            ("SINTERCARD 1 a LIMIT 3", "a"),
            ("XADD s MAXLEN ~ 100 * f v", "s"),
            ("XREAD COUNT 5 STREAMS a b 0 0", "a b"),
            ("XREAD streams a $", "a"),
            ("HSET h f v", "h"),
            ("HSCAN h 0 MATCH *", "h"),
        ] {
            let expected: Vec<String> = expected.split(' ').map(str::to_owned).collect();
            assert_eq!(keys(command), Some(expected), "{command}");
        }
        assert_eq!(keys("TIME"), Some(vec![]));
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        for command in [
            "KEYS *",
            "SCAN 0",
            "FLUSHALL",
            "FLUSHDB",
            "CONFIG GET *",
            "EVAL x 0",
            "EVALSHA x 0",
            "FCALL f 0",
            "SCRIPT LOAD x",
            "SUBSCRIBE c",
            "PUBLISH c m",
            "SPUBLISH c m",
            "BLPOP a 0",
            "BLMOVE a b LEFT LEFT 0",
            "XREADGROUP GROUP g c STREAMS a >",
            "SORT a BY w_*",
            "SELECT 1",
            "AUTH x",
            "HELLO 3",
            "CLIENT KILL x",
            "SHUTDOWN",
            "DEBUG SLEEP 1",
            "MULTI",
            "EXEC",
            "WATCH a",
            "MONITOR",
            "SAVE",
            "WAIT 1 0",
            "RESTORE a 0 x",
            "MIGRATE h 1 a 0 0",
            "OBJECT FREQ a",
            "RANDOMKEY",
            "DBSIZE",
            "GEORADIUS a 1 1 1 m STORE b",
            // These commands take memory that their caller does not send.
            "COPY a b",
            "APPEND a x",
            "BITOP NOT a b",
            "BITFIELD a SET u8 4294967288 1",
            "SUNIONSTORE to a b",
            "ZUNIONSTORE to 2 a b",
            "ZRANGESTORE to from 0 -1",
            "GEOSEARCHSTORE to from FROMMEMBER m BYRADIUS 1 m",
            "",
            "GE",
        ] {
            assert_eq!(keys(command), None, "{command}");
        }
    }

    #[test]
    fn a_command_that_hides_a_key_is_refused() {
        for command in [
            "GET",
            "MGET",
            "LMOVE a",
            "MSET a",
            "MSET a 1 b",
            "ZUNION 3 a b",
            "ZUNION x a",
            "ZUNION 0",
            "ZUNION -1 a",
            "XREAD STREAMS a b 0",
            "XREAD BLOCK 0 STREAMS a 0",
            "XREAD a 0",
            "XREAD COUNT STREAMS STREAMS a b c",
            "XREAD STREAMS",
        ] {
            assert_eq!(keys(command), None, "{command}");
        }
        assert!(of(&["GET".to_owned(), "k".repeat(limits::REDIS_KEY_BYTES_MAX)]).is_ok());
        assert!(of(&["GET".to_owned(), "k".repeat(limits::REDIS_KEY_BYTES_MAX + 1)]).is_err());
        assert!(of(&[]).is_err());
    }
}
