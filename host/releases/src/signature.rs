//! Signatures of releases: ed25519 signatures of the digest. They are stored beside the file, so that the
//! digest stays the same. Each node that requires signatures checks them itself before it compiles a release.

use std::fmt;
use std::fs;
use std::path::Path;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use switchboard_core::config::Config;
use switchboard_core::ids::Digest;
use switchboard_core::{Blame, Blamed, limits};

/// The signed message is this text and the 32 bytes of the digest, so that a signature made for another
/// purpose is not valid here.
const PURPOSE: &[u8] = b"switchboard release v1\0";
/// The first word of each line in a file of keys or signatures.
const KIND: &str = "ed25519";

/// One line: `ed25519 <public key> <signature>`, both in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    key: VerifyingKey,
    signature: ed25519_dalek::Signature,
}

impl Signature {
    pub fn sign(digest: Digest, key: &SigningKey) -> Self {
        Self { key: key.verifying_key(), signature: key.sign(&message(digest)) }
    }

    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (kind, key, signature) = (words.next()?, words.next()?, words.next()?);
        let is_whole = kind == KIND && words.next().is_none();
        is_whole.then_some(())?;
        Some(Self { key: public(key)?, signature: ed25519_dalek::Signature::from_bytes(&hex(signature)?) })
    }

    /// Parses a file or a header: one signature a line, or separated by commas. None when one of them is not
    /// a signature.
    pub fn parse_all(text: &str) -> Option<Vec<Self>> {
        let lines = text.split(['\n', ',']).map(str::trim).filter(|line| !line.is_empty());
        let all: Vec<_> = lines.map(Self::parse).collect::<Option<_>>()?;
        (all.len() <= limits::SIGNATURES_MAX).then_some(all)
    }

    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    pub fn is_of(&self, digest: Digest) -> bool {
        // Strict verification: a key and a message have only one valid signature, and keys of small order are
        // refused.
        self.key.verify_strict(&message(digest), &self.signature).is_ok()
    }

    /// Key and signature, as Postgres stores them.
    pub fn bytes(&self) -> ([u8; 32], [u8; 64]) {
        (self.key.to_bytes(), self.signature.to_bytes())
    }

    pub fn from_bytes(key: &[u8], signature: &[u8]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
        Some(Self { key, signature: ed25519_dalek::Signature::from_bytes(signature.try_into().ok()?) })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, signature) = self.bytes();
        write!(f, "{KIND} {} {}", in_hex(&key), in_hex(&signature))
    }
}

/// The keys whose signatures a node requires.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: Vec<VerifyingKey>,
}

#[derive(Debug, thiserror::Error)]
#[error("`release_keys`: `{0}` is neither a public key in hex nor a file made by `switchboard keys`")]
pub struct InvalidReleaseKey(String);

impl Blamed for InvalidReleaseKey {
    fn blame(&self) -> Blame {
        Blame::Operator
    }
}

impl Trust {
    pub fn of(config: &Config) -> Result<Self, InvalidReleaseKey> {
        let keys =
            config.release_keys.iter().map(|place| public_key(place).ok_or(InvalidReleaseKey(place.clone())));
        Ok(Self { keys: keys.collect::<Result<_, _>>()? })
    }

    /// True when a signature is required: when there are keys.
    pub fn is_needed(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The keys, as Postgres stores them.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.keys.iter().map(|key| key.to_bytes().to_vec()).collect()
    }

    /// True when one of the keys has signed the release, or no signature is required.
    pub fn accepts(&self, digest: Digest, signatures: &[Signature]) -> bool {
        !self.is_needed()
            || signatures
                .iter()
                .any(|signature| self.keys.contains(&signature.key) && signature.is_of(digest))
    }
}

// ---- files ----

/// Returns the text of a file with a new key, and of the file with its public half.
pub fn new_key() -> (String, String) {
    let key = SigningKey::from_bytes(&rand::random());
    (format!("{KIND}-secret {}\n", in_hex(&key.to_bytes())), public_line(&key.verifying_key()))
}

pub fn public_line(key: &VerifyingKey) -> String {
    format!("{KIND} {}\n", in_hex(key.as_bytes()))
}

