//! Opens a connection for a fetch: resolve the name once, check every address of the answer, connect to a
//! checked address, TLS. The connection goes to the address that was checked and not to the name, so an
//! answer that changes between check and use (DNS rebinding) changes nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use url::Host;

use super::address::is_permitted;
use super::meter::{Meter, Metered};
use super::resolve::{Resolve, Resolver};
use crate::fetch::{Stream, connector};
use switchboard_contract::fetch::Error;
use switchboard_core::fetch_url::FetchUrl;
use switchboard_core::limits;

/// An open connection, and the task that moves its bytes.
pub(super) struct Dialed {
    pub sender: SendRequest<Full<Bytes>>,
    pub address: IpAddr,
    pub driver: JoinHandle<()>,
    pub meter: Meter,
}

pub(super) struct Dialer {
    resolver: Resolver,
}

impl Dialer {
    pub(super) fn new(resolve: Arc<dyn Resolve>) -> Self {
        Self { resolver: Resolver::new(resolve) }
    }

    /// Opens a connection to the host of the URL. `networks` are those that the grant names.
    ///
    /// # Errors
    /// `Refused`, `Busy` or `Unavailable`: nothing was sent.
    pub(super) async fn dial(
        &self,
        handler: &Arc<str>,
        url: &FetchUrl,
        networks: &[IpNet],
        deadline: Instant,
    ) -> Result<Dialed, Error> {
        let addresses = self.addresses(handler, url, networks, deadline).await?;
        let until = deadline.min(Instant::now() + limits::FETCH_CONNECT_WAIT);
        let (stream, address) = open(url, &addresses, until).await?;
        let stream: Box<dyn Stream> = match url.is_tls() {
            true => handshake(url, stream, until).await?,
            false => Box::new(stream),
        };
        let mut builder = http1::Builder::new();
        builder
            .max_headers(limits::FETCH_HEADERS_MAX)
            .max_header_size(limits::FETCH_HEADERS_BYTES_MAX)
            .max_buf_size(limits::FETCH_READ_BUFFER_BYTES_MAX);
        let meter = Meter::new();
        let stream = Metered { stream, meter: meter.clone() };
        let made = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| unavailable(url, &error))?;
        // The connection owns this task and aborts it when it is dropped.
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection of a fetch has ended");
            }
        });
        Ok(Dialed { sender, address, driver, meter })
    }

    /// The addresses of the host, each of which is permitted.
    async fn addresses(
        &self,
        handler: &Arc<str>,
        url: &FetchUrl,
        networks: &[IpNet],
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Error> {
        let name = match url.host() {
            Host::Ipv4(address) => return Ok(vec![literal(address.into(), networks)?]),
            Host::Ipv6(address) => return Ok(vec![literal(address.into(), networks)?]),
            Host::Domain(name) => name,
        };
        let found = self.resolver.addresses(handler, name, deadline).await?;
        // One bad address refuses the whole answer: which of them is used must not be a matter of luck.
        if let Some(bad) = found.iter().find(|address| !is_permitted(**address, networks)) {
            return Err(Error::Refused(format!(
                "{name} resolves to {bad}, which is not a public address; name it in the grant (addresses)"
            )));
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.iter().map(|address| address.to_canonical()) {
            if !addresses.contains(&address) && addresses.len() < limits::FETCH_ADDRESSES_TRIED_MAX {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}

fn literal(address: IpAddr, networks: &[IpNet]) -> Result<IpAddr, Error> {
    if is_permitted(address, networks) {
        return Ok(address.to_canonical());
    }
    Err(Error::Refused(format!("{address} is not a public address; name it in the grant (addresses)")))
}

/// Connects to the first address that accepts. Each gets an equal part of the time that is left.
async fn open(url: &FetchUrl, addresses: &[IpAddr], until: Instant) -> Result<(TcpStream, IpAddr), Error> {
    let mut last = None;
    for (number, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = until.saturating_duration_since(now) / (addresses.len() - number) as u32;
        match timeout_at(now + left, TcpStream::connect(SocketAddr::new(*address, url.port()))).await {
            Ok(Ok(stream)) => {
                // A request is small, and its answer is awaited. Without this, it could wait for an ACK.
                let _ = stream.set_nodelay(true);
                return Ok((stream, *address));
            }
            Ok(Err(error)) => last = Some(error.to_string()),
            Err(_) => last = Some(in_time(left)),
        }
    }
    Err(unavailable(url, &last.unwrap_or_else(|| in_time(Duration::ZERO))))
}

async fn handshake(url: &FetchUrl, stream: TcpStream, until: Instant) -> Result<Box<dyn Stream>, Error> {
    let failed = |why: &str| Error::Unavailable(format!("TLS with {} failed: {why}", url.authority()));
    let name = ServerName::try_from(url.host_text().to_owned());
    let name = name.map_err(|_| failed("the host is not a valid name"))?;
    let connector = connector().map_err(|error| failed(&error.to_string()))?;
    match timeout_at(until, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Box::new(stream)),
        Ok(Err(error)) => Err(failed(&error.to_string())),
        Err(_) => Err(failed("no answer in time")),
    }
}

fn in_time(wait: Duration) -> String {
    format!("no answer in {} ms", wait.as_millis())
}

fn unavailable(url: &FetchUrl, why: &dyn std::fmt::Display) -> Error {
    Error::Unavailable(format!("cannot connect to {}: {why}", url.authority()))
}
