//! Seals secrets for Postgres: AES-256-GCM under a key that is derived from the setting `secret`. Pure, apart
//! from the random nonce. A sealed value opens only under its own name and version, so that nobody who can
//! write to the table can put one secret in the place of another, or an old value in the place of a new one.

use std::fmt;

use rand::TryRngCore;
use rand::rngs::OsRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};

use switchboard_core::config::Config;
use switchboard_core::{Blame, Blamed, Error as ConfigError};

/// The purpose of the key, so that no other key that is derived from `secret` is the same.
const KEY_INFO: &[u8] = b"switchboard secrets 1";
const ID_INFO: &[u8] = b"switchboard secrets 1 id";
const ID_BYTES: usize = 8;

/// The keys of one node: that of `secret`, and that of `secret_previous` while operators change `secret`.
pub struct Sealing {
    present: Key,
    previous: Option<Key>,
}

struct Key {
    id: String,
    key: LessSafeKey,
}

/// A sealed value, as Postgres stores it.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Identifies the key, without revealing it: 16 hex digits.
    pub key_id: String,
    /// Nonce, cipher text and tag.
    pub bytes: Vec<u8>,
}

/// Why a secret cannot be opened on this node.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SealedError {
    /// The node has neither of the keys.
    #[error(
        "the secret {0} was sealed with another `secret` of the nodes: set `secret_previous` to that one, or set the \
         secret again with `switchboard secret set {0}`"
    )]
    OtherKey(String),
    /// The key is right, and the bytes, the name or the version are not.
    #[error(
        "the stored secret {0} was changed in Postgres and does not open: set it again with `switchboard secret set {0}`"
    )]
    Damaged(String),
}

impl SealedError {
    /// The secret, for a list of several.
    pub fn listed(&self) -> String {
        match self {
            Self::OtherKey(name) => name.clone(),
            Self::Damaged(name) => format!("{name} (changed in Postgres)"),
        }
    }
}

impl Blamed for SealedError {
    fn blame(&self) -> Blame {
        Blame::Operator
    }
}

impl Sealing {
    /// # Errors
    /// When `secret` is not set.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        let present = Key::of(config.secret()?);
        Ok(Self { present, previous: config.secret_previous.as_deref().map(Key::of) })
    }

    /// The id of the key of `secret`.
    pub fn key_id(&self) -> &str {
        &self.present.id
    }

    /// Whether this process has the key with this id.
    pub fn has(&self, key_id: &str) -> bool {
        self.key(key_id).is_some()
    }

    fn key(&self, id: &str) -> Option<&Key> {
        [Some(&self.present), self.previous.as_ref()].into_iter().flatten().find(|key| key.id == id)
    }

    /// Seals a value under the key with the id `preferred`, if the node has it, and otherwise under that of
    /// `secret`. While operators change `secret`, some nodes know only the key before.
    pub fn seal(&self, name: &str, version: i64, value: &[u8], preferred: Option<&str>) -> Sealed {
        let key = preferred.and_then(|id| self.key(id)).unwrap_or(&self.present);
        key.seal(name, version, value)
    }

    /// # Errors
    /// When the node does not have the key, or the value was not sealed for this name and version.
    pub fn open(&self, name: &str, version: i64, sealed: &Sealed) -> Result<Vec<u8>, SealedError> {
        let key = self.key(&sealed.key_id).ok_or_else(|| SealedError::OtherKey(name.to_owned()))?;
        key.open(name, version, &sealed.bytes).ok_or_else(|| SealedError::Damaged(name.to_owned()))
    }
}

/// Without the keys.
impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("key_id", &self.present.id).finish_non_exhaustive()
    }
}

struct IdLength;

impl KeyType for IdLength {
    fn len(&self) -> usize {
        ID_BYTES
    }
}

impl Key {
    fn of(secret: &str) -> Self {
        let extracted = Salt::new(HKDF_SHA256, &[]).extract(secret.as_bytes());
        let expected = "a few bytes are not too many for HKDF";
        let key = UnboundKey::from(extracted.expand(&[KEY_INFO], &AES_256_GCM).expect(expected));
        let mut id = [0; ID_BYTES];
        extracted.expand(&[ID_INFO], IdLength).and_then(|okm| okm.fill(&mut id)).expect(expected);
        Self { id: id.iter().map(|byte| format!("{byte:02x}")).collect(), key: LessSafeKey::new(key) }
    }

