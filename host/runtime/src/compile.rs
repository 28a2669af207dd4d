//! Compiles releases to machine code ahead of time, in a child process. The child reads bytes that may be
//! hostile, so it has limits and no access to keys. The compiled artifact is cached under the data directory
//! with a MAC. Before a cached artifact is loaded, its MAC is checked on exactly the bytes that are then
//! loaded.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::process::{Resource, Rlimit, setrlimit};
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tracing::{info, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::Error;
use super::engine::{self, Use};
use super::file::ReleaseFile;
use super::release::fits;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::manifest::Manifest;

/// The hidden subcommand that runs the child.
pub const SUBCOMMAND: &str = "compile";

const MAC_BYTES: usize = 32;

/// Where releases are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In a child process: this program with [`SUBCOMMAND`].
    Child(PathBuf),
    /// In this process, for tools that serve no clients, and for tests.
    InProcess,
}

/// The compiler with its artifact cache.
pub(super) struct Artifacts {
    compiler: Compiler,
    cache: Arc<ArtifactCache>,
    at_a_time: Semaphore,
}

/// Compiled artifacts on disk. Its methods block.
struct ArtifactCache {
    directory: PathBuf,
    key: [u8; 32],
    /// Hash of everything besides the release that affects machine code: the compiler, its settings, the
    /// processor.
    compatibility: u64,
}

impl Artifacts {
    pub(crate) fn new(compiler: Compiler, data_dir: PathBuf, secret: &str) -> wasmtime::Result<Self> {
        // Only an engine with a compiler can compute this hash. The engine is dropped at the end of this
        // block.
        let compatibility = {
            let mut hasher = DefaultHasher::new();
            Engine::new(&engine::config(Use::Compile))?.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let cache = Arc::new(ArtifactCache {
            directory: data_dir.join("artifacts"),
            key: mac(secret.as_bytes(), &[b"switchboard compiled releases v1"])
                .finalize()
                .into_bytes()
                .into(),
            compatibility,
        });
        Ok(Self { compiler, cache, at_a_time: Semaphore::new(limits::COMPILES_PER_NODE_MAX) })
    }

    /// Returns the machine code of a release, from the cache or compiled now.
    pub(crate) async fn load(&self, engine: &Engine, file: &ReleaseFile) -> Result<Component, Error> {
        if let Some(component) = self.kept(engine, file.code).await? {
            return Ok(component);
        }
        // The semaphore is never closed, so this only waits. Another call may have compiled the same code
        // meanwhile.
        let _turn = self.at_a_time.acquire().await;
        if let Some(component) = self.kept(engine, file.code).await? {
            return Ok(component);
        }
        let begun = Instant::now();
        let bytes = file.code_bytes();
        let artifact = match &self.compiler {
            Compiler::Child(program) => in_child(program, &bytes, limits::COMPILE_WAIT).await?,
            Compiler::InProcess => blocking(move || compile(&bytes)).await?.map_err(Error::of_release)?,
        };
        info!(
            handler.name = file.manifest.name,
            handler.release = file.digest.short(),
            bytes = artifact.len(),
            "compiled in {} ms",
            begun.elapsed().as_millis()
        );
        let (cache, engine, file) = (self.cache.clone(), engine.clone(), file.clone());
        blocking(move || {
            let (artifact, code) = (Verified(artifact), file.code);
            let component = deserialize(&engine, &artifact)
                .map_err(|error| why_refused(&artifact, &file.manifest, &error))?;
            if let Err(error) = cache.keep(code, &artifact) {
                // The only consequence is that the next start compiles again.
                warn!(directory = %cache.directory.display(), "cannot write a compiled release to the cache; the next start compiles it again: {error}");
            }
            Ok(component)
        })
        .await?
    }

    async fn kept(&self, engine: &Engine, code: Digest) -> Result<Option<Component>, Error> {
        let (cache, engine) = (self.cache.clone(), engine.clone());
        blocking(move || {
            let artifact = cache.kept(code)?;
            // The compatibility hash does not cover everything that wasmtime checks. To compile again always
            // helps.
            deserialize(&engine, &artifact)
                .inspect_err(
                    |error| warn!(%code, "cannot load a cached artifact; compiling again: {error:#}"),
                )
                .ok()
        })
        .await
    }
}

impl ArtifactCache {
    fn path(&self, code: Digest) -> PathBuf {
        self.directory.join(format!("{code}-{:016x}.cwasm", self.compatibility))
    }

