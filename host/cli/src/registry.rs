//! A release file from an OCI registry: `oci://host[:port]/repository[:tag][@digest]`, with the layout of the
//! Wasm OCI artifact. This command fetches it, not the nodes: they get the bytes that were checked here, have
//! no password of a registry, and connect to no place that a request names. It implements the part of the
//! protocol that a pull needs (docs/decisions/registry.md).

mod challenge;
mod reference;

use bytes::Bytes;
use hyper::Uri;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderName, LOCATION, WWW_AUTHENTICATE};
use serde::Deserialize;
use tokio::time::timeout;

use super::Failure;
use challenge::Challenge;
use reference::Reference;
pub(crate) use reference::is_named_by;
use switchboard_core::config::Config;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::limits::{
    REGISTRY_MANIFEST_BYTES_MAX, REGISTRY_REDIRECTS_MAX, REGISTRY_WAIT, RELEASE_BYTES_MAX,
};
use switchboard_http::fetch::{self, Answer};
use switchboard_releases::signature::Signature;

/// The media types of the one layer and of the configuration in this layout.
const LAYER: &str = "application/wasm";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The annotation of the manifest with the lines of FILE.sig.
const SIGNATURES: &str = "dev.switchboard.signatures";
pub(crate) struct Pulled {
    pub file: Vec<u8>,
    pub signatures: Vec<Signature>,
}

/// Why a release was not fetched. The caller puts the name of the release before it.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the registry has no such release")]
    NotFound,
    #[error("the registry requires a login: set SWITCHBOARD_REGISTRY_USER and SWITCHBOARD_REGISTRY_PASSWORD")]
    LoginRequired,
    #[error("the registry refuses SWITCHBOARD_REGISTRY_USER with that password")]
    LoginRefused,
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),
    #[error("the registry did not send the release within {} s", REGISTRY_WAIT.as_secs())]
    Late,
    #[error("this is not a release: {0}")]
    NotWasm(String),
    #[error("{0} bytes are more than the {RELEASE_BYTES_MAX} of a release")]
    TooLarge(u64),
    /// The registry's answer breaks the specification of registries. The text continues "the registry".
    #[error("the registry {0}")]
    Wrong(String),
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default, rename = "mediaType")]
    kind: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType")]
    kind: String,
    digest: String,
    size: u64,
}

/// The layer's digest is verified, and that of the manifest if the name has one.
pub(crate) async fn pull(source: &str, config: &Config) -> Result<Pulled, Failure> {
    let reference = Reference::parse(source).map_err(Failure::Usage)?;
    let login = match (&config.registry_user, &config.registry_password) {
        (Some(user), Some(password)) => Some((user.clone(), password.clone())),
        (None, None) => None,
        _ => {
            let both = "set both `registry_user` and `registry_password`, or neither";
            return Err(Failure::Usage(both.to_owned()));
        }
    };
    let mut registry = Registry { reference, login, shown: None };
    let pulled = match timeout(REGISTRY_WAIT, registry.pull()).await {
        Ok(pulled) => pulled,
        Err(_) => Err(Error::Late),
    };
    pulled.map_err(|error| Failure::failed(format!("{source}: {error}")))
}

struct Registry {
    reference: Reference,
    login: Option<(String, String)>,
    /// The `authorization` that the registry accepted.
    shown: Option<String>,
}

impl Registry {
    async fn pull(&mut self) -> Result<Pulled, Error> {
        let manifest = self.manifest().await?;
        let layer = the_layer(&manifest)?;
        let signatures = manifest.annotations.get(SIGNATURES).map_or("", String::as_str);
        let signatures = Signature::parse_all(signatures).ok_or_else(|| {
            Error::NotWasm(format!("its annotation {SIGNATURES} has no signatures in the form of FILE.sig"))
        })?;
        if layer.size > RELEASE_BYTES_MAX as u64 {
            return Err(Error::TooLarge(layer.size));
        }
        let wanted = digest(&layer.digest)?;
        let path = format!("blobs/{}", layer.digest);
        let size = layer.size as usize;
        let file = match self.ask(&path, LAYER, size).await {
            Err(Asked::TooLarge) => {
                return Err(Error::Wrong("sends more bytes than its manifest states".to_owned()));
            }
            answered => answered?,
        };
        if file.len() < size {
            return Err(Error::Wrong("sends fewer bytes than its manifest states".to_owned()));
        }
        if Digest::of(&file) != wanted {
            return Err(Error::Wrong(
                "sends other bytes than its manifest names: the digest differs".to_owned(),
            ));
        }
        Ok(Pulled { file: file.to_vec(), signatures })
    }

