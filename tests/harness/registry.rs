//! OCI registries: Debian's `docker-registry`, a real one, on a private port, if it is installed; and one
//! that repeats, byte for byte, the recorded answers of a real one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use hyper::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::host::free_address;
use crate::patience::until;
use crate::rest::{Answer, Rest};
use crate::services::Watched;

/// User and password of a registry that needs a login.
pub const USER: &str = "ci";
pub const PASSWORD: &str = "correct horse";
/// The password in the form of `htpasswd`.
const HTPASSWD: &str = "ci:$2b$04$U9B4v0m7yPwiS95icwX5XOCo2nzv4gYSiNpF9.voBqr/pXBvU9eWy\n";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub struct Registry {
    pub address: SocketAddr,
    directory: TempDir,
    has_door: bool,
    _process: Watched,
}

/// The pushed artifact, as the manifest describes it.
pub struct Artifact {
    pub config_type: &'static str,
    pub layer_type: &'static str,
    pub layers: Vec<Vec<u8>>,
    /// A wrong size of a layer, for the manifest.
    pub size: Option<usize>,
    pub annotations: Value,
}

impl Artifact {
    /// The layout of a Wasm artifact.
    pub fn of(file: &[u8]) -> Self {
        Self {
            config_type: "application/vnd.wasm.config.v0+json",
            layer_type: "application/wasm",
            layers: vec![file.to_vec()],
            size: None,
            annotations: json!({}),
        }
    }
}

impl Registry {
    /// Starts it. None if `docker-registry` is not installed.
    pub async fn start(has_door: bool) -> Option<Self> {
        Command::new("docker-registry").arg("--version").output().ok()?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (address, place) = (free_address(), directory.path().display());
        let door = match has_door {
            false => String::new(),
            true => {
                std::fs::write(directory.path().join("htpasswd"), HTPASSWD).expect("a file");
                format!("auth: {{htpasswd: {{realm: test, path: {place}/htpasswd}}}}\n")
            }
        };
        let settings = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\n\
             http: {{addr: '{address}'}}\n{door}"
        );
        let (file, log) = (directory.path().join("config.yml"), directory.path().join("log"));
        std::fs::write(&file, settings).expect("a file");
        let arguments = ["serve".to_owned(), file.display().to_string()];
        let process = Watched::start("docker-registry", &arguments, "TERM", &log);
        let registry = Self { address, directory, has_door, _process: process };
        until("the registry to listen", async || TcpStream::connect(address).await.ok().map(drop)).await;
        Some(registry)
    }

    pub fn named(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.address)
    }

    /// Pushes an artifact. Returns the digest of the manifest.
    pub async fn push(&self, repository: &str, tag: &str, artifact: &Artifact) -> String {
        let config = self.push_blob(repository, b"{}").await;
        let mut layers = Vec::new();
        for layer in &artifact.layers {
            let digest = self.push_blob(repository, layer).await;
            let size = artifact.size.unwrap_or(layer.len());
            layers.push(json!({"mediaType": artifact.layer_type, "digest": digest, "size": size}));
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": artifact.config_type, "digest": config, "size": 2},
            "layers": layers, "annotations": artifact.annotations,
        });
        self.push_manifest(repository, tag, MANIFEST, &manifest).await
    }

    /// Pushes any manifest.
    pub async fn push_manifest(&self, repository: &str, tag: &str, kind: &str, manifest: &Value) -> String {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.ask(Method::PUT, &path, kind, manifest.to_string().into_bytes()).await;
        assert_eq!(answer.status, 201, "{answer}");
        answer.headers["docker-content-digest"].to_str().expect("a digest").to_owned()
    }

    async fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begun = self.ask(Method::POST, &path, "application/json", Vec::new()).await;
        let place = begun.headers["location"].to_str().expect("a place").to_owned();
        let path = place.find("/v2/").map(|at| &place[at..]).expect("a path");
        let digest = digest(bytes);
        let octets = "application/octet-stream";
        let done = self.ask(Method::PUT, &format!("{path}&digest={digest}"), octets, bytes.to_vec()).await;
        assert_eq!(done.status, 201, "{done}");
        digest
    }

    /// Replaces the content of a blob on the registry's disk by other content of the same size.
    pub fn tamper_with(&self, bytes: &[u8]) {
        let digest = digest(bytes);
        let hex = digest.strip_prefix("sha256:").expect("its kind");
        let blobs = PathBuf::from("data/docker/registry/v2/blobs/sha256");
        let file = self.directory.path().join(blobs).join(&hex[..2]).join(hex).join("data");
        let mut bytes = std::fs::read(&file).expect("the blob on its disk");
        let last = bytes.last_mut().expect("no empty blob");
        *last ^= 1;
        std::fs::write(&file, bytes).expect("the blob on its disk");
    }

    async fn ask(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Answer {
        // `ci:correct horse` in base64.
        let door = ("authorization", "Basic Y2k6Y29ycmVjdCBob3JzZQ==");
        let mut headers = vec![("content-type", kind)];
        headers.extend(self.has_door.then_some(door));
        Rest::new(self.address, None).send(method, path, &headers, body).await
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Answers recorded requests from the recording, and others with 500.
pub struct Recorded {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Recorded {
    /// A list of `{request, authorization, status, headers, body}`; the body of a blob is in hex, and
    /// `{address}` stands for its address.
    pub async fn serve(exchanges: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let exchanges = exchanges.replace("{address}", &address.to_string());
        let listed: Vec<Value> = serde_json::from_str(&exchanges).expect("a list of exchanges");
        let answers: HashMap<String, Vec<u8>> = listed.iter().map(answer_of).collect();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that disconnects early is no error here.
                let _ = replay(stream, &answers).await;
            }
        });
        Self { address, task }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer_of(exchange: &Value) -> (String, Vec<u8>) {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let request = text(&exchange["request"]);
    let mut answer =
        format!("HTTP/1.1 {} recorded\r\nconnection: close\r\n", exchange["status"]).into_bytes();
    for header in exchange["headers"].as_array().expect("headers") {
        answer.extend(format!("{}: {}\r\n", text(&header[0]), text(&header[1])).bytes());
    }
    answer.extend(b"\r\n");
    let body = text(&exchange["body"]);
    if request.contains("/blobs/") {
        let byte = |at: usize| u8::from_str_radix(&body[at..at + 2], 16).expect("hex");
        answer.extend((0..body.len()).step_by(2).map(byte));
    } else {
        answer.extend(body.bytes());
    }
    (format!("{request} {}", exchange["authorization"].as_str().unwrap_or_default()), answer)
}

async fn replay(mut stream: TcpStream, answers: &HashMap<String, Vec<u8>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let request = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
    let shown = head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or_default();
    let never = b"HTTP/1.1 500 never\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answers.get(&format!("{request} {shown}")).map_or(&never[..], Vec::as_slice)).await?;
    stream.shutdown().await
}
