//! Verifies tokens and caches the valid ones. This module finds no token in a request (`http` and `websocket`
//! do), and does not decide what the caller may do.

mod claims;
mod key;
mod keys;
mod set;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, Header};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::revocations::RevocationList;
use claims::{Rejected, Rules};
use keys::Keys;
use set::Reload;
use switchboard_contract::types::Problem;
use switchboard_core::config::Config;
use switchboard_core::limits::{
    JWKS_WAITING_MAX, RETRY_AFTER, RSA_MODULUS_BYTES_MAX, RSA_MODULUS_BYTES_MIN, TOKEN_BYTES_MAX,
    TOKENS_REMEMBERED_BYTES_MAX, TOKENS_REMEMBERED_MAX, VERIFICATIONS_WAITING_MAX,
};
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_core::timestamp;
use switchboard_core::{Blame, Blamed};
use switchboard_protocol::session::Credentials;
use switchboard_protocol::wire::problem::Code;

pub struct Auth {
    keys: Keys,
    rules: Rules,
    revoked: Arc<RevocationList>,
    cache: Mutex<TokenCache>,
    /// Slots on the blocking threads. An asymmetric signature takes a tenth of a millisecond or more, which
    /// would delay every socket of the thread that verified it.
    workers: Semaphore,
    /// Callers that hold a slot or wait for one.
    waiting: Semaphore,
    /// Callers whose token names an unknown key, while key sets are read for them.
    reloading: Semaphore,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("`jwt_algorithms` names `{0}`, which is not supported: use HS256, RS256, ES256 or EdDSA")]
    Algorithm(String),
    #[error("cannot read {path}: {1}", path = .0.display())]
    Read(PathBuf, std::io::Error),
    #[error("{path} holds no public key of a listed algorithm in PEM", path = .0.display())]
    Key(PathBuf),
    /// The number of bits of its modulus is not accepted.
    #[error(
        "{path} holds an RSA key of {1} bits; a key must have {min} to {max} bits, because shorter keys can be forged and \
         longer ones are slow",
        path = .0.display(),
        min = RSA_MODULUS_BYTES_MIN * 8,
        max = RSA_MODULUS_BYTES_MAX * 8,
    )]
    RsaSize(PathBuf, usize),
    #[error("`jwt_jwks`: {0}: {1}")]
    KeySet(String, String),
    /// No key is configured, so no user could sign in.
    #[error(
        "no key for an algorithm of `jwt_algorithms` is configured: set `jwt_secret`, `jwt_keys` or `jwt_jwks`"
    )]
    NoUsableKey,
}

/// Every variant is about a setting, or a file that a setting names.
impl Blamed for AuthError {
    fn blame(&self) -> Blame {
        Blame::Operator
    }
}

