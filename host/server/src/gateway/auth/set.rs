//! One key set (JWKS), from a file or a URL. It is read at intervals, and again when a token names a key that
//! the set lacks. There is one reading at a time, and their number is bounded. When a reading fails, the keys
//! stay unchanged.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hyper::Uri;
use hyper::header::ACCEPT;
use jsonwebtoken::Algorithm;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::AuthError;
use super::key::{Key, parse_set};
use switchboard_core::ids::Digest;
use switchboard_core::limits::{
    JWKS_AGAIN_AFTER_MIN, JWKS_BYTES_MAX, JWKS_EVERY, JWKS_READ_AGAIN_AFTER, JWKS_READS_AT_ONCE, JWKS_WAIT,
};
use switchboard_http::fetch;

pub(super) struct KeySet {
    source: Source,
    algorithms: Arc<[Algorithm]>,
    /// None before the first successful reading.
    read: ArcSwapOption<Read>,
    reading: Arc<Mutex<ReadState>>,
    /// Counts the changes of all sets. It is counted here, where a change happens, because the caller that
    /// caused the reading may have left.
    generation: Arc<AtomicU64>,
}

struct Read {
    document: Digest,
    keys: Vec<Key>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(Uri),
}

/// Locked during a reading. Another caller with an unknown key waits for this reading instead of starting
/// one.
struct ReadState {
    /// The number of readings that tokens may still start. It grows by one every [`JWKS_READ_AGAIN_AFTER`].
    left: u32,
    counted_at: Instant,
    /// Consecutive failures of the periodic reading.
    failures: u32,
    /// True when the last reading failed, so that a missing key may exist.
    last_unreadable: bool,
}

/// The result of a reading, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reload {
    Nothing,
    /// The set could not be read, so it is unknown whether the key exists.
    Unreadable,
    Changed,
}

impl KeySet {
    pub(super) fn of(
        place: &str,
        algorithms: &Arc<[Algorithm]>,
        generation: &Arc<AtomicU64>,
    ) -> Result<Arc<Self>, AuthError> {
        let set = Self {
            source: Source::parse(place)?,
            algorithms: algorithms.clone(),
            read: ArcSwapOption::empty(),
            reading: Arc::new(Mutex::new(ReadState::at(Instant::now()))),
            generation: generation.clone(),
        };
        // A file that is wrong at the start is an error of the settings.
        if let Source::File(path) = &set.source {
            let document = std::fs::read(path).map_err(|error| AuthError::Read(path.clone(), error))?;
            set.store(&document).map_err(|reason| AuthError::KeySet(place.to_owned(), reason))?;
        }
        Ok(Arc::new(set))
    }

    pub(super) fn is_read(&self) -> bool {
        self.read.load().is_some()
    }

    pub(super) fn keys(&self) -> KeysOfSet {
        KeysOfSet(self.read.load_full())
    }

    /// Reads the set for a token that names a missing key. A reading that it starts is completed even when
    /// the caller leaves: it was counted, and the next caller should find its result.
    pub(super) async fn reload_for(self: &Arc<Self>, is_there: impl Fn(&[Key]) -> bool) -> Reload {
        let asked = async {
            let mut reading = self.reading.clone().lock_owned().await;
            if is_there(&self.keys()) {
                return Reload::Changed;
            }
            if !reading.may_read(Instant::now()) {
                let is_unknown = reading.last_unreadable || !self.is_read();
                return if is_unknown { Reload::Unreadable } else { Reload::Nothing };
            }
            let set = self.clone();
            let read = tokio::spawn(async move { set.read_now(&mut reading).await });
            read.await.unwrap_or(Reload::Unreadable)
        };
        timeout(JWKS_WAIT, asked).await.unwrap_or(Reload::Unreadable)
    }

    /// Reads the set at its interval. Returns the time until the next reading.
    pub(super) async fn read_again(&self) -> Duration {
        let mut reading = self.reading.lock().await;
        if self.read_now(&mut reading).await != Reload::Unreadable {
            reading.failures = 0;
            return JWKS_EVERY;
        }
        let wait = JWKS_AGAIN_AFTER_MIN * 2u32.saturating_pow(reading.failures.min(16));
        reading.failures += 1;
        wait.min(JWKS_EVERY)
    }

    async fn read_now(&self, reading: &mut ReadState) -> Reload {
        let document = timeout(JWKS_WAIT, self.source.read()).await;
        let document = document.unwrap_or_else(|_| Err(format!("no answer within {JWKS_WAIT:?}")));
        let reload = document.and_then(|document| self.store(&document)).unwrap_or_else(|reason| {
            warn!(source = %self.source, reason, "a key set could not be read; its keys stay unchanged");
            Reload::Unreadable
        });
        reading.last_unreadable = reload == Reload::Unreadable;
        reload
    }

    fn store(&self, document: &[u8]) -> Result<Reload, String> {
        let digest = Digest::of(document);
        if self.read.load().as_ref().is_some_and(|read| read.document == digest) {
            return Ok(Reload::Nothing);
        }
        let keys = parse_set(document, &self.algorithms)?;
        info!(source = %self.source, keys = keys.len(), "read a key set");
        self.read.store(Some(Arc::new(Read { document: digest, keys })));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(Reload::Changed)
    }
}

/// The keys at the time of the call.
pub(super) struct KeysOfSet(Option<Arc<Read>>);

