//! One key with which tokens are verified: its algorithm and its id. It is parsed from a PEM file or from a
//! key set (JWKS).

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde_json::Value;
use tracing::warn;

use super::AuthError;
use switchboard_core::limits::{JWKS_KEYS_MAX, RSA_MODULUS_BYTES_MAX, RSA_MODULUS_BYTES_MIN};

pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) id: Option<Box<str>>,
    pub(super) key: DecodingKey,
}

impl Key {
    pub(super) fn may_have_signed(&self, header: &Header) -> bool {
        self.algorithm == header.alg
            && match (&self.id, &header.kid) {
                (Some(ours), Some(named)) => **ours == **named,
                _ => true,
            }
    }

    pub(super) fn is_named(&self, header: &Header) -> bool {
        self.algorithm == header.alg && header.kid.is_some() && self.id.as_deref() == header.kid.as_deref()
    }
}

/// Returns the keys of a set that this host can use. Keys of another kind, use or size are left out, as RFC
/// 7517 requires.
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

pub(super) fn pem(path: &Path, algorithms: &[Algorithm]) -> Result<Key, AuthError> {
    let pem = fs::read(path).map_err(|error| AuthError::Read(path.to_owned(), error))?;
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
        .ok_or_else(|| AuthError::Key(path.to_owned()))?;
    if key.algorithm == Algorithm::RS256 {
        let modulus = key.key.try_get_as_bytes().ok().and_then(modulus);
        // The first number of a private key is its version.
        let modulus = modulus.filter(|modulus| modulus.len() > 1);
        let bits = bits(modulus.ok_or_else(|| AuthError::Key(path.to_owned()))?);
        if !is_rsa_size(bits) {
            return Err(AuthError::RsaSize(path.to_owned(), bits));
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
