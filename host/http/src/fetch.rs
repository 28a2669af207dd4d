//! Fetches one document by HTTP GET: key sets, and releases in registries. HTTPS with the roots that this
//! system trusts; plain HTTP only to this machine. No redirects, no compression, and one connection for each
//! request, because requests are rare. The caller bounds the time; dropping the future closes the connection.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{HOST, HeaderMap, HeaderName, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Error;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Empty unless the status is 200.
    pub body: Bytes,
}

/// Checks whether the URL may be fetched at all.
pub fn check(url: &Uri) -> Result<(), Error> {
    let refused = |why| Err(Error::Url(why));
    let Some(host) = host(url).filter(|host| !host.is_empty()) else { return refused("the URL has no host") };
    match url.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_here(host) => Ok(()),
        Some("http") => refused(
            "http:// is allowed to this machine only, because the network could change the document: use https://",
        ),
        _ => refused("the URL begins with neither https:// nor http://"),
    }
}

pub async fn get(url: &Uri, headers: &[(HeaderName, &str)], bytes_max: usize) -> Result<Answer, Error> {
    let unreachable = |why: &dyn fmt::Display| Error::Unreachable(why.to_string());
    let broken = |why: &dyn fmt::Display| Error::Incomplete(why.to_string());
    check(url).map_err(|why| unreachable(&why))?;
    let host = host(url).unwrap_or_default();
    let is_tls = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| unreachable(&error))?;
    let stream: Box<dyn Stream> = if is_tls {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| unreachable(&"the host is not a valid name"))?;
        let tls = connector()?.connect(name, stream).await;
        Box::new(tls.map_err(|error| unreachable(&format!("TLS failed: {error}")))?)
    } else {
        Box::new(stream)
    };
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // The `Host` header is sent without the credentials that a URL may hold.
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let mut request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, authority)
        .header(USER_AGENT, concat!("switchboard/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| broken(&error))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (head, body) = answer.into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        if status != 200 {
            return Ok(Answer { status, headers, body: Bytes::new() });
        }
        match Limited::new(body, bytes_max).collect().await {
            Ok(body) => Ok(Answer { status, headers, body: body.to_bytes() }),
            Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLarge(bytes_max)),
            Err(error) => Err(broken(&error)),
        }
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        done = answer.as_mut() => done,
        // The connection ends first only when it breaks; then the answer fails too.
        _ = connection => answer.await,
    }
}

/// The host, without the brackets of an IPv6 address.
fn host(url: &Uri) -> Option<&str> {
    url.host().map(|host| host.trim_start_matches('[').trim_end_matches(']'))
}

/// True when this host name is this machine.
pub fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Speaks TLS with servers that the certificates of this system verify.
pub(crate) fn connector() -> Result<TlsConnector, Error> {
    static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return None;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the cipher suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Some(Arc::new(config))
    });
    config.clone().map(TlsConnector::from).ok_or(Error::NoRoots)
}
