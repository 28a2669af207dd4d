//! The ids that Switchboard generates: UUIDv7, which sort by their creation time. The host supplies clock and
//! randomness, so a replayed call generates the same ids.

use std::fmt;

use uuid::{Builder, Uuid};

use crate::hash::{OFFSET, fnv1a_from};
use crate::{Problem, clock, random};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Uuid);

impl Id {
    /// The largest id; it sorts after all others.
    pub const LAST: Self = Self(Uuid::max());

    /// A new id at the present time. It makes two host calls.
    pub fn make() -> Self {
        Self::at(clock::now_ms(), &random::bytes::<10>())
    }

    /// A new id at a given time, in milliseconds since 1970.
    pub fn at(ms: u64, random: &[u8; 10]) -> Self {
        Self(Builder::from_unix_timestamp_millis(ms, random).into_uuid())
    }

    /// An id that depends only on the arguments: the same `time` and `name` always give the same id. Its time
    /// part is the one of `time`, so the two ids sort next to each other.
    pub fn derived(time: Id, name: &[u8]) -> Self {
        // Two FNV-1a passes with different offsets. The result is well distributed, but it is not a secret.
        let pass = |offset| fnv1a_from(offset, time.0.as_bytes().iter().chain(name).copied());
        let mut tail = [0; 10];
        tail[..8].copy_from_slice(&pass(OFFSET).to_be_bytes());
        tail[8..].copy_from_slice(&pass(0x6c62_272e_07bb_0142).to_be_bytes()[..2]);
        Self::at(time.ms(), &tail)
    }

    /// The smallest id of a millisecond. The partition of a month begins at one.
    pub fn floor(ms: u64) -> Self {
        Self(Uuid::from_u128(u128::from(ms) << 80))
    }

    /// Reads any UUID in its usual form: with dashes, in upper or lower case.
    pub fn parse(raw: &str) -> Option<Self> {
        if raw.len() != 36 {
            return None;
        }
        Uuid::try_parse(raw).ok().map(Self)
    }

    /// Reads an id from a path. A text that is not an id can name nothing, so the answer is `not_found`.
    pub fn of_path(raw: &str, what: &str) -> Result<Self, Problem> {
        Self::parse(raw).ok_or_else(|| Problem::not_found(what))
    }

    /// The creation time of a UUIDv7, in milliseconds since 1970.
    pub fn ms(&self) -> u64 {
        self.0.as_u128().checked_shr(80).unwrap_or_default() as u64
    }

    /// A hash of the id, which never changes. Handlers use it to choose lanes and shards.
    pub fn spread(&self) -> u64 {
        let bits = self.0.as_u128();
        ((bits >> 64) as u64 ^ bits as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_version_7_uuid_that_contains_its_time() {
        let id = Id::at(1_763_618_400_123, &[0xff; 10]);
        assert_eq!(id.ms(), 1_763_618_400_123);
        assert_eq!(id.to_string(), "019a9fd9-277b-7fff-bfff-ffffffffffff");
        assert_eq!(Id::parse(&id.to_string().to_uppercase()), Some(id));
    }

    #[test]
    fn a_uuid_without_dashes_or_in_braces_is_not_an_id() {
        for bad in ["", "x", "019a9fd9277b7fffbfffffffffffffff", "{019a9fd9-277b-7fff-bfff-ffffffffffff}"] {
            assert_eq!(Id::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_derived_id_is_the_same_for_the_same_name_only() {
        let event = Id::at(1_763_618_400_123, &[7; 10]);
        assert_eq!(Id::derived(event, b"ana"), Id::derived(event, b"ana"));
        assert_ne!(Id::derived(event, b"ana"), Id::derived(event, b"bo"));
        assert_eq!(Id::derived(event, b"ana").ms(), event.ms());
    }
}
