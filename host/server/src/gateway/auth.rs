//! Who is asking: verifies tokens and remembers the good ones. It finds no token in a request (`http` and `websocket` do),
//! and decides nothing about what the caller may do.

mod claims;
mod keys;
mod set;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::{Algorithm, Header};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::contract::types::Problem;
use crate::limits::{
    JWKS_WAITING_MAX, RSA_MODULUS_BYTES_MAX, RSA_MODULUS_BYTES_MIN, TOKEN_BYTES_MAX,
    TOKENS_REMEMBERED_BYTES_MAX, TOKENS_REMEMBERED_MAX, VERIFICATIONS_WAITING_MAX,
};
use crate::revocations::Known;
use crate::session::Credentials;
use crate::shutdown::ShutdownGuard;
use crate::wire::problem::Code;
use crate::wire::timestamp;
use claims::{Rejected, Rules};
use keys::Keys;
use set::Learned;

pub struct Auth {
    keys: Keys,
    rules: Rules,
    revoked: Arc<Known>,
    remembered: Mutex<Remembered>,
    /// Places on the blocking threads. Asymmetric signatures cost a tenth of a millisecond and more: on the threads that
    /// serve sockets they would be felt by everyone.
    workers: Semaphore,
    /// Callers that hold a place or wait for one.
    waiting: Semaphore,
    /// Callers whose tokens name a key that nobody knows, while key sets are read for them.
    asking: Semaphore,
}

#[derive(Debug)]
pub enum Error {
    Algorithm(String),
    Read(PathBuf, std::io::Error),
    Key(PathBuf),
    /// The bits of its modulus are outside of what is accepted.
    RsaSize(PathBuf, usize),
    KeySet(String, String),
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
            Self::RsaSize(path, bits) => write!(
                f,
                "{} holds an RSA key of {bits} bits; a key has {} to {} bits, because shorter ones can be forged and longer \
                 ones are slow",
                path.display(),
                RSA_MODULUS_BYTES_MIN * 8,
                RSA_MODULUS_BYTES_MAX * 8,
            ),
            Self::Key(path) => {
                write!(f, "{} holds no public key of a listed algorithm in PEM", path.display())
            }
            Self::KeySet(place, reason) => write!(f, "`jwt_jwks`: {place}: {reason}"),
            Self::NoKey => f.write_str(
                "neither `jwt_secret` nor `jwt_keys` nor `jwt_jwks` gives a key for a listed algorithm",
            ),
        }
    }
}

impl std::error::Error for Error {}

