//! The keys with which tokens are verified: the secret, public keys in PEM, and key sets (JWKS), which are
//! read again when a token names a missing key. The kind of the key decides the algorithm, never the token:
//! otherwise a public key could be used as a secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};

use super::AuthError;
use super::claims::{Claims, Rejected};
use super::key::{Key, pem};
use super::set::{KeySet, Reload};
use switchboard_core::config::Config;

pub(super) struct Keys {
    algorithms: Arc<[Algorithm]>,
    /// Keys of one algorithm are tried in turn, so that keys can be rotated without key ids.
    fixed: Vec<Key>,
    sets: Vec<Arc<KeySet>>,
    /// Counts the changes of the sets: a token that was verified before a change may have been signed with a
    /// removed key.
    generation: Arc<AtomicU64>,
}

impl Keys {
    /// Reads the keys in files; a bad file is an error. [`Keys::read_again`] reads URLs.
    pub(super) fn new(config: &Config) -> Result<Self, AuthError> {
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
            return Err(AuthError::NoUsableKey);
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

/// Only the signature is verified by the crate; `claims::Rules` checks the claims, with the clock as a
/// parameter.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn algorithm(name: &str) -> Result<Algorithm, AuthError> {
    match name {
        "HS256" => Ok(Algorithm::HS256),
        "RS256" => Ok(Algorithm::RS256),
        "ES256" => Ok(Algorithm::ES256),
        "EdDSA" => Ok(Algorithm::EdDSA),
        _ => Err(AuthError::Algorithm(name.to_owned())),
    }
}