    /// Returns the MAC of an artifact. It covers the code's digest and the compatibility hash too, so that
    /// one artifact cannot replace another.
    fn mac_of(&self, code: Digest, artifact: &[u8]) -> Hmac<Sha256> {
        mac(&self.key, &[code.bytes(), &self.compatibility.to_le_bytes(), artifact])
    }

    fn kept(&self, code: Digest) -> Option<Verified> {
        let mut bytes = fs::read(self.path(code)).ok()?;
        let (tag, artifact) = bytes.split_at_checked(MAC_BYTES)?;
        if self.mac_of(code, artifact).verify_slice(tag).is_err() {
            warn!(%code, "the MAC of a cached artifact is wrong: it is damaged or another host wrote it; compiling again");
            return None;
        }
        bytes.drain(..MAC_BYTES);
        Some(Verified(bytes))
    }

    fn keep(&self, code: Digest, Verified(artifact): &Verified) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.path(code);
        // Each writer uses its own file name, because two nodes may share the directory.
        let unfinished = path.with_extension(format!("{}-{:08x}", std::process::id(), rand::random::<u32>()));
        let written = (|| {
            let mut file = fs::File::create_new(&unfinished)?;
            file.write_all(&self.mac_of(code, artifact).finalize().into_bytes())?;
            file.write_all(artifact)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            fs::File::open(&self.directory)?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }
}

/// Runs blocking work on a thread that serves no clients.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::of_host(format!("the compiler panicked: {error}")))
}

/// Runs the child: it reads a component from standard input, and writes the artifact to standard output or
/// the reason of a refusal to standard error.
pub fn child() -> Result<(), Error> {
    let bounded = |resource, most| {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|error| Error::of_host(format!("cannot bound the compiler: {error}")))
    };
    bounded(Resource::As, limits::COMPILE_MEMORY_BYTES_MAX)?;
    bounded(Resource::Cpu, limits::COMPILE_WAIT.as_secs())?;
    bounded(Resource::Core, 0)?;
    // The child cannot write files. It may open only the three standard streams and a few files of wasmtime.
    bounded(Resource::Fsize, 0)?;
    bounded(Resource::Nofile, 16)?;

    let mut bytes = Vec::new();
    io::stdin()
        .take(limits::RELEASE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::of_host(format!("cannot read the component: {error}")))?;
    let artifact = compile(&bytes).map_err(Error::of_release)?;
    let written = io::stdout().write_all(&artifact).and_then(|()| io::stdout().flush());
    written.map_err(|error| Error::of_host(format!("cannot write the artifact: {error}")))
}

fn compile(bytes: &[u8]) -> Result<Vec<u8>, String> {
    // This engine compiles one release and is dropped, because an engine keeps the memory of its compiler.
    let engine = Engine::new(&engine::config(Use::Compile)).map_err(|error| format!("{error:#}"))?;
    engine.precompile_component(bytes).map_err(|error| format!("the release does not compile: {error:#}"))
}

