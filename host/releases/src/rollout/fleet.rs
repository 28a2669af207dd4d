//! The state that all parts of a rollout share: the releases that the fleet stores and those that this node
//! has loaded.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;

use super::super::meters;
use super::super::registry::Registry;
use super::super::repository::{Repository, RepositoryError, Running};
use super::super::signature::Trust;
use crate::Error;
use switchboard_core::config::Config;
use switchboard_core::ids::{Digest, NodeId};
use switchboard_core::limits;
use switchboard_runtime::{self as runtime, Load, ReleaseFile};

pub(super) struct Fleet<L: Load> {
    pub(crate) node: NodeId,
    pub(crate) loader: L,
    pub(crate) registry: Arc<Registry<L::Release>>,
    pub(crate) repository: Repository,
    config: Arc<Config>,
    /// The keys that must have signed a release before this node loads it.
    trust: Trust,
    /// Permits to load a release. The others wait.
    preparations: Semaphore,
    loaded: Mutex<Loaded<L::Release>>,
}

impl<L: Load> Fleet<L> {
    pub(crate) fn new(
        node: NodeId,
        config: Arc<Config>,
        loader: L,
        registry: Arc<Registry<L::Release>>,
        repository: Repository,
        trust: Trust,
    ) -> Self {
        Self {
            node,
            loader,
            registry,
            repository,
            config,
            trust,
            preparations: Semaphore::new(limits::DEPLOYS_PREPARED_AT_ONCE_MAX),
            loaded: Mutex::new(Loaded::new()),
        }
    }

    pub(crate) fn demands_signatures(&self) -> bool {
        self.trust.is_needed()
    }

    /// Returns the release of a handler that the fleet should run, if there is one.
    pub(crate) async fn running(&self, name: &str) -> Result<Option<Running>, RepositoryError> {
        Ok(self.repository.running().await?.into_iter().find(|running| running.name == name))
    }

    pub(crate) async fn load(&self, file: &ReleaseFile) -> Result<Arc<L::Release>, Error> {
        if let Some(loaded) = self.loaded().get(file.digest) {
            return Ok(loaded);
        }
        self.check_signatures(file.digest).await?;
        let _permit = self
            .preparations
            .acquire()
            .await
            .map_err(|_| runtime::Error::of_host("the node is shutting down"))?;
        let settings = self.config.handler_settings(&file.manifest.name, &file.manifest.config);
        let release = self.loader.load(file, settings).await?;
        self.loaded().put(file.digest, &file.manifest.name, release.clone());
        Ok(release)
    }

    /// Checks the signatures of a release. Every node checks them itself, and does not trust the node that
    /// stored them.
    async fn check_signatures(&self, digest: Digest) -> Result<(), Error> {
        if !self.trust.is_needed() {
            return Ok(());
        }
        let signatures = self.repository.signatures(digest, &self.trust.keys()).await?;
        if self.trust.accepts(digest, &signatures) {
            return Ok(());
        }
        Err(Error::Unsigned(digest))
    }

    /// Loads a release that the fleet has stored.
    pub(crate) async fn load_stored(&self, digest: Digest) -> Result<Arc<L::Release>, Error> {
        if let Some(loaded) = self.loaded().get(digest) {
            return Ok(loaded);
        }
        let bytes =
            self.repository.file(digest).await?.ok_or_else(|| Error::UnknownRelease(digest.to_string()))?;
        self.load(&ReleaseFile::parse(bytes)?).await
    }

    /// Returns the metrics of the loaded releases' calls in the Prometheus text format.
    pub(crate) fn meters(&self) -> String {
        let loaded: Vec<_> = self.loaded().releases.clone();
        meters::page(&self.node.to_string(), &self.registry.current(), loaded)
    }

    /// Forgets the loaded releases of a retired handler. Calls in flight keep theirs.
    pub(crate) fn forget(&self, name: &str) {
        self.loaded().forget(name);
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded<L::Release>> {
        // Each change is one step, so a panic elsewhere cannot have left it half done.
        self.loaded.lock()
    }
}

/// The releases in memory, including those that do not run, so that a rollback need not wait for a
/// compilation.
struct Loaded<R> {
    /// In the order of their last use.
    releases: Vec<(Digest, String, Arc<R>)>,
}

impl<R> Loaded<R> {
    fn new() -> Self {
        Self { releases: Vec::new() }
    }

    fn get(&mut self, digest: Digest) -> Option<Arc<R>> {
        let at = self.releases.iter().position(|(known, ..)| *known == digest)?;
        let used = self.releases.remove(at);
        let release = used.2.clone();
        self.releases.push(used);
        Some(release)
    }

    fn put(&mut self, digest: Digest, name: &str, release: Arc<R>) {
        self.releases.retain(|(known, ..)| *known != digest);
        self.releases.push((digest, name.to_owned(), release));
        let of_this = self.releases.iter().filter(|(_, known, _)| known == name).count();
        if of_this > limits::RELEASES_LOADED_PER_HANDLER {
            let oldest = self.releases.iter().position(|(_, known, _)| known == name);
            oldest.map(|at| self.releases.remove(at));
        }
    }

    /// Removes the releases of a retired handler. Calls in flight keep theirs.
    fn forget(&mut self, name: &str) {
        self.releases.retain(|(_, known, _)| known != name);
    }
}
