//! The keys with which tokens are verified: the secret, public keys in PEM, and key sets (JWKS), which are
//! read again when a token names a missing key. The kind of the key decides the algorithm, never the token:
//! otherwise a public key could be used as a secret.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde_json::Value;
use tracing::warn;

use super::Error;
use super::claims::{Claims, Rejected};
use super::set::{KeySet, Reload};
use switchboard_core::config::Config;
use switchboard_core::limits::{JWKS_KEYS_MAX, RSA_MODULUS_BYTES_MAX, RSA_MODULUS_BYTES_MIN};

pub(super) struct Keys {
    algorithms: Arc<[Algorithm]>,
    /// Keys of one algorithm are tried in turn, so that keys can be rotated without key ids.
    fixed: Vec<Key>,
    sets: Vec<Arc<KeySet>>,
    /// Counts the changes of the sets: a token that was verified before a change may have been signed with a
    /// removed key.
    generation: Arc<AtomicU64>,
}

pub(super) struct Key {
    algorithm: Algorithm,
    id: Option<Box<str>>,
    key: DecodingKey,
}

impl Keys {
    /// Reads the keys in files; a bad file is an error. [`Keys::read_again`] reads URLs.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let algorithms: Arc<[Algorithm]> =
            config.jwt_algorithms.iter().map(|name| algorithm(name)).collect::<Result<_, _>>()?;
        let mut fixed = Vec::new();
        if let Some(secret) = &config.jwt_secret
            && algorithms.contains(&Algorithm::HS256)
        {
            let key = DecodingKey::from_secret(secret.as_bytes());
            fixed.push(Key { algorithm: Algorithm::HS256, id: None, key });
        }
        for path in &config.jwt_keys {
            fixed.push(pem(path, &algorithms)?);
        }
        let generation = Arc::default();
        let sets = config
            .jwt_jwks
            .iter()
            .map(|place| KeySet::of(place, &algorithms, &generation))
            .collect::<Result<Vec<_>, _>>()?;
        if fixed.is_empty() && sets.is_empty() {
            return Err(Error::NoUsableKey);
        }
        Ok(Self { algorithms, fixed, sets, generation })
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// True when one of the keys could have signed the token.
    pub(super) fn may_know(&self, header: &Header) -> bool {
        self.fixed.iter().any(|key| key.may_have_signed(header))
            || self.sets.iter().any(|set| set.keys().iter().any(|key| key.may_have_signed(header)))
    }

    /// True when reading the sets again could find the key that the token names. Never for HMAC, because a
    /// set holds no secrets.
    pub(super) fn may_find_by_reload(&self, header: &Header) -> bool {
        let is_public = header.alg != Algorithm::HS256 && self.algorithms.contains(&header.alg);
        is_public
            && self.sets.iter().any(|set| !set.is_read() || header.kid.is_some())
            && !self.sets.iter().any(|set| set.keys().iter().any(|key| key.is_named(header)))
    }

    /// Verifies the signature. The claims are not checked here.
    pub(super) fn verify(&self, token: &str, header: &Header) -> Result<Claims, Rejected> {
        let mut verdict = Err(match self.algorithms.contains(&header.alg) {
            true if header.kid.is_some() && !self.sets.is_empty() => Rejected::Key,
            _ => Rejected::Algorithm,
        });
        let mut try_with = |key: &Key| {
            verdict = match jsonwebtoken::decode::<Claims>(token, &key.key, &signature_only(key.algorithm)) {
                Ok(token) => Ok(token.claims),
                Err(error) => Err(match error.kind() {
                    jsonwebtoken::errors::ErrorKind::Json(_) => Rejected::Claims,
                    _ => Rejected::Signature,
                }),
            };
            verdict.is_ok()
        };
        let fixed = self.fixed.iter().filter(|key| key.may_have_signed(header)).any(&mut try_with);
        if !fixed {
            let _ = self
                .sets
                .iter()
                .any(|set| set.keys().iter().filter(|key| key.may_have_signed(header)).any(&mut try_with));
        }
        verdict
    }

    /// Reads the sets for the key that this token names, as far as the bounds allow.
    pub(super) async fn reload_for(&self, header: &Header) -> Reload {
        let is_there = |keys: &[Key]| keys.iter().any(|key| key.is_named(header));
        let reloads = join_all(self.sets.iter().map(|set| set.reload_for(is_there))).await;
        reloads.into_iter().max().unwrap_or(Reload::Nothing)
    }

    /// Reads all sets at their interval. Returns the time until the next reading.
    pub(super) async fn read_again(&self) -> Option<Duration> {
        join_all(self.sets.iter().map(|set| set.read_again())).await.into_iter().min()
    }
}

