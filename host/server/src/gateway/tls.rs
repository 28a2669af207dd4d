//! TLS for clients. The certificate and its key are read from files, and again when the files change. New
//! handshakes use the last certificate; open connections are not affected. Files that do not match change
//! nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use switchboard_core::config::Config;
use switchboard_core::limits::{TLS_FILES_CHECK_EVERY, TLS_HANDSHAKE_WAIT};
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_core::{Blame, Blamed};
use switchboard_http::http_server::Transport;

pub struct Tls {
    files: Files,
    config: ArcSwap<ServerConfig>,
    /// The versions of the files just before they were first read.
    seen: FileVersions,
}

#[derive(Clone, Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Only one of the two settings is set.
    #[error("`tls_cert` and `tls_key` must both be set, or neither")]
    Half,
    #[error("{path}: {1}", path = .0.display())]
    Read(PathBuf, String),
    /// The files are not a pair, or cannot be used for TLS.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// Every variant is about a setting, or a file that a setting names.
impl Blamed for TlsError {
    fn blame(&self) -> Blame {
        Blame::Operator
    }
}

impl Tls {
    /// `None` when the settings name no files.
    pub fn of(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        let files = match (&config.tls_cert, &config.tls_key) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => Files { certificate: certificate.clone(), key: key.clone() },
            _ => return Err(TlsError::Half),
        };
        // In this order, so that `follow` finds a change between both steps, however late it starts.
        let seen = files.versions();
        let config = ArcSwap::new(files.read()?);
        Ok(Some(Arc::new(Self { files, config, seen })))
    }

    /// Performs the handshake. A client that takes too long, or does not speak TLS, is dropped.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<Transport> {
        let handshake = TlsAcceptor::from(self.config.load_full()).accept(stream);
        let outcome = match timeout(TLS_HANDSHAKE_WAIT, handshake).await {
            Ok(Ok(stream)) => Ok(Transport::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(("failed", error)),
            Err(_) => Err(("late", io::ErrorKind::TimedOut.into())),
        };
        let label = outcome.as_ref().map_or_else(|(label, _)| *label, |_| "done");
        metrics::counter!("switchboard_tls_handshakes_total", "outcome" => label).increment(1);
        outcome.inspect_err(|(_, error)| debug!(%error, "a TLS handshake failed")).ok()
    }

    /// Checks the files for changes until the shutdown begins.
    pub async fn follow(self: Arc<Self>, mut guard: ShutdownGuard) {
        let mut tick = interval(TLS_FILES_CHECK_EVERY);
        let (mut seen, mut reported) = (self.seen, None);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = guard.begun() => return,
            }
            let versions = self.files.versions();
            if versions == seen {
                continue;
            }
            let certificate = self.files.certificate.display();
            match self.files.read() {
                Ok(config) => {
                    self.config.store(config);
                    seen = versions;
                    info!(%certificate, "the new TLS certificate is used from now on");
                }
                // Most likely only one of the two files has changed yet. It is tried again until both match,
                // also when the files do not change further: the cause may be a permission, or a write in
                // progress. It is logged once.
                Err(error) if reported != Some(versions) => {
                    reported = Some(versions);
                    warn!(%certificate, %error, "the changed TLS files cannot be used; the old certificate stays in use");
                }
                Err(_) => {}
            }
        }
    }
}

/// The version of a file: it changes with a new file of that name, or with new content.
type FileVersions = [Option<(u64, u64, SystemTime)>; 2];

impl Files {
    fn versions(&self) -> FileVersions {
        use std::os::unix::fs::MetadataExt;
        [&self.certificate, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
        })
    }

    fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |reason: &dyn std::fmt::Display| TlsError::Read(path, reason.to_string())
        };
        let of_certificate = unreadable(&self.certificate);
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| of_certificate(&error))?;
        if chain.is_empty() {
            return Err(unreadable(&self.certificate)(&"no certificate in PEM"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound => unreadable(&self.key)(&"no private key in PEM"),
            error => unreadable(&self.key)(&error),
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
            .map_err(TlsError::Unusable)?;
        // WebSockets need HTTP/1.1.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // After a drain many clients reconnect, and resumption saves a signature for each. One ticket a
        // connection is enough.
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Unusable)?;
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}
