//! Who is asking: verifies tokens and remembers the good ones. It finds no token in a request (`http` and `websocket` do),
//! and decides nothing about what the caller may do.

mod claims;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::contract::types::Problem;
use crate::limits::{TOKEN_BYTES_MAX, TOKENS_REMEMBERED_MAX, VERIFICATIONS_WAITING_MAX};
use crate::session::Credentials;
use crate::wire::problem::Code;
use claims::{Claims, Rejected, Rules};

pub struct Auth {
    /// Several of one algorithm are tried in turn: that is how keys are rotated without a key id.
    keys: Vec<Key>,
    rules: Rules,
    remembered: Mutex<Remembered>,
    /// Places on the blocking threads. Asymmetric signatures cost a tenth of a millisecond and more: on the threads that
    /// serve sockets they would be felt by everyone.
    workers: Semaphore,
    /// Callers that hold a place or wait for one.
    waiting: Semaphore,
}

struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Debug)]
pub enum Error {
    Algorithm(String),
    Read(PathBuf, std::io::Error),
    Key(PathBuf),
    /// Nobody could ever sign in.
    NoKey,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Algorithm(name) => {
                write!(f, "`jwt_algorithms` names `{name}`; known are HS256, RS256, ES256 and EdDSA")
            }
            Self::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Key(path) => {
                write!(f, "{} holds no public key of a listed algorithm in PEM", path.display())
            }
            Self::NoKey => {
                f.write_str("neither `jwt_secret` nor `jwt_keys` gives a key for a listed algorithm")
            }
        }
    }
}

impl std::error::Error for Error {}

impl Auth {
    pub fn new(config: &Config) -> Result<Self, Error> {
        let algorithms =
            config.jwt_algorithms.iter().map(|name| algorithm(name)).collect::<Result<Vec<_>, _>>()?;
        let mut keys = Vec::new();
        if let Some(secret) = &config.jwt_secret
            && algorithms.contains(&Algorithm::HS256)
        {
            let key = DecodingKey::from_secret(secret.as_bytes());
            keys.push(Key { algorithm: Algorithm::HS256, key });
        }
        for path in &config.jwt_keys {
            keys.push(public_key(path, &algorithms)?);
        }
        if keys.is_empty() {
            return Err(Error::NoKey);
        }
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            keys,
            rules: Rules {
                leeway_ms: config.jwt_leeway_s.saturating_mul(1000),
                issuer: config.jwt_issuer.clone(),
                audience: config.jwt_audience.clone(),
            },
            remembered: Mutex::default(),
            workers: Semaphore::new(workers),
            waiting: Semaphore::new(VERIFICATIONS_WAITING_MAX),
        })
    }

    /// `unauthorized` where the token is not good, `unavailable` where it could not be looked at.
    pub async fn verify(self: &Arc<Self>, token: &str) -> Result<Arc<Credentials>, Problem> {
        let digest = digest(token);
        let now_ms = unix_ms();
        if let Some(known) = self.recall(&digest, now_ms) {
            return known.map_err(Rejected::problem);
        }
        let verdict = match header(token) {
            Ok(Algorithm::HS256) => self.verify_now(token, now_ms),
            Ok(algorithm) if self.keys.iter().any(|key| key.algorithm == algorithm) => {
                let busy = || {
                    metrics::counter!("switchboard_tokens_total", "verdict" => "busy").increment(1);
                    Code::Unavailable.problem("too many tokens to verify").retry_after_ms(1000)
                };
                let _waiting = self.waiting.try_acquire().map_err(|_| busy())?;
                let _worker = self.workers.acquire().await.map_err(|_| busy())?;
                let (auth, token) = (Arc::clone(self), token.to_owned());
                tokio::task::spawn_blocking(move || auth.verify_now(&token, now_ms))
                    .await
                    .map_err(|_| Code::Internal.problem("the token could not be verified"))?
            }
            Ok(_) => Err(Rejected::Algorithm),
            Err(rejected) => Err(rejected),
        };
        let label = verdict.as_ref().map_or_else(|rejected| rejected.as_str(), |_| "good");
        metrics::counter!("switchboard_tokens_total", "verdict" => label).increment(1);
        let credentials = Arc::new(verdict.map_err(Rejected::problem)?);
        self.remember(digest, &credentials);
        Ok(credentials)
    }

    fn verify_now(&self, token: &str, now_ms: u64) -> Result<Credentials, Rejected> {
        let algorithm = header(token)?;
        let mut verdict = Err(Rejected::Algorithm);
        for key in self.keys.iter().filter(|key| key.algorithm == algorithm) {
            verdict = match jsonwebtoken::decode::<Claims>(token, &key.key, &signature_only(algorithm)) {
                Ok(token) => return self.rules.admit(token.claims, now_ms),
                Err(error) => Err(match error.kind() {
                    jsonwebtoken::errors::ErrorKind::Json(_) => Rejected::Claims,
                    _ => Rejected::Signature,
                }),
            };
        }
        verdict
    }

    fn recall(&self, digest: &TokenDigest, now_ms: u64) -> Option<Result<Arc<Credentials>, Rejected>> {
        let known = self.remembered().get(digest)?;
        Some(if self.rules.is_over(known.expires_ms, now_ms) { Err(Rejected::Expired) } else { Ok(known) })
    }

    fn remember(&self, digest: TokenDigest, credentials: &Arc<Credentials>) {
        self.remembered().insert(digest, Arc::clone(credentials));
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970 UTC.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

type TokenDigest = [u8; 32];

/// What was verified, by the token's digest: a token is never kept. Two generations: when the young one is full the old one
/// is forgotten, and whoever is asked for meanwhile is young again.
#[derive(Default)]
struct Remembered {
    young: HashMap<TokenDigest, Arc<Credentials>>,
    old: HashMap<TokenDigest, Arc<Credentials>>,
}

impl Remembered {
    fn get(&mut self, digest: &TokenDigest) -> Option<Arc<Credentials>> {
        if let Some(known) = self.young.get(digest) {
            return Some(Arc::clone(known));
        }
        let known = self.old.remove(digest)?;
        self.insert(*digest, Arc::clone(&known));
        Some(known)
    }

    fn insert(&mut self, digest: TokenDigest, credentials: Arc<Credentials>) {
        if self.young.len() >= TOKENS_REMEMBERED_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, credentials);
    }
}

fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token).into()
}

fn header(token: &str) -> Result<Algorithm, Rejected> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Rejected::NoToken);
    }
    jsonwebtoken::decode_header(token).map(|header| header.alg).map_err(|_| Rejected::NoToken)
}

/// The crate checks signatures; claims are checked by [`Rules`], whose clock is a parameter.
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

/// The kind of the key says the algorithm, never the token: a public key is no HMAC secret.
fn public_key(path: &Path, algorithms: &[Algorithm]) -> Result<Key, Error> {
    let pem = fs::read(path).map_err(|error| Error::Read(path.to_owned(), error))?;
    type Parse = fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>;
    let kinds: [(Algorithm, Parse); 3] = [
        (Algorithm::EdDSA, DecodingKey::from_ed_pem),
        (Algorithm::ES256, DecodingKey::from_ec_pem),
        (Algorithm::RS256, DecodingKey::from_rsa_pem),
    ];
    kinds
        .into_iter()
        .filter(|(algorithm, _)| algorithms.contains(algorithm))
        .find_map(|(algorithm, parse)| Some(Key { algorithm, key: parse(&pem).ok()? }))
        .ok_or_else(|| Error::Key(path.to_owned()))
}

#[cfg(test)]
mod tests;