    fn seal(&self, name: &str, version: i64, value: &[u8]) -> Sealed {
        // Random: 2^32 values under one key are safe, and a fleet does not get so many.
        let mut nonce = [0; NONCE_LEN];
        // On Linux this cannot fail after the machine has booted.
        OsRng.try_fill_bytes(&mut nonce).expect("the operating system gives random bytes");
        let mut sealed = value.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                bound_to(name, version),
                &mut sealed,
            )
            .expect("a secret is not too long for AES-GCM");
        Sealed { key_id: self.id.clone(), bytes: [&nonce[..], &sealed].concat() }
    }

    fn open(&self, name: &str, version: i64, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let value = self.key.open_in_place(nonce, bound_to(name, version), &mut opened).ok()?.len();
        opened.truncate(value);
        Some(opened)
    }
}

/// The authenticated data. No name contains a zero byte.
fn bound_to(name: &str, version: i64) -> Aad<Vec<u8>> {
    Aad::from([name.as_bytes(), &[0], &version.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealing(secret: &str, previous: Option<&str>) -> Sealing {
        let config = Config {
            secret: Some(secret.to_owned()),
            secret_previous: previous.map(str::to_owned),
            ..Config::default()
        };
        Sealing::of(&config).unwrap()
    }

    #[test]
    fn every_byte_survives() {
        let sealing = sealing("a secret of the nodes", None);
        let every: Vec<u8> = (0..=255).collect();
        let long = vec![7; switchboard_core::limits::SECRET_BYTES_MAX];
        for value in [&every[..], &long, b"", b"\0\0\n"] {
            let sealed = sealing.seal("TOKEN", 3, value, None);
            assert_eq!(sealing.open("TOKEN", 3, &sealed).unwrap(), value);
            let again = sealing.seal("TOKEN", 3, value, None);
            assert_ne!(sealed.bytes, again.bytes, "the nonce is new each time");
        }
        let sealed = sealing.seal("TOKEN", 1, b"t0ken-of-a-service", None);
        assert!(!sealed.bytes.windows(5).any(|bytes| bytes == b"t0ken"));
    }

    #[test]
    fn a_sealed_value_opens_only_under_its_name_and_key() {
        let sealing_one = sealing("one secret of the nodes", None);
        let sealed = sealing_one.seal("TOKEN", 1, b"t0ken-of-a-service", None);
        let damaged = Err(SealedError::Damaged("OTHER".to_owned()));
        assert_eq!(sealing_one.open("OTHER", 1, &sealed), damaged);
        assert_eq!(sealing_one.open("TOKEN", 2, &sealed), Err(SealedError::Damaged("TOKEN".to_owned())));
        for at in [0, NONCE_LEN, sealed.bytes.len() - 1] {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert!(sealing_one.open("TOKEN", 1, &changed).is_err(), "byte {at}");
        }
        for short in [0, NONCE_LEN - 1, NONCE_LEN, NONCE_LEN + 15] {
            let cut = Sealed { bytes: sealed.bytes[..short].to_vec(), ..sealed.clone() };
            assert!(sealing_one.open("TOKEN", 1, &cut).is_err(), "{short} bytes");
        }
        let other = sealing("another secret of the nodes", None);
        let error = other.open("TOKEN", 1, &sealed).unwrap_err();
        assert!(error.to_string().contains("secret_previous"), "{error}");
        // Not with a wrong id either.
        let claimed = Sealed { key_id: other.key_id().to_owned(), ..sealed };
        assert_eq!(other.open("TOKEN", 1, &claimed), Err(SealedError::Damaged("TOKEN".to_owned())));
    }

    #[test]
    fn while_the_secret_changes_both_keys_open_and_the_fleets_key_seals() {
        let (old, new) = (sealing("the old secret", None), sealing("the new secret", None));
        let both = sealing("the new secret", Some("the old secret"));
        assert_eq!(both.key_id(), new.key_id());
        let of_old = old.seal("TOKEN", 1, b"t0ken-of-a-service", None);
        assert_eq!(both.open("TOKEN", 1, &of_old).unwrap(), b"t0ken-of-a-service");
        // The fleet still uses the old key, which every node has.
        let sealed = both.seal("TOKEN", 2, b"t0ken-of-a-service", Some(old.key_id()));
        assert!(old.open("TOKEN", 2, &sealed).is_ok());
        assert!(both.has(old.key_id()) && both.has(new.key_id()) && !old.has(new.key_id()));
        let sealed = both.seal("TOKEN", 3, b"t0ken-of-a-service", Some(new.key_id()));
        assert!(new.open("TOKEN", 3, &sealed).is_ok() && old.open("TOKEN", 3, &sealed).is_err());
        // A key that nobody here has: the present one.
        assert_eq!(both.seal("TOKEN", 4, b"t0ken-of-a-service", Some("0")).key_id, new.key_id());
    }

    /// Stored values must open with later versions of this build.
    #[test]
    fn the_derivation_of_the_key_never_changes() {
        let sealing = sealing("a secret of the nodes, which never changes", None);
        assert_eq!(sealing.key_id(), KEY_ID);
    }

    const KEY_ID: &str = "37a716d3ed4fff24";
}
