//! A web service of a test, on the loopback: HTTPS with a certificate of the run, or plain HTTP. It keeps the
//! requests that it got, counts connections, and misbehaves on demand: the path says how.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate for `localhost` and 127.0.0.1, which a host trusts if its file is `SSL_CERT_FILE`.
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    directory: TempDir,
}

impl Authority {
    pub fn make() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("roots.pem"), made.cert.pem()).expect("a file");
        Self { certificate: made.cert.der().clone(), key: made.signing_key.serialize_der(), directory }
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("roots.pem")
    }

    /// A client that trusts this certificate and no other.
    pub fn connector(&self) -> Arc<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate of ours");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(TlsConnector::from(Arc::new(config)))
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("a key of ours");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .expect("a key that fits the certificate");
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A request that the service got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// With the query.
    pub target: String,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub struct Web {
    pub address: SocketAddr,
    is_tls: bool,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    is_broken: AtomicBool,
    seen: Mutex<Vec<Seen>>,
}

impl Web {
    pub async fn https(authority: &Authority) -> Self {
        Self::start(Some(authority.acceptor())).await
    }

    pub async fn http() -> Self {
        Self::start(None).await
    }

    async fn start(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (state, is_tls) = (Arc::new(State::default()), acceptor.is_some());
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (state, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    // An error means that the client is gone, which is its right.
                    let _ = match acceptor {
                        Some(acceptor) => tls(acceptor, stream, state).await,
                        None => serve(stream, state).await,
                    };
                });
            }
        });
        Self { address, is_tls, state, task }
    }

    /// The URL of a path, by address.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base())
    }

    /// The URL without a path.
    pub fn base(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }

    /// The number of connections that were opened to it.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().clone()
    }

    /// While it is broken, it closes each connection after the request, without an answer.
    pub fn set_broken(&self, is_broken: bool) {
        self.state.is_broken.store(is_broken, Ordering::SeqCst);
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tls(acceptor: TlsAcceptor, stream: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    serve(acceptor.accept(stream).await?, state).await
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<State>) -> std::io::Result<()> {
    let mut read = Vec::new();
    while let Some(request) = next(&mut stream, &mut read).await? {
        state.seen.lock().push(request.clone());
        if state.is_broken.load(Ordering::SeqCst) {
            return Ok(());
        }
        if !answer(&mut stream, &request).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one request; `None` at the end of the connection.
async fn next(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> std::io::Result<Option<Seen>> {
    let head = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while read.len() < head + length {
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
    let body = read[head..head + length].to_vec();
    read.drain(..head + length);
    Ok(Some(Seen { method: method.to_owned(), target: target.to_owned(), headers, body }))
}

/// Answers in the way that the path names. Returns false if the connection is to be closed.
async fn answer(stream: &mut (impl AsyncWrite + Unpin), request: &Seen) -> std::io::Result<bool> {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    match path.rsplit('/').next().unwrap_or_default() {
        // The whole query is the target.
        "redirect" => {
            let head = format!("HTTP/1.1 302 Found\r\nlocation: {query}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        "loop" => {
            let head = format!("HTTP/1.1 302 Found\r\nlocation: {path}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        // The query is the number of bytes.
        "sized" => {
            let body = "x".repeat(query.parse().unwrap_or(0));
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
        }
        "status" => {
            let head = format!("HTTP/1.1 {query} Status\r\ncontent-length: 2\r\n\r\nno");
            stream.write_all(head.as_bytes()).await?;
        }
        "huge" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n").await?;
            pour(stream, &[b'x'; 16 * 1024]).await?;
        }
        "endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = [b"4000\r\n".as_slice(), &[b'x'; 16 * 1024], b"\r\n"].concat();
            pour(stream, &chunk).await?;
        }
        "endless-head" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            pour(stream, format!("x-long: {}\r\n", "y".repeat(1000)).as_bytes()).await?;
        }
        "many-headers" => {
            let headers: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n").as_bytes())
                .await?;
        }
        "slow" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            loop {
                tick.tick().await;
                stream.write_all(b"x").await?;
                stream.flush().await?;
            }
        }
        "hang" => std::future::pending::<()>().await,
        "reset" => return Ok(false),
        "short" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await?;
            stream.flush().await?;
            return Ok(false);
        }
        "not-http" => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await?;
            stream.flush().await?;
            return Ok(false);
        }
        "close" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            stream.flush().await?;
            return Ok(false);
        }
        _ => {
            let seen = json!({
                "method": request.method,
                "target": request.target,
                "headers": request.headers,
                "body": String::from_utf8_lossy(&request.body),
            });
            let body = if request.method == "HEAD" { String::new() } else { seen.to_string() };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nset-cookie: a=b\r\n\r\n{body}",
                seen.to_string().len()
            );
            stream.write_all(head.as_bytes()).await?;
        }
    }
    stream.flush().await?;
    Ok(true)
}

/// Writes without end, until the client is gone.
async fn pour(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    loop {
        stream.write_all(bytes).await?;
    }
}