impl Auth {
    pub fn new(config: &Config, revoked: Arc<Known>) -> Result<Self, Error> {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            keys: Keys::new(config)?,
            rules: Rules {
                leeway_ms: config.jwt_leeway_s.saturating_mul(1000),
                issuer: config.jwt_issuer.clone(),
                audience: config.jwt_audience.clone(),
            },
            revoked,
            remembered: Mutex::default(),
            workers: Semaphore::new(workers),
            waiting: Semaphore::new(VERIFICATIONS_WAITING_MAX),
            asking: Semaphore::new(JWKS_WAITING_MAX),
        })
    }

    /// Reads the key sets, each in its time, until the process ends. The first time is the caller's to wait for.
    pub async fn follow(self: Arc<Self>, first: Option<Duration>, mut guard: ShutdownGuard) {
        let Some(mut wait) = first else { return };
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = guard.begun() => return,
            }
            match self.read_keys().await {
                Some(next) => wait = next,
                None => return,
            }
        }
    }

    /// When they are to be read again; `None` where there are none.
    pub async fn read_keys(&self) -> Option<Duration> {
        self.keys.read_again().await
    }

    /// For credentials that were verified before.
    pub fn is_revoked(&self, who: &Credentials) -> bool {
        self.revoked.has(who)
    }

    /// `unauthorized` where the token is not good, `unavailable` where it could not be looked at.
    pub async fn verify(self: &Arc<Self>, token: &str) -> Result<Arc<Credentials>, Problem> {
        let digest = digest(token);
        let now_ms = timestamp::now_ms();
        let generation = self.keys.generation();
        if let Some(known) = self.recall(&digest, generation, now_ms) {
            return known.map_err(Rejected::problem);
        }
        let verdict = self.judge(token, now_ms).await?;
        let label = verdict.as_ref().map_or_else(|rejected| rejected.as_str(), |_| "good");
        metrics::counter!("switchboard_tokens_total", "verdict" => label).increment(1);
        let credentials = Arc::new(verdict.map_err(Rejected::problem)?);
        self.remembered().insert(digest, generation, Arc::clone(&credentials));
        Ok(credentials)
    }

    async fn judge(
        self: &Arc<Self>,
        token: &str,
        now_ms: u64,
    ) -> Result<Result<Credentials, Rejected>, Problem> {
        let header = match header(token) {
            Ok(header) => Arc::new(header),
            Err(rejected) => return Ok(Err(rejected)),
        };
        if header.alg == Algorithm::HS256 {
            return Ok(self.verify_now(token, &header, now_ms));
        }
        let verdict = self.verify_apart(token, &header, now_ms).await?;
        let is_unknown = matches!(verdict, Err(Rejected::Algorithm | Rejected::Key | Rejected::Signature));
        if !is_unknown || !self.keys.may_learn(&header) {
            return Ok(verdict);
        }
        let _asking = self.asking.try_acquire().map_err(|_| busy())?;
        match self.keys.learn(&header).await {
            Learned::Changed => self.verify_apart(token, &header, now_ms).await,
            Learned::Unreadable if verdict != Err(Rejected::Signature) => {
                let detail = "the token's key is not known here, and the key set could not be read";
                Err(Code::Unavailable.problem(detail).retry_after_ms(1000))
            }
            Learned::Unreadable | Learned::Nothing => Ok(verdict),
        }
    }

    /// On a thread where it keeps nobody waiting.
    async fn verify_apart(
        self: &Arc<Self>,
        token: &str,
        header: &Arc<Header>,
        now_ms: u64,
    ) -> Result<Result<Credentials, Rejected>, Problem> {
        if !self.keys.may_know(header) {
            return Ok(self.verify_now(token, header, now_ms));
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| busy())?;
        let _worker = self.workers.acquire().await.map_err(|_| busy())?;
        let (auth, token, header) = (Arc::clone(self), token.to_owned(), header.clone());
        tokio::task::spawn_blocking(move || auth.verify_now(&token, &header, now_ms))
            .await
            .map_err(|_| Code::Internal.problem("the token could not be verified"))
    }

    fn verify_now(&self, token: &str, header: &Header, now_ms: u64) -> Result<Credentials, Rejected> {
        let credentials = self.rules.admit(self.keys.verify(token, header)?, now_ms)?;
        if self.revoked.has(&credentials) { Err(Rejected::Revoked) } else { Ok(credentials) }
    }

    fn recall(
        &self,
        digest: &TokenDigest,
        generation: u64,
        now_ms: u64,
    ) -> Option<Result<Arc<Credentials>, Rejected>> {
        let known = self.remembered().get(digest, generation)?;
        Some(if self.rules.is_over(known.expires_ms, now_ms) {
            Err(Rejected::Expired)
        } else if self.revoked.has(&known) {
            Err(Rejected::Revoked)
        } else {
            Ok(known)
        })
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy() -> Problem {
    metrics::counter!("switchboard_tokens_total", "verdict" => "busy").increment(1);
    Code::Unavailable.problem("too many tokens to verify").retry_after_ms(1000)
}

type TokenDigest = [u8; 32];

/// What was verified, by the token's digest: a token is never kept. Two halves: when the young one is full the old one
/// is forgotten, and whoever is asked for meanwhile is young again. When keys change, everything is verified anew: what a
/// key vouched for ends with the key.
#[derive(Default)]
struct Remembered {
    generation: u64,
    /// Of the young half.
    bytes: usize,
    young: HashMap<TokenDigest, Arc<Credentials>>,
    old: HashMap<TokenDigest, Arc<Credentials>>,
}

impl Remembered {
    fn get(&mut self, digest: &TokenDigest, generation: u64) -> Option<Arc<Credentials>> {
        self.at(generation);
        if let Some(known) = self.young.get(digest) {
            return Some(Arc::clone(known));
        }
        let known = self.old.remove(digest)?;
        self.insert(*digest, generation, Arc::clone(&known));
        Some(known)
    }

    /// `generation` is that of the keys before it was verified.
    fn insert(&mut self, digest: TokenDigest, generation: u64, credentials: Arc<Credentials>) {
        self.at(generation);
        if generation < self.generation {
            return;
        }
        let bytes = credentials.bytes();
        let is_full = self.young.len() >= TOKENS_REMEMBERED_MAX / 2
            || self.bytes + bytes > TOKENS_REMEMBERED_BYTES_MAX / 2;
        if is_full {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.young.insert(digest, credentials);
    }

    fn at(&mut self, generation: u64) {
        if generation > self.generation {
            *self = Self { generation, ..Self::default() };
        }
    }
}

fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token).into()
}

fn header(token: &str) -> Result<Header, Rejected> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Rejected::TooLong);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Rejected::NoToken)?;
    // Whoever does not understand what is critical must not accept it, and nothing is understood here (RFC 7515, 4.1.11).
    if header.crit.is_some() { Err(Rejected::Critical) } else { Ok(header) }
}

#[cfg(test)]
mod tests;
