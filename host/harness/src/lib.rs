//! Runs one handler alone, exactly, in milliseconds. A handler acts on the world only through host calls, so
//! a test is a recording: the call's input, the host calls with their answers, the outcome. It is replayed
//! without Postgres, Redis or sockets, and recorded and checked against real ones.
//!
//! [`suite`] finds and runs tests in files (`handlers/*/tests/*.trace`), for `switchboard test`. Tests in
//! Rust use [`Harness`]:
//!
//! ```ignore
//! let send = Harness::alone()?.load("target/handlers/send-message.wasm").await?;
//! let input = json!({ "type": "message.send", "payload": { "content": "hi" }, "caller": "ana" });
//! let ran = send.call("frame", input)
//!     .answer("postgres.collect", json!({ "Err": "Busy" }))
//!     .run().await;
//! ran.expect_problem("unavailable");
//! ```

mod bench;
pub mod case;
mod clock;
mod error;
pub mod faults;
mod input;
mod player;
mod props;
pub mod report;
pub mod statements;
pub mod suite;
mod values;
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use switchboard_core::config::Config;
use switchboard_recording::Scenario;
use switchboard_runtime::{Backends, Compiler, Inputs, LoadedRelease, Options, ReleaseFile, Runtime};
use switchboard_telemetry::Tracer;

pub use bench::{Call, Handler, Ran};
pub use error::Error;
pub use input::complete;
pub use props::Props;
pub use values::test_inputs;
pub use world::{Services, World};

/// A sandbox without services. The test decides the answers of host calls.
pub struct Harness {
    runtime: Arc<Runtime>,
}

impl Harness {
    /// Keeps compiled code in the system's directory for temporary files, for the next run.
    pub fn alone() -> Result<Self, Error> {
        Self::keeping(&std::env::temp_dir().join("switchboard-harness"))
    }

    /// The same with another directory for compiled code.
    pub fn keeping(directory: &Path) -> Result<Self, Error> {
        Ok(Self { runtime: Arc::new(sandbox(directory.to_owned(), Backends::default())?) })
    }

    /// A sandbox with these services.
    pub fn over(directory: &Path, backends: Backends) -> Result<Self, Error> {
        Ok(Self { runtime: Arc::new(sandbox(directory.to_owned(), backends)?) })
    }

    pub async fn load(&self, file: impl AsRef<Path>) -> Result<Handler, Error> {
        let file = read(file.as_ref())?;
        self.load_with(&file, &test_inputs(&file.manifest, &Scenario::default())).await
    }

    /// Loads it with inputs, for instance with settings over the manifest's.
    pub async fn load_with(&self, file: &ReleaseFile, inputs: &Inputs) -> Result<Handler, Error> {
        Ok(Handler::new(self.runtime.clone(), self.runtime.load(file, inputs).await?))
    }

    pub async fn load_bytes(&self, bytes: impl Into<bytes::Bytes>) -> Result<Handler, Error> {
        let file = ReleaseFile::parse(bytes)?;
        self.load_with(&file, &test_inputs(&file.manifest, &Scenario::default())).await
    }
}

impl Handler {
    fn new(runtime: Arc<Runtime>, release: Arc<LoadedRelease>) -> Self {
        Self { runtime, release, world: None }
    }
}

/// Loads a release file from disk.
pub fn read(path: &Path) -> Result<ReleaseFile, Error> {
    let bytes = std::fs::read(path).map_err(|error| Error::Read(path.to_owned(), error))?;
    Ok(ReleaseFile::parse(bytes)?)
}

/// It serves no client, so it compiles in this process, and its compiled code needs no secret.
fn sandbox(data_dir: PathBuf, backends: Backends) -> Result<Runtime, Error> {
    let options = Options {
        guest_memory_mib: Config::default().guest_memory_mib,
        tracer: Tracer::default(),
        compiler: Compiler::InProcess,
        data_dir,
        secret: "the harness keeps what it compiled from its own user's files".to_owned(),
        recordings: None,
    };
    Ok(Runtime::with(options, backends)?)
}
