//! One document by HTTP GET, for key sets. HTTPS by the roots that this system trusts; plain HTTP only to this machine. No
//! redirects, no compression, one connection a time: these documents are small and rarely asked for.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Whether it may be asked at all.
pub(super) fn check(url: &Uri) -> Result<(), String> {
    let host = host(url).filter(|host| !host.is_empty()).ok_or("a URL without a host")?;
    match url.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_here(host) => Ok(()),
        Some("http") => {
            Err("http:// is for this machine only: whoever is between could give us keys".to_owned())
        }
        _ => Err("https://, or a file".to_owned()),
    }
}

/// The caller bounds the time. Dropped, the connection ends.
pub(super) async fn get(url: &Uri, bytes_max: usize) -> Result<Bytes, String> {
    let host = host(url).ok_or("a URL without a host")?;
    let is_tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| format!("no connection: {error}"))?;
    let stream: Box<dyn Stream> = if is_tls {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| "a host without a name")?;
        Box::new(connector()?.connect(name, stream).await.map_err(|error| format!("no TLS: {error}"))?)
    } else {
        Box::new(stream)
    };
    let (mut sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("switchboard/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if answer.status() != 200 {
            return Err(format!("status {}", answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        done = answer.as_mut() => done,
        // Its end comes first only when it breaks; then the answer says so too.
        _ = connection => answer.await,
    }
}

/// Without the brackets of an IPv6 address.
fn host(url: &Uri) -> Option<&str> {
    url.host().map(|host| host.trim_start_matches('[').trim_end_matches(']'))
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn connector() -> Result<TlsConnector, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err("this system trusts no certificates (install ca-certificates)".to_owned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    });
    config.clone().map(TlsConnector::from)
}