async fn in_child(program: &PathBuf, component: &[u8], wait: Duration) -> Result<Vec<u8>, Error> {
    let broke = |error: io::Error| Error::of_host(format!("the compiler did not run: {error}"));
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        // The child gets no environment, so it gets no secret of this process.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(broke)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(Error::of_host("the compiler has no standard streams"));
    };
    let (mut artifact, mut complaint) = (Vec::new(), Vec::new());
    let talk = async {
        let (mut stdout, mut stderr) =
            (stdout.take(limits::ARTIFACT_BYTES_MAX + 1), stderr.take(limits::COMPILE_ERROR_BYTES_MAX));
        let feed = async {
            // A child that refuses early closes its end. Its standard error has the reason.
            let _ = stdin.write_all(component).await;
            drop(stdin);
            Ok(0)
        };
        tokio::try_join!(feed, stdout.read_to_end(&mut artifact), stderr.read_to_end(&mut complaint))?;
        // If a stream was cut at its bound, the child still waits to write. Closing the stream ends that
        // wait.
        drop((stdout, stderr));
        child.wait().await
    };
    let status = match tokio::time::timeout(wait, talk).await {
        Ok(status) => status.map_err(broke)?,
        Err(_) => {
            return Err(Error::of_release(format!("the release takes more than {wait:?} to compile")));
        }
    };
    if artifact.len() as u64 > limits::ARTIFACT_BYTES_MAX {
        return Err(Error::of_release(format!(
            "the compiled release has more than {} bytes",
            limits::ARTIFACT_BYTES_MAX
        )));
    }
    if !status.success() {
        let complaint = String::from_utf8_lossy(&complaint);
        // The lines of the text become one line.
        let complaint = complaint.split_whitespace().collect::<Vec<_>>().join(" ");
        let complaint = match complaint.as_str() {
            "" => format!(
                "the compiler ended with {status}: the release is too large or takes too long to compile"
            ),
            text => text.trim_start_matches("error: ").to_owned(),
        };
        return Err(Error::of_release(complaint));
    }
    Ok(artifact)
}

/// Explains why the serving engine refused an artifact that was just compiled. If an engine without a pool
/// takes it, the release needs more than the pool gives to one instance, and the refusal says what. Otherwise
/// the host is to blame.
fn why_refused(artifact: &Verified, manifest: &Manifest, error: &wasmtime::Error) -> Error {
    let inspected =
        Engine::new(&engine::config(Use::Inspect)).and_then(|engine| deserialize(&engine, artifact));
    match inspected.map(|component| fits(&component, manifest)) {
        Ok(Err(refusal)) => refusal,
        Ok(Ok(())) => Error::of_release(format!("the release does not fit this host: {error:#}")),
        Err(_) => Error::of_host(format!("the compiled release does not load: {error:#}")),
    }
}

/// An artifact that this host's own compiler wrote: new from the compiler, or read from disk with a verified
/// MAC.
struct Verified(Vec<u8>);