impl Key {
    fn may_have_signed(&self, header: &Header) -> bool {
        self.algorithm == header.alg
            && match (&self.id, &header.kid) {
                (Some(ours), Some(named)) => **ours == **named,
                _ => true,
            }
    }

    fn is_named(&self, header: &Header) -> bool {
        self.algorithm == header.alg && header.kid.is_some() && self.id.as_deref() == header.kid.as_deref()
    }
}

/// Returns the keys of a set that this host can use. Keys of another kind, use or size are left out, as RFC
/// 7517 says.
pub(super) fn parse_set(document: &[u8], algorithms: &[Algorithm]) -> Result<Vec<Key>, String> {
    let document: Value = serde_json::from_slice(document).map_err(|error| format!("not JSON: {error}"))?;
    let listed = document["keys"].as_array().ok_or("not a JSON Web Key Set: `keys` is not a list")?;
    if listed.len() > JWKS_KEYS_MAX {
        return Err(format!("more than {JWKS_KEYS_MAX} keys"));
    }
    let read = |jwk: &Value| key(&serde_json::from_value::<Jwk>(jwk.clone()).ok()?, algorithms);
    Ok(listed.iter().filter_map(read).collect())
}

fn key(jwk: &Jwk, algorithms: &[Algorithm]) -> Option<Key> {
    let (algorithm, declared) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = BASE64_URL_SAFE_NO_PAD.decode(&rsa.n).ok()?;
            if !is_rsa_size(bits(&modulus)) {
                let key = jwk.common.key_id.as_deref().unwrap_or("");
                warn!(
                    key,
                    bits = bits(&modulus),
                    "an RSA key of a key set is ignored, because its size is not accepted"
                );
                return None;
            }
            (Algorithm::RS256, KeyAlgorithm::RS256)
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(ed) if ed.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        // Also for a symmetric key: a published secret is not a secret.
        _ => return None,
    };
    let is_for_us = algorithms.contains(&algorithm)
        && jwk.common.key_algorithm.is_none_or(|named| named == declared)
        && jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let key = is_for_us.then(|| DecodingKey::from_jwk(jwk).ok())??;
    Some(Key { algorithm, id: jwk.common.key_id.as_deref().map(Into::into), key })
}

fn pem(path: &Path, algorithms: &[Algorithm]) -> Result<Key, Error> {
    let pem = fs::read(path).map_err(|error| Error::Read(path.to_owned(), error))?;
    type Parse = fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>;
    let kinds: [(Algorithm, Parse); 3] = [
        (Algorithm::EdDSA, DecodingKey::from_ed_pem),
        (Algorithm::ES256, DecodingKey::from_ec_pem),
        (Algorithm::RS256, DecodingKey::from_rsa_pem),
    ];
    let key = kinds
        .into_iter()
        .filter(|(algorithm, _)| algorithms.contains(algorithm))
        .find_map(|(algorithm, parse)| Some(Key { algorithm, id: None, key: parse(&pem).ok()? }))
        .ok_or_else(|| Error::Key(path.to_owned()))?;
    if key.algorithm == Algorithm::RS256 {
        let modulus = key.key.try_get_as_bytes().ok().and_then(modulus);
        // The first number of a private key is its version.
        let modulus = modulus.filter(|modulus| modulus.len() > 1);
        let bits = bits(modulus.ok_or_else(|| Error::Key(path.to_owned()))?);
        if !is_rsa_size(bits) {
            return Err(Error::RsaSize(path.to_owned(), bits));
        }
    }
    Ok(key)
}

fn is_rsa_size(bits: usize) -> bool {
    (RSA_MODULUS_BYTES_MIN * 8..=RSA_MODULUS_BYTES_MAX * 8).contains(&bits)
}

/// The number of significant bits of a big-endian number.
fn bits(number: &[u8]) -> usize {
    let significant = number.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &number[first..]);
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

/// Returns the modulus of an `RSAPublicKey` of PKCS #1 in DER: a sequence whose first element is this
/// integer.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    content(content(der, SEQUENCE)?, INTEGER)
}

/// Returns the content of the first element of `der`, if it has this tag.
fn content(der: &[u8], tag: u8) -> Option<&[u8]> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    // A short length, or the number of bytes that hold it.
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.get(..length)
}

/// Only the signature is verified by the crate; `claims::Rules` checks the claims, with the clock as a
/// parameter.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn algorithm(name: &str) -> Result<Algorithm, Error> {
    match name {
        "HS256" => Ok(Algorithm::HS256),
        "RS256" => Ok(Algorithm::RS256),
        "ES256" => Ok(Algorithm::ES256),
        "EdDSA" => Ok(Algorithm::EdDSA),
        _ => Err(Error::Algorithm(name.to_owned())),
    }
}
