//! Ids and addresses, parsed once. Code that has one of these types need not check it again.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits;

/// The `sub` of a token, verbatim: text of 1 to 64 characters, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Names with another meaning in a path: `/users/me` is the caller, and clients remove `.` and `..` from
    /// a path before they send it. A user with such a name could not be addressed. The handlers' sdk has the
    /// same list (`text.rs`).
    pub const RESERVED: [&str; 3] = ["me", ".", ".."];

    pub fn parse(raw: &str) -> Option<Self> {
        let chars = raw.chars().count();
        let fits = (1..=limits::USER_ID_CHARS_MAX).contains(&chars) && !Self::RESERVED.contains(&raw);
        (fits && !raw.chars().any(char::is_control)).then(|| Self(raw.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of one WebSocket connection. It is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Uuid);

impl ConnectionId {
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    pub fn parse(raw: &str) -> Option<Self> {
        Uuid::parse_str(raw).ok().map(Self)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of one run of a host process. A restarted node has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(Uuid);

impl NodeId {
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of one request, which leads from the client's answer to the log lines and spans of its call. A REST
/// answer has it as `x-request-id`. The id of a frame names the handshake of its connection and the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    pub fn random() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// Parses an id that a client chose: 1 to [`limits::REQUEST_ID_BYTES_MAX`] letters, digits, `-`, `_` and
    /// `.`. So it cannot be mistaken for another field of a log line.
    pub fn parse(raw: &str) -> Option<Self> {
        Self::is_plain(raw).then(|| Self(raw.into()))
    }

    /// The id of a frame on the connection whose handshake has this id: `{handshake}/{frame id}`. If the
    /// client sent no id, or none that [`Self::parse`] accepts, it is `{handshake}#{number}`. `number` counts
    /// the frames of the connection that called a handler, from 1.
    pub fn of_frame(&self, frame_id: Option<&str>, number: u64) -> Self {
        Self(match frame_id.filter(|id| Self::is_plain(id)) {
            Some(frame_id) => format!("{self}/{frame_id}").into(),
            None => format!("{self}#{number}").into(),
        })
    }

    fn is_plain(raw: &str) -> bool {
        (1..=limits::REQUEST_ID_BYTES_MAX).contains(&raw.len())
            && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    }
}

impl Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The address of a publication, `{kind}:{name}`. The application chooses the kinds; the host itself uses
/// only `user:{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<str>);

impl Address {
    /// Parses `kind:name`: at most [`limits::ADDRESS_BYTES_MAX`], no control characters. Every user id gives
    /// a valid address.
    pub fn parse(raw: &str) -> Option<Self> {
        let (kind, name) = raw.split_once(':')?;
        let well_formed = !kind.is_empty()
            && kind.bytes().all(|b| b.is_ascii_lowercase())
            && !name.is_empty()
            && raw.len() <= limits::ADDRESS_BYTES_MAX
            && !raw.chars().any(char::is_control);
        well_formed.then(|| Self(raw.into()))
    }

    /// The address of every connection of a user, on every node.
    pub fn of_user(user: &UserId) -> Self {
        Self(format!("user:{user}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The SHA-256 of a release file, which names it everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    pub fn parse(hex: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first digits, enough to distinguish releases in a line of text.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(deserializer)?;
        Self::parse(&hex).ok_or_else(|| serde::de::Error::custom("not a SHA-256 in hex"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_kept_verbatim_within_their_bounds() {
        for good in ["a", "65f1c0ffee65f1c0ffee65f1", "Ană ✓", &"ü".repeat(64)] {
            assert_eq!(UserId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\0b", "line\nbreak", &"ü".repeat(65), "me", ".", ".."] {
            assert!(UserId::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_request_keeps_a_plain_id_of_its_client() {
        let longest = "x".repeat(limits::REQUEST_ID_BYTES_MAX);
        for good in ["a-1_b.c", &longest] {
            assert_eq!(RequestId::parse(good).as_deref(), Some(good));
        }
        for bad in ["", "two words", "<script>", "a/b", "a#1", "é", &(longest + "x")] {
            assert!(RequestId::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_id_of_a_frame_names_its_connection() {
        let handshake = RequestId::parse("find-me").unwrap();
        let id = |frame_id| handshake.of_frame(frame_id, 3).to_string();
        assert_eq!(id(Some("17")), "find-me/17");
        for unnamed in [None, Some(""), Some("two words"), Some("a/b")] {
            assert_eq!(id(unnamed), "find-me#3", "{unnamed:?}");
        }
    }

    #[test]
    fn addresses_have_a_kind_and_a_name() {
        for good in ["conv:0", "topic:match:31", "user:ana", "user:Ünï çøđé ✓"] {
            assert_eq!(Address::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "conv", "conv:", ":x", "Conv:x", "conv:\n"] {
            assert!(Address::parse(bad).is_none(), "{bad:?}");
        }
        let longest = format!("c:{}", "x".repeat(limits::ADDRESS_BYTES_MAX - 2));
        assert!(Address::parse(&longest).is_some());
        assert!(Address::parse(&(longest + "x")).is_none());
        let widest = UserId::parse(&"👋".repeat(limits::USER_ID_CHARS_MAX)).unwrap();
        let address = Address::of_user(&widest);
        assert_eq!(Address::parse(address.as_str()), Some(address));
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::of(b"release");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("xy"), None);
    }
}
