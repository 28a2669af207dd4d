//! The client of the admin API for commands: one connection for each request. Errors tell the operator what
//! to do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Failure, page};
use switchboard_core::config::Config;
use switchboard_core::limits;
use switchboard_releases::signature::Signature;
use switchboard_server::admin::SIGNATURE;

/// Reads a release from its file, or by the beginning of its digest from a fleet that stores it.
pub(crate) async fn release(config: &Config, at: &Where, named: &str) -> Result<Bytes, Failure> {
    if Path::new(named).exists() {
        let read = std::fs::read(named);
        return Ok(Bytes::from(
            read.map_err(|error| Failure::failed(format!("cannot read {named}: {error}")))?,
        ));
    }
    if named.contains(['/', '.']) {
        return Err(Failure::Usage(format!("there is no file {named}")));
    }
    let path = format!("/admin/v1/releases/{}", page::escape(named));
    Client::of(config, at).download(&path).await
}

#[derive(Default, clap::Args)]
pub(crate) struct Where {
    /// The admin listener of any node of the fleet; by default that of the configuration.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

pub(crate) struct Client {
    address: SocketAddr,
    token: Option<String>,
}

/// The answer of a node.
pub(crate) struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Client {
    /// The token comes from the configuration only, because other users of the machine can read a command
    /// line.
    pub(crate) fn of(config: &Config, at: &Where) -> Self {
        let mut address = at.admin.unwrap_or(config.admin_listen);
        // For a node that listens on all addresses, use the loopback address.
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self { address, token: config.admin_token.clone() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, "application/json", Bytes::new()).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        self.call(Method::POST, path, "application/json", body.to_string().into()).await
    }

    /// Sends bytes that are no JSON.
    pub(crate) async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        bytes: Bytes,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, "application/octet-stream", bytes).await
    }

    /// Uploads a file, with its signatures in a header.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        file: Bytes,
        signatures: &[Signature],
    ) -> Result<T, Failure> {
        let listed: Vec<String> = signatures.iter().map(ToString::to_string).collect();
        let header = (SIGNATURE, listed.join(", "));
        let headers: &[(&str, String)] = if signatures.is_empty() { &[] } else { &[header] };
        let answer = self.ask_with(headers, Method::POST, path, "application/wasm", file).await?;
        self.taken(&answer)
    }

    pub(crate) async fn download(&self, path: &str) -> Result<Bytes, Failure> {
        let answer = self.ask(Method::GET, path, "", Bytes::new()).await?;
        self.wanted(&answer)?;
        Ok(answer.body)
    }

    /// Returns the answer with any status, because a failed readiness has a document.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        self.ask_with(&[], method, path, kind, body).await
    }

    async fn ask_with(
        &self,
        headers: &[(&str, String)],
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let address = self.address;
        let unreachable = |why: &dyn std::fmt::Display| {
            Failure::failed(format!(
                "no node answers at {address}: {why} (is `switchboard serve` running there? `--admin` names another)"
            ))
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, address.to_string());
        if !kind.is_empty() {
            request = request.header(CONTENT_TYPE, kind);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body))?;

        let stream = timeout(limits::NODE_CONNECT_WAIT, TcpStream::connect(address))
            .await
            .map_err(|_| unreachable(&"the connection takes too long"))?
            .map_err(|error| unreachable(&error))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status().as_u16();
            // A release is the largest answer of a node.
            let body = Limited::new(answer.into_body(), limits::RELEASE_BYTES_MAX).collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Answer { status, body: body.to_bytes() })
        };
        // The connection ends first only if it breaks; then the answer fails too.
        let asked = async {
            let mut answer = std::pin::pin!(answer);
            tokio::select! {
                done = answer.as_mut() => done,
                _ = connection => answer.await,
            }
        };
        timeout(limits::ADMIN_ANSWER_WAIT, asked)
            .await
            .map_err(|_| {
                Failure::failed(format!("{address} did not answer in time; whether it was done is not known"))
            })?
            .map_err(|error| {
                Failure::failed(format!(
                    "the connection to {address} was lost: {error}; the node may have done it or not"
                ))
            })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        let answer = self.ask(method, path, kind, body).await?;
        self.taken(&answer)
    }

    /// Reads the document of an answer, or its problem.
    pub(crate) fn taken<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Failure> {
        self.wanted(answer)?;
        serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::failed(format!("{} speaks another version of the admin API: {error}", self.address))
        })
    }

    /// The detail of a problem is the best message.
    fn wanted(&self, answer: &Answer) -> Result<(), Failure> {
        if (200..300).contains(&answer.status) {
            return Ok(());
        }
        let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let detail =
            problem["detail"].as_str().map_or_else(|| format!("status {}", answer.status), str::to_owned);
        Err(Failure::failed(match (answer.status, &self.token) {
            (401, None) => format!("{} wants an admin token: set SWITCHBOARD_ADMIN_TOKEN", self.address),
            (401, Some(_)) => format!("{detail} (SWITCHBOARD_ADMIN_TOKEN is set, but to another)"),
            _ => detail,
        }))
    }
}
