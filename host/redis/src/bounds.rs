//! Bounds the memory and time that one command can take beyond what its caller sends. The bounds hold for
//! commands of handlers and, in Lua, for the commands of scripts (`prelude`). Pure.

use super::keys::Keyed;
use switchboard_core::limits;

/// The way in which a command can cost more than it sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Excess {
    None,
    /// `SETRANGE key offset value`: the value grows to the offset.
    ByteOffset,
    /// `SETBIT key offset bit`
    BitOffset,
    /// `SRANDMEMBER key count`: a negative count repeats members without limit.
    Count,
    /// `SUNION key…`: every key is walked over, as often as it is named.
    Sets,
}

impl Excess {
    /// Looks up a command by its name in upper case.
    pub(super) fn of(command: &str) -> Self {
        match command {
            "SETRANGE" => Self::ByteOffset,
            "SETBIT" => Self::BitOffset,
            "HRANDFIELD" | "SRANDMEMBER" | "ZRANDMEMBER" => Self::Count,
            "PFCOUNT" | "PFMERGE" | "SDIFF" | "SINTER" | "SINTERCARD" | "SUNION" | "ZDIFF" | "ZINTER"
            | "ZINTERCARD" | "ZUNION" => Self::Sets,
            _ => Self::None,
        }
    }
}

/// Returns the bytes that Redis may have to store for a command beyond those of its words: the offset of
/// `SETRANGE` and `SETBIT`, and 0 for all others. The error is the rule that the command breaks.
pub(super) fn added_bytes(args: &[String]) -> Result<usize, String> {
    let Some((name, words)) = args.split_first() else { return Ok(0) };
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok());
    let offset = |offset: Option<i64>, unit: &str, per_byte: i64| {
        // Redis itself refuses what is not a number.
        let bytes = offset.unwrap_or(0).max(0) / per_byte;
        match usize::try_from(bytes) {
            Ok(bytes) if bytes <= limits::REDIS_COMMAND_BYTES_MAX => Ok(bytes),
            _ => Err(format!(
                "an offset of `{name}` is at most {} {unit}",
                limits::REDIS_COMMAND_BYTES_MAX as i64 * per_byte
            )),
        }
    };
    let upper = name.to_ascii_uppercase();
    match Excess::of(&upper) {
        Excess::None => Ok(0),
        Excess::ByteOffset => offset(number(1), "bytes", 1),
        Excess::BitOffset => offset(number(1), "bits", 8),
        Excess::Count => match number(1) {
            Some(count) if count.unsigned_abs() > limits::REDIS_RANDOM_MEMBERS_MAX => {
                Err(format!("`{upper}` answers with at most {} members", limits::REDIS_RANDOM_MEMBERS_MAX))
            }
            _ => Ok(0),
        },
        Excess::Sets => {
            let keys = super::keys::of(args).map(|keys| keys.positions().count()).unwrap_or(0);
            if keys > limits::REDIS_SETS_MAX {
                return Err(format!("`{upper}` has at most {} keys", limits::REDIS_SETS_MAX));
            }
            Ok(0)
        }
    }
}

/// The code of a command in the prelude of scripts, one decimal digit each: where its keys are, which bound
/// it has, and whether its answer holds keys.
pub(super) fn code(name: &str, keyed: Keyed) -> u16 {
    let keyed = match keyed {
        Keyed::No => 0,
        Keyed::First => 1,
        Keyed::FirstTwo => 2,
        Keyed::All => 3,
        Keyed::Pairs => 4,
        Keyed::Counted => 5,
        Keyed::Streams => 7,
    };
    let excess = match Excess::of(name) {
        Excess::None => 0,
        Excess::ByteOffset => 1,
        Excess::BitOffset => 2,
        Excess::Count => 3,
        Excess::Sets => 4,
    };
    let answer = match super::keys::Answer::of(name) {
        super::keys::Answer::NoKeys => 0,
        super::keys::Answer::KeyFirst => 1,
        super::keys::Answer::KeyOfEach => 2,
    };
    keyed + 10 * excess + 100 * answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &str) -> Result<usize, String> {
        let args: Vec<String> = command.split(' ').map(str::to_owned).collect();
        added_bytes(&args)
    }

    #[test]
    fn offsets_counts_and_keys_are_bounded() {
        let most = limits::REDIS_COMMAND_BYTES_MAX;
        assert_eq!(of(&format!("SETRANGE k {most} x")), Ok(most));
        assert_eq!(of(&format!("setbit k {} 1", most * 8)), Ok(most));
        assert_eq!(of("SETRANGE k many x"), Ok(0));
        assert_eq!(of("SET k v"), Ok(0));
        for bad in [
            "SETRANGE k 536870911 x",
            "setrange k 9223372036854775807 x",
            "SETBIT k 4294967295 1",
            "SRANDMEMBER k -1000000000",
            "ZRANDMEMBER k -9223372036854775808 WITHSCORES",
            "HRANDFIELD k 1000000",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        let sets = |count: usize| format!("SUNION{}", " k".repeat(count));
        assert!(of(&sets(limits::REDIS_SETS_MAX)).is_ok() && of(&sets(limits::REDIS_SETS_MAX + 1)).is_err());
        assert_eq!(code("XREAD", Keyed::Streams), 207);
        assert_eq!(code("SETBIT", Keyed::First), 21);
    }
}