pub fn parse_secret(text: &str) -> Option<SigningKey> {
    let (kind, key) = text.trim().split_once(' ')?;
    (kind == format!("{KIND}-secret")).then(|| hex(key.trim()))?.map(|bytes| SigningKey::from_bytes(&bytes))
}

/// Reads a public key: the key in hex, or the file that holds it.
pub fn public_key(place: &str) -> Option<VerifyingKey> {
    public(place).or_else(|| {
        let text = fs::read_to_string(Path::new(place)).ok()?;
        let (kind, key) = text.trim().split_once(' ')?;
        (kind == KIND).then(|| public(key.trim()))?
    })
}

fn message(digest: Digest) -> Vec<u8> {
    [PURPOSE, digest.bytes().as_slice()].concat()
}

fn public(text: &str) -> Option<VerifyingKey> {
    let key = VerifyingKey::from_bytes(&hex(text)?).ok()?;
    (!key.is_weak()).then_some(key)
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn trust(seeds: &[u8]) -> Trust {
        let release_keys = seeds.iter().map(|seed| in_hex(key(*seed).verifying_key().as_bytes())).collect();
        Trust::of(&Config { release_keys, ..Config::default() }).unwrap()
    }

    #[test]
    fn one_signature_of_a_key_that_counts_is_enough() {
        let (ours, other) = (Digest::of(b"release"), Digest::of(b"another"));
        let good = Signature::sign(ours, &key(1));
        assert!(trust(&[1]).accepts(ours, std::slice::from_ref(&good)));
        assert!(trust(&[2, 1]).accepts(ours, &[Signature::sign(ours, &key(3)), good.clone()]));
        // No signature is required.
        assert!(trust(&[]).accepts(ours, &[]));
        for (what, digest, signatures) in [
            ("unsigned", ours, vec![]),
            ("by another", ours, vec![Signature::sign(ours, &key(2))]),
            ("of another release", other, vec![good.clone()]),
            (
                "under another's name",
                ours,
                vec![Signature { key: key(1).verifying_key(), ..Signature::sign(ours, &key(2)) }],
            ),
        ] {
            assert!(!trust(&[1]).accepts(digest, &signatures), "{what}");
        }
        // A signature of the digest alone is not valid.
        let bare = Signature { key: key(1).verifying_key(), signature: key(1).sign(ours.bytes()) };
        assert!(!trust(&[1]).accepts(ours, &[bare]));
    }

    #[test]
    fn a_signature_and_a_key_survive_their_text() {
        let digest = Digest::of(b"release");
        let (secret, public) = new_key();
        let key = parse_secret(&secret).unwrap();
        assert_eq!(public_line(&key.verifying_key()), public);
        let signature = Signature::sign(digest, &key);
        assert_eq!(Signature::parse(&signature.to_string()), Some(signature.clone()));
        let text = format!("{signature}\n{signature}\n");
        assert_eq!(Signature::parse_all(&text).map(|all| all.len()), Some(2));
        let (of_key, of_signature) = signature.bytes();
        assert_eq!(Signature::from_bytes(&of_key, &of_signature), Some(signature.clone()));
        let many = format!("{signature},").repeat(limits::SIGNATURES_MAX + 1);
        assert_eq!(Signature::parse_all(&many), None);
        assert_eq!(Signature::parse_all(""), Some(vec![]));
    }

    #[test]
    fn what_is_no_signature_or_key_is_refused() {
        let zeros = "00".repeat(32);
        for bad in [
            "ed25519".to_owned(),
            format!("ed25519 {zeros}"),
            format!("rsa {zeros} {zeros}{zeros}"),
            format!("ed25519 {zeros} {zeros}"),
            format!("ed25519 xx{} {zeros}{zeros}", &zeros[2..]),
            format!("ed25519 {zeros} {zeros}{zeros} more"),
        ] {
            assert_eq!(Signature::parse(&bad), None, "{bad}");
        }
        // A key of small order has a valid signature for every message.
        assert!(public(&format!("01{}", &zeros[2..])).is_none());
        for bad in ["", "ed25519-secret", "ed25519-secret 00", &format!("ed25519 {zeros}")] {
            assert!(parse_secret(bad).is_none(), "{bad}");
        }
        assert!(
            Trust::of(&Config { release_keys: vec!["nowhere.pub".into()], ..Config::default() }).is_err()
        );
    }
}
