//! The runtime as releases use it: it makes a release file ready to run, and replays recorded calls. These
//! are traits, so that the tests of releases need no WebAssembly (`switchboard-testing` implements them).

use std::sync::Arc;

use super::{Error, Inputs, LoadedRelease, ObserverSlot, ReleaseFile, ReleaseStats, Runtime};
use switchboard_core::manifest::Manifest;
use switchboard_recording::Recording;
use switchboard_telemetry::histogram::Counts;

/// Makes a release file ready to run. The runtime implements it.
pub trait Load: Send + Sync + 'static {
    type Release: Observable + Send + Sync + 'static;

    /// Compiles, links, checks the grants and warms up. An error tells the caller of the deploy why the
    /// release is refused.
    fn load(
        &self,
        file: &ReleaseFile,
        inputs: &Inputs,
    ) -> impl Future<Output = Result<Arc<Self::Release>, Error>> + Send;

    /// Gives a loaded release other inputs: calls that begin from now on use them. On an error the release
    /// keeps those that it has. The caller applies the inputs of a release one after the other.
    fn apply(
        &self,
        release: &Arc<Self::Release>,
        inputs: Inputs,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Checks that are made once, at the deploy, and not again on every node.
    fn vet(&self, release: &Arc<Self::Release>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Runs a recorded call again on another release, with the recorded answers.
    fn replay(
        &self,
        release: &Arc<Self::Release>,
        recording: &Recording,
    ) -> impl Future<Output = Result<Recording, Error>> + Send;
}

/// The part of a release that a routing table needs.
pub trait HasManifest {
    fn manifest(&self) -> &Manifest;
}

/// A loaded release whose calls can be counted and observed.
pub trait Observable: HasManifest {
    fn stats(&self) -> &ReleaseStats;
    fn observer(&self) -> &ObserverSlot;

    /// The host calls of each function; empty when the release cannot be called.
    fn host_calls(&self) -> Vec<(&'static str, Counts)> {
        Vec::new()
    }
}

impl Load for Arc<Runtime> {
    type Release = LoadedRelease;

    async fn load(&self, file: &ReleaseFile, inputs: &Inputs) -> Result<Arc<LoadedRelease>, Error> {
        Runtime::load(self, file, inputs).await
    }

    async fn apply(&self, release: &Arc<LoadedRelease>, inputs: Inputs) -> Result<(), Error> {
        release.apply(inputs).await
    }

    async fn vet(&self, release: &Arc<LoadedRelease>) -> Result<(), Error> {
        self.check_scripts(release).await
    }

    async fn replay(&self, release: &Arc<LoadedRelease>, recording: &Recording) -> Result<Recording, Error> {
        Runtime::replay(self, release, recording).await
    }
}

impl HasManifest for LoadedRelease {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// A manifest alone can be compared before its release is loaded.
impl HasManifest for Manifest {
    fn manifest(&self) -> &Manifest {
        self
    }
}

impl Observable for LoadedRelease {
    fn stats(&self) -> &ReleaseStats {
        &self.stats
    }

    fn observer(&self) -> &ObserverSlot {
        &self.observer
    }

    fn host_calls(&self) -> Vec<(&'static str, Counts)> {
        LoadedRelease::host_calls(self)
    }
}