impl std::ops::Deref for KeysOfSet {
    type Target = [Key];

    fn deref(&self) -> &[Key] {
        self.0.as_ref().map_or(&[], |read| &read.keys)
    }
}

impl Source {
    fn parse(place: &str) -> Result<Self, AuthError> {
        if !place.contains("://") {
            return Ok(Self::File(place.into()));
        }
        let wrong = |reason: &str| AuthError::KeySet(place.to_owned(), reason.to_owned());
        let url: Uri = place.parse().map_err(|_| wrong("not a URL"))?;
        fetch::check(&url).map_err(|error| wrong(&error.to_string()))?;
        Ok(Self::Url(url))
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Url(url) => {
                let accept = [(ACCEPT, "application/json")];
                let answer =
                    fetch::get(url, &accept, JWKS_BYTES_MAX).await.map_err(|error| error.to_string())?;
                match answer.status {
                    200 => Ok(answer.body.to_vec()),
                    status => Err(format!("status {status}")),
                }
            }
            Self::File(path) => {
                let length = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
                if length > JWKS_BYTES_MAX as u64 {
                    return Err(format!("larger than {JWKS_BYTES_MAX} bytes"));
                }
                tokio::fs::read(path).await.map_err(|error| error.to_string())
            }
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            // Without the query, which may hold a secret of the operator.
            Self::Url(url) => {
                write!(f, "{}://{}{}", url.scheme_str().unwrap_or(""), url.host().unwrap_or(""), url.path())
            }
        }
    }
}

impl ReadState {
    fn at(now: Instant) -> Self {
        Self { left: JWKS_READS_AT_ONCE, counted_at: now, failures: 0, last_unreadable: false }
    }

    fn may_read(&mut self, now: Instant) -> bool {
        let back = now.duration_since(self.counted_at).as_secs() / JWKS_READ_AGAIN_AFTER.as_secs();
        if back > 0 {
            self.left = self.left.saturating_add(back.min(1000) as u32).min(JWKS_READS_AT_ONCE);
            self.counted_at = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn tokens_cause_a_bounded_number_of_readings() {
        let now = Instant::now();
        let mut reading = ReadState::at(now);
        let mut taken = |at: Instant| (0..1000).filter(|_| reading.may_read(at)).count() as u32;
        assert_eq!(taken(now), JWKS_READS_AT_ONCE);
        assert_eq!(taken(now + JWKS_READ_AGAIN_AFTER), 1);
        assert_eq!(taken(now + JWKS_READ_AGAIN_AFTER * 1000), JWKS_READS_AT_ONCE);
    }

    /// A set by URL, and its provider.
    async fn provided() -> (Arc<KeySet>, TcpListener) {
        let provider = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = format!("http://{}/keys", provider.local_addr().unwrap());
        (KeySet::of(&place, &[Algorithm::EdDSA].into(), &Arc::default()).unwrap(), provider)
    }

    #[tokio::test]
    async fn a_reading_that_was_counted_is_finished_also_when_the_asker_leaves() {
        let (set, provider) = provided().await;
        let mut asks = Box::pin(set.reload_for(|_| false));
        let (mut asked, _) = tokio::select! {
            asked = provider.accept() => asked.unwrap(),
            _ = &mut asks => panic!("nobody answered"),
        };
        drop(asks);
        let body = r#"{"keys":[]}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        asked.write_all(answer.as_bytes()).await.unwrap();
        // The lock is free after the reading.
        let reading = timeout(JWKS_WAIT, set.reading.lock()).await.expect("the reading ends");
        assert!(set.is_read() && !reading.last_unreadable);
        assert_eq!((set.generation.load(Ordering::Acquire), reading.left), (1, JWKS_READS_AT_ONCE - 1));
    }

    #[tokio::test]
    async fn without_readings_left_a_set_that_could_not_be_read_is_still_unknown() {
        let (set, provider) = provided().await;
        // The provider is not reachable any more.
        drop(provider);
        for _ in 0..3 * JWKS_READS_AT_ONCE {
            assert_eq!(set.reload_for(|_| false).await, Reload::Unreadable);
        }
        assert_eq!(set.reading.lock().await.left, 0);

        // A set that was read long ago and cannot be read now: it is unknown whether it has the key.
        set.store(br#"{"keys":[]}"#).unwrap();
        assert_eq!(set.reload_for(|_| false).await, Reload::Unreadable);
        set.reading.lock().await.last_unreadable = false;
        assert_eq!(set.reload_for(|_| false).await, Reload::Nothing);
    }

    #[test]
    fn a_source_is_a_file_https_or_this_machine() {
        let parse = |place: &str| Source::parse(place).map_err(|error| error.to_string());
        assert!(matches!(parse("keys/set.json"), Ok(Source::File(_))));
        for url in
            ["https://id.example/keys", "http://127.0.0.1:9/keys", "http://localhost/k", "http://[::1]:1/"]
        {
            assert!(matches!(parse(url), Ok(Source::Url(_))), "{url}");
        }
        for bad in
            ["http://id.example/keys", "http://10.0.0.1/", "ftp://id.example/keys", "https:///x", "://"]
        {
            assert!(parse(bad).unwrap_err().contains(bad), "{bad}");
        }
        let shown = Source::parse("https://id.example/keys?token=hidden").unwrap().to_string();
        assert_eq!(shown, "https://id.example/keys");
    }
}