    async fn manifest(&mut self) -> Result<Manifest, Error> {
        let path = format!("manifests/{}", self.reference.version());
        let accept = format!("{MANIFEST}, {INDEX}");
        let document = match self.ask(&path, &accept, REGISTRY_MANIFEST_BYTES_MAX).await {
            Err(Asked::TooLarge) => {
                return Err(Error::NotWasm(format!(
                    "its manifest has more than {REGISTRY_MANIFEST_BYTES_MAX} bytes"
                )));
            }
            answered => answered?,
        };
        if let Some(named) = &self.reference.digest
            && Digest::of(&document) != digest(named)?
        {
            return Err(Error::Wrong(
                "sends another manifest than the name states: the digest differs".to_owned(),
            ));
        }
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default, rename = "mediaType")]
            kind: String,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let no_manifest =
            |error: serde_json::Error| Error::NotWasm(format!("its manifest: {}", short(&error.to_string())));
        let kind: Kind = serde_json::from_slice(&document).map_err(no_manifest)?;
        if kind.kind == INDEX || kind.manifests.is_some() {
            return Err(Error::NotWasm(
                "an index of several manifests; name one of them by its digest".to_owned(),
            ));
        }
        let manifest: Manifest = serde_json::from_slice(&document).map_err(no_manifest)?;
        if !manifest.kind.is_empty() && manifest.kind != MANIFEST {
            return Err(Error::NotWasm(format!(
                "its manifest is of type `{}`, not {MANIFEST}",
                short(&manifest.kind)
            )));
        }
        Ok(manifest)
    }

    /// Sends one request about the repository; if the registry asks for a login, a second one.
    async fn ask(&mut self, path: &str, accept: &str, bytes_max: usize) -> Result<Bytes, Asked> {
        let url = self.reference.url(path);
        let mut answer = self.follow(&url, accept, bytes_max).await?;
        if answer.status == 401 && self.shown.is_none() {
            let asks = answer.headers.get(WWW_AUTHENTICATE).and_then(|header| header.to_str().ok());
            self.shown = match (asks.and_then(Challenge::parse), &self.login) {
                (Some(Challenge::Basic), Some((user, password))) => Some(challenge::basic(user, password)),
                (Some(Challenge::Bearer { realm, service }), _) => {
                    Some(self.token(&realm, service.as_deref()).await?)
                }
                (Some(Challenge::Basic), None) | (None, _) => None,
            };
            if self.shown.is_some() {
                answer = self.follow(&url, accept, bytes_max).await?;
            }
        }
        Err(Asked::Failed(match answer.status {
            200 => return Ok(answer.body),
            404 => Error::NotFound,
            401 | 403 => self.unauthorized(),
            status => Error::Wrong(format!("answers with status {status}")),
        }))
    }

    /// Fetches a token from the address that the registry names. It sends a password only by TLS.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<String, Asked> {
        let scope = format!("repository:{}:pull", self.reference.repository);
        let url = challenge::token_url(realm, service, &scope).map_err(|why| {
            Asked::Failed(Error::Wrong(format!("names an address for tokens that cannot be used: {why}")))
        })?;
        let login = self.login.as_ref().map(|(user, password)| challenge::basic(user, password));
        let headers: Vec<_> = login.iter().map(|login| (AUTHORIZATION, login.as_str())).collect();
        let answer = get(&url, &headers, REGISTRY_MANIFEST_BYTES_MAX).await?;
        if answer.status != 200 {
            return Err(Asked::Failed(match answer.status {
                401 | 403 => self.unauthorized(),
                status => Error::Wrong(format!("answers the request for a token with status {status}")),
            }));
        }
        let token = challenge::token_of(&answer.body);
        token.map(|token| format!("Bearer {token}")).ok_or_else(|| {
            Asked::Failed(Error::Wrong("answers the request for a token without a token".to_owned()))
        })
    }

    /// Follows a redirect, because registries keep their blobs elsewhere. The target gets no authorization.
    async fn follow(&self, url: &Uri, accept: &str, bytes_max: usize) -> Result<Answer, Asked> {
        let mut at = url.clone();
        for _ in 0..=REGISTRY_REDIRECTS_MAX {
            let is_registry = at.authority() == url.authority() && at.scheme() == url.scheme();
            let mut headers = vec![(ACCEPT, accept)];
            headers.extend(self.shown.as_deref().filter(|_| is_registry).map(|shown| (AUTHORIZATION, shown)));
            let answer = get(&at, &headers, bytes_max).await?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let to = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
            at = reference::resolve(&at, to).ok_or_else(|| {
                Asked::Failed(Error::Wrong("redirects to an address that is not a URL".to_owned()))
            })?;
        }
        Err(Asked::Failed(Error::Wrong(format!("redirects more than {REGISTRY_REDIRECTS_MAX} times"))))
    }

    fn unauthorized(&self) -> Error {
        if self.login.is_some() { Error::LoginRefused } else { Error::LoginRequired }
    }
}

enum Asked {
    /// The answer was larger than the bound.
    TooLarge,
    Failed(Error),
}

impl From<Asked> for Error {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::Failed(error) => error,
            Asked::TooLarge => Self::Wrong("sends a longer answer than this command accepts".to_owned()),
        }
    }
}

async fn get(url: &Uri, headers: &[(HeaderName, &str)], bytes_max: usize) -> Result<Answer, Asked> {
    fetch::get(url, headers, bytes_max).await.map_err(|error| match error {
        switchboard_http::Error::TooLarge(_) => Asked::TooLarge,
        error => Asked::Failed(Error::Unreachable(short(&error.to_string()))),
    })
}

fn digest(text: &str) -> Result<Digest, Error> {
    let hex = text.strip_prefix("sha256:").and_then(Digest::parse);
    hex.ok_or_else(|| Error::Wrong(format!("names a digest that is not SHA-256: `{}`", short(text))))
}

fn the_layer(manifest: &Manifest) -> Result<&Descriptor, Error> {
    if manifest.config.kind != CONFIG {
        let found = short(&manifest.config.kind);
        return Err(Error::NotWasm(format!("its configuration is of type `{found}`, not {CONFIG}")));
    }
    match manifest.layers.as_slice() {
        [layer] if layer.kind == LAYER => Ok(layer),
        [layer] => Err(Error::NotWasm(format!("its layer is of type `{}`, not {LAYER}", short(&layer.kind)))),
        layers => Err(Error::NotWasm(format!("it has {} layers, a release has one", layers.len()))),
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(limits::REGISTRY_ERROR_CHARS_MAX).collect()
}
