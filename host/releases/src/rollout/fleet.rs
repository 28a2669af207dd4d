//! The state that all parts of a rollout share: the releases that the fleet stores and those that this node
//! has loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::meters;
use super::super::registry::Registry;
use super::super::repository::{Report, Repository, RepositoryError, Running};
use super::super::signature::Trust;
use super::secrets::opened_secrets;
use crate::Error;
use switchboard_core::config::{Config, Override};
use switchboard_core::ids::{Digest, NodeId};
use switchboard_core::limits;
use switchboard_core::manifest::Manifest;
use switchboard_runtime::{self as runtime, HasManifest, Inputs, Load, ReleaseFile};

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
    /// Locked from reading inputs until a release has them. Otherwise inputs that were read earlier could
    /// replace those that were read later.
    applying: tokio::sync::Mutex<()>,
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
            applying: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn demands_signatures(&self) -> bool {
        self.trust.is_needed()
    }

    /// Returns the release of a handler that the fleet should run, if there is one.
    pub(crate) async fn running(&self, name: &str) -> Result<Option<Running>, RepositoryError> {
        Ok(self.repository.running().await?.into_iter().find(|running| running.name == name))
    }

    /// Loads a release with the present inputs, or gives them to the release if it is loaded.
    pub(crate) async fn load(&self, file: &ReleaseFile) -> Result<Arc<L::Release>, Error> {
        if let Some(loaded) = self.held(file.digest) {
            return self.with_present_inputs(loaded).await;
        }
        self.check_signatures(file.digest).await?;
        let _permit = self
            .preparations
            .acquire()
            .await
            .map_err(|_| runtime::Error::of_host("the node is shutting down"))?;
        // If they change while the release is compiled, the handler's generation rises, and the next pass of
        // the follower gives it the new ones.
        let inputs = self.inputs(&file.manifest).await?;
        let release = self.loader.load(file, &inputs).await?;
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

    /// Loads a release that the fleet has stored, with the present inputs. A release that is loaded gets them
    /// too: it may be one of before, to which the fleet rolls back.
    pub(crate) async fn load_stored(&self, digest: Digest) -> Result<Arc<L::Release>, Error> {
        if let Some(loaded) = self.held(digest) {
            return self.with_present_inputs(loaded).await;
        }
        let bytes =
            self.repository.file(digest).await?.ok_or_else(|| Error::UnknownRelease(digest.to_string()))?;
        self.load(&ReleaseFile::parse(bytes)?).await
    }

    /// Loads a release for the follower. A release that runs on this node in any role stays usable when its
    /// present inputs cannot be made or do not fit: it keeps its former ones, and the reason is returned too.
    /// So a canary ends, for instance, on a node that cannot open a secret.
    pub(crate) async fn load_to_follow(
        &self,
        digest: Digest,
    ) -> Result<(Arc<L::Release>, Option<Error>), Error> {
        match (self.load_stored(digest).await, self.runs_here(digest)) {
            // A failure of Postgres says nothing about the inputs.
            (Err(Error::Backend(error)), _) => Err(Error::Backend(error)),
            (Err(reason), Some(release)) => Ok((release, Some(reason))),
            (loaded, _) => Ok((loaded?, None)),
        }
    }

    /// Stores a report of this node about a handler.
    pub(crate) async fn report(&self, report: &Report) -> Result<(), RepositoryError> {
        let overrides: Vec<String> = self.config.handler_overrides(&report.name).into_keys().collect();
        self.repository.report(self.node, report, &overrides).await
    }

    /// The settings of a handler that this node overrides.
    pub(crate) fn overrides(&self, name: &str) -> BTreeMap<String, Override> {
        self.config.handler_overrides(name)
    }

    /// Reads the inputs of a handler's releases on this node.
    async fn inputs(&self, manifest: &Manifest) -> Result<Inputs, Error> {
        let stored = in_time("read the live settings", self.repository.inputs(manifest)).await?;
        let secrets = opened_secrets(&self.repository, &self.config, manifest).await?;
        Ok(Inputs { overrides: self.overrides(&manifest.name), secrets, ..stored })
    }

    /// Gives a loaded release the present inputs. On an error it keeps those that it has.
    async fn with_present_inputs(&self, release: Arc<L::Release>) -> Result<Arc<L::Release>, Error> {
        let _one_at_a_time = self.applying.lock().await;
        let inputs = self.inputs(release.manifest()).await?;
        self.loader.apply(&release, inputs).await?;
        Ok(release)
    }

    /// Returns a loaded release. One that runs comes first: it has the statistics of its calls, and may have
    /// been loaded again since.
    fn held(&self, digest: Digest) -> Option<Arc<L::Release>> {
        let kept = self.loaded().get(digest);
        self.runs_here(digest).or(kept)
    }

    /// Returns the release with this digest, if it runs on this node, as a canary or a shadow too.
    fn runs_here(&self, digest: Digest) -> Option<Arc<L::Release>> {
        self.registry.current().handlers().find_map(|entry| entry.release(digest)).cloned()
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

/// Treats a server that hangs like one that is not reachable.
pub(super) async fn in_time<T>(
    attempt: &'static str,
    asked: impl Future<Output = Result<T, RepositoryError>>,
) -> Result<T, RepositoryError> {
    timeout(limits::FOLLOW_WAIT, asked).await.unwrap_or_else(|_| Err(RepositoryError::timed_out(attempt)))
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