#[allow(unsafe_code, reason = "wasmtime's only way to load what was compiled ahead of time")]
fn deserialize(engine: &Engine, artifact: &Verified) -> wasmtime::Result<Component> {
    // SAFETY: wasmtime runs these bytes as machine code, so they must come from its own compiler. A
    // `Verified` is made in two places only: from the child that this process started for the purpose, and
    // from a file whose MAC, under a key that only this host knows, was verified on these very bytes in
    // memory. The bytes are copied here, not mapped, so nobody can change them after the check.
    unsafe { Component::deserialize(engine, &artifact.0) }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

#[cfg(test)]
mod tests {
    use switchboard_core::{Blame, Blamed};

    use super::*;
    use crate::engine::EngineEnv;
    use switchboard_testing::guests;

    const WAIT: Duration = Duration::from_secs(60);
    const SECRET: &str = "a secret of at least thirty-two characters";

    fn artifacts(directory: &std::path::Path, secret: &str) -> Artifacts {
        Artifacts::new(Compiler::InProcess, directory.to_owned(), secret).unwrap()
    }

    fn release_file(bytes: Vec<u8>) -> ReleaseFile {
        ReleaseFile::parse(bytes).unwrap()
    }

    #[tokio::test]
    async fn what_was_compiled_is_kept_and_trusted_only_with_its_mac() {
        let directory = tempfile::tempdir().unwrap();
        let env = EngineEnv::new().unwrap();
        let file = release_file(guests::returns());
        let ours = artifacts(directory.path(), SECRET);
        let cache = &ours.cache;
        assert!(cache.kept(file.code).is_none());
        ours.load(&env.engine, &file).await.unwrap();
        assert!(cache.kept(file.code).is_some());

        // The secret of another host does not verify it.
        let theirs = artifacts(directory.path(), "another secret of at least thirty-two characters");
        assert!(theirs.cache.kept(file.code).is_none());

        // The own secret does not verify it after one changed bit, or under the digest of other code.
        let path = cache.path(file.code);
        let mut bytes = fs::read(&path).unwrap();
        let other = Digest::of(b"other code");
        fs::copy(&path, cache.path(other)).unwrap();
        assert!(cache.kept(other).is_none());
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(cache.kept(file.code).is_none());

        // An incomplete file is compiled again, and replaced by a complete one.
        fs::write(&path, &bytes[..10]).unwrap();
        ours.load(&env.engine, &file).await.unwrap();
        assert!(cache.kept(file.code).is_some());
        assert_eq!(fs::read_dir(&cache.directory).unwrap().count(), 2, "no unfinished file is left");
    }

    #[tokio::test]
    async fn another_manifest_needs_no_compiler() {
        let directory = tempfile::tempdir().unwrap();
        let env = EngineEnv::new().unwrap();
        let one = release_file(guests::with_manifest("name = \"one\"\non.frame = [{ type = \"x\" }]"));
        let two = release_file(guests::with_manifest("name = \"two\"\non.frame = [{ type = \"x\" }]"));
        assert_eq!(one.code, two.code);
        assert_ne!(one.digest, two.digest);
        artifacts(directory.path(), SECRET).load(&env.engine, &one).await.unwrap();
        let without = Compiler::Child(PathBuf::from("/nowhere/switchboard"));
        let without = Artifacts::new(without, directory.path().to_owned(), SECRET).unwrap();
        without.load(&env.engine, &two).await.unwrap();
    }

    #[tokio::test]
    async fn a_compiler_that_does_not_run_is_the_hosts_fault() {
        let refusal = in_child(&PathBuf::from("/nowhere/switchboard"), b"", WAIT).await.unwrap_err();
        assert_eq!(refusal.blame(), Blame::Host);
        assert!(refusal.reason.contains("did not run"), "{refusal}");
    }

    #[tokio::test]
    async fn a_compiler_that_does_not_end_is_killed_and_the_release_to_blame() {
        let directory = tempfile::tempdir().unwrap();
        let (program, started) = (directory.path().join("endless"), directory.path().join("pid"));
        let script = format!("#!/bin/sh\necho $$ >{}\nexec /bin/sleep 600\n", started.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // Repeated until the child has started, because the machine may be busy.
        let (refusal, pid) = loop {
            let refusal = in_child(&program, b"", Duration::from_millis(300)).await.unwrap_err();
            if let Ok(pid) = fs::read_to_string(&started) {
                break (refusal, pid);
            }
        };
        assert_eq!(refusal.blame(), Blame::Guest);
        assert!(refusal.reason.contains("300ms to compile"), "{refusal}");
        let state = format!("/proc/{}/cmdline", pid.trim());
        // The child was killed. Wait until the system has removed its process.
        while fs::read_to_string(&state).is_ok_and(|line| line.contains("sleep")) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_standard_error_of_the_child_is_the_reason() {
        // Any program that fails with a message represents the child here. The tests package runs the real
        // one.
        let refusal = in_child(&PathBuf::from("/bin/ls"), b"", WAIT).await.unwrap_err();
        assert_eq!(refusal.blame(), Blame::Guest);
        assert!(refusal.reason.contains(SUBCOMMAND), "{refusal}");
    }
}