impl Auth {
    pub fn new(config: &Config, revoked: Arc<RevocationList>) -> Result<Self, AuthError> {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            keys: Keys::new(config)?,
            rules: Rules {
                leeway_ms: config.jwt_leeway_s.saturating_mul(1000),
                issuer: config.jwt_issuer.clone(),
                audience: config.jwt_audience.clone(),
            },
            revoked,
            cache: Mutex::default(),
            workers: Semaphore::new(workers),
            waiting: Semaphore::new(VERIFICATIONS_WAITING_MAX),
            reloading: Semaphore::new(JWKS_WAITING_MAX),
        })
    }

    /// Reads each key set at its intervals until the shutdown begins. The caller has done the first reading
    /// and passes the time until the next one.
    pub async fn follow_keys(self: Arc<Self>, first: Option<Duration>, mut guard: ShutdownGuard) {
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

    /// Reads the key sets. Returns the time until the next reading, or `None` when there are no sets.
    pub async fn read_keys(&self) -> Option<Duration> {
        self.keys.read_again().await
    }

    /// True when these credentials, which were verified before, are revoked now.
    pub fn is_revoked(&self, who: &Credentials) -> bool {
        self.revoked.has(who)
    }

    /// Verifies a token. Fails with `unauthorized` when the token is not valid, and with `unavailable` when
    /// it could not be verified now.
    pub async fn verify(self: &Arc<Self>, token: &str) -> Result<Arc<Credentials>, Problem> {
        let digest = digest(token);
        let now_ms = timestamp::now_ms();
        let generation = self.keys.generation();
        if let Some(known) = self.cached(&digest, generation, now_ms) {
            return known.map_err(Rejected::problem);
        }
        let verdict = self.judge(token, now_ms).await?;
        let label = verdict.as_ref().map_or_else(|rejected| rejected.as_str(), |_| "good");
        metrics::counter!("switchboard_tokens_total", "verdict" => label).increment(1);
        let credentials = Arc::new(verdict.map_err(Rejected::problem)?);
        self.cache().insert(digest, generation, Arc::clone(&credentials));
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
        let verdict = self.verify_on_worker(token, &header, now_ms).await?;
        let is_unknown = matches!(verdict, Err(Rejected::Algorithm | Rejected::Key | Rejected::Signature));
        if !is_unknown || !self.keys.may_find_by_reload(&header) {
            return Ok(verdict);
        }
        let _reloading = self.reloading.try_acquire().map_err(|_| busy())?;
        match self.keys.reload_for(&header).await {
            Reload::Changed => self.verify_on_worker(token, &header, now_ms).await,
            Reload::Unreadable if verdict != Err(Rejected::Signature) => {
                let detail = "the token's key is unknown, and the key set could not be read";
                Err(Code::Unavailable.problem(detail).retry_after(RETRY_AFTER))
            }
            Reload::Unreadable | Reload::Nothing => Ok(verdict),
        }
    }

    /// Verifies on a blocking thread, so that sockets do not wait.
    async fn verify_on_worker(
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

    fn cached(
        &self,
        digest: &TokenDigest,
        generation: u64,
        now_ms: u64,
    ) -> Option<Result<Arc<Credentials>, Rejected>> {
        let known = self.cache().get(digest, generation)?;
        Some(if self.rules.is_expired(known.expires_ms, now_ms) {
            Err(Rejected::Expired)
        } else if self.revoked.has(&known) {
            Err(Rejected::Revoked)
        } else {
            Ok(known)
        })
    }

    fn cache(&self) -> parking_lot::MutexGuard<'_, TokenCache> {
        self.cache.lock()
    }
}

fn busy() -> Problem {
    metrics::counter!("switchboard_tokens_total", "verdict" => "busy").increment(1);
    Code::Unavailable.problem("too many tokens are being verified: try again later").retry_after(RETRY_AFTER)
}

type TokenDigest = [u8; 32];

/// The verified credentials by the digest of their token; the token itself is never stored. There are two
/// halves. When the young half is full, the old half is discarded; an entry of the old half that is used
/// moves to the young one. When keys change, all entries are discarded, because a removed key must not count
/// any more.
#[derive(Default)]
struct TokenCache {
    generation: u64,
    /// The bytes of the young half.
    bytes: usize,
    young: HashMap<TokenDigest, Arc<Credentials>>,
    old: HashMap<TokenDigest, Arc<Credentials>>,
}

impl TokenCache {
    fn get(&mut self, digest: &TokenDigest, generation: u64) -> Option<Arc<Credentials>> {
        self.enter_generation(generation);
        if let Some(known) = self.young.get(digest) {
            return Some(Arc::clone(known));
        }
        let known = self.old.remove(digest)?;
        self.insert(*digest, generation, Arc::clone(&known));
        Some(known)
    }

    /// `generation` is the keys' generation before the token was verified.
    fn insert(&mut self, digest: TokenDigest, generation: u64, credentials: Arc<Credentials>) {
        self.enter_generation(generation);
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

    fn enter_generation(&mut self, generation: u64) {
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
    // A critical header that is not understood must be refused, and none is understood here (RFC 7515,
    // 4.1.11).
    if header.crit.is_some() { Err(Rejected::Critical) } else { Ok(header) }
}

#[cfg(test)]
mod tests;
