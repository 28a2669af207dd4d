//! How a fleet moves from one release to the next:
//!
//! 1. A deploy loads the file on this node.
//! 2. It compares the file's bindings with those of the other handlers, inside the switch.
//! 3. It waits until every live node reports that it runs the release.
//!
//! Each node follows by itself: it polls the fleet's generation in Postgres, loads new releases and swaps its
//! routing table.
//!
//! When anything fails here (a file does not load, a node is silent, Postgres is not reachable), the releases
//! that run keep running.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::time::{Instant, interval};
use tracing::warn;

use super::meters;
use super::outcome::{NodeOutcome, Outcome, Refused};
use super::registry::{Conflict, Entry, HasManifest, Observable, Registry, RoutingTable, covers};
use super::repository::{
    Action, Change, Error, FOUND_BY, HandlerState, Repository, Retired, Running, SwitchResult,
};
use super::signature::Trust;
use switchboard_core::config::Config;
use switchboard_core::ids::{Digest, NodeId};
use switchboard_core::limits;
use switchboard_core::manifest::Manifest;
use switchboard_recording::Trace;
use switchboard_runtime::{LoadedRelease, Refusal, ReleaseFile, Runtime};

mod candidates;
mod files;
mod follow;
mod guard;
mod shadows;

pub use candidates::Deployment;
use files::Files;
use follow::{FollowState, MissingReleases};
use shadows::Shadows;

/// Makes a release file ready to run. The runtime implements it.
pub trait Load: Send + Sync + 'static {
    type Release: Observable + Send + Sync + 'static;

    /// Compiles, links, checks the grants and warms up. An error tells the caller of the deploy why the
    /// release is refused.
    fn load(
        &self,
        file: &ReleaseFile,
        settings: BTreeMap<String, String>,
    ) -> impl Future<Output = Result<Arc<Self::Release>, Refusal>> + Send;

    /// Checks that are made once, at the deploy, and not again on every node.
    fn vet(&self, release: &Arc<Self::Release>) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Runs a recorded call again on another release, with the recorded answers.
    fn replay(
        &self,
        release: &Arc<Self::Release>,
        trace: &Trace,
    ) -> impl Future<Output = Result<Trace, Refusal>> + Send;
}

impl Load for Arc<Runtime> {
    type Release = LoadedRelease;

    async fn load(
        &self,
        file: &ReleaseFile,
        settings: BTreeMap<String, String>,
    ) -> Result<Arc<LoadedRelease>, Refusal> {
        Runtime::load(self, file, settings).await
    }

    async fn vet(&self, release: &Arc<LoadedRelease>) -> Result<(), Refusal> {
        self.read_scripts(release).await
    }

    async fn replay(&self, release: &Arc<LoadedRelease>, trace: &Trace) -> Result<Trace, Refusal> {
        Runtime::replay(self, release, trace).await
    }
}

/// This node's part in rollouts.
pub struct Rollout<L: Load = Arc<Runtime>> {
    pub node: NodeId,
    admin: SocketAddr,
    config: Arc<Config>,
    loader: L,
    registry: Arc<Registry<L::Release>>,
    repository: Repository,
    /// The keys that must have signed a release before this node loads it.
    trust: Trust,
    /// The number of open connections, for the heartbeat.
    connections: Box<dyn Fn() -> u64 + Send + Sync>,
    compiles: Semaphore,
    loaded: std::sync::Mutex<Loaded<L::Release>>,
    /// Locked from reading what the fleet runs until this node runs it: two passes at once would undo each
    /// other.
    follow_state: Mutex<FollowState>,
    hint: Notify,
    /// Notified when a call of a canary failed.
    canary_failed: Arc<Notify>,
    shadows: Shadows<L::Release>,
    files: Files,
    missing: MissingReleases,
}

impl<L: Load> Rollout<L> {
    pub fn new(
        node: NodeId,
        config: Arc<Config>,
        loader: L,
        registry: Arc<Registry<L::Release>>,
        repository: Repository,
        trust: Trust,
        connections: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            node,
            admin: config.admin_listen,
            config,
            loader,
            registry,
            repository,
            trust,
            connections: Box::new(connections),
            compiles: Semaphore::new(limits::COMPILES_AT_ONCE),
            loaded: std::sync::Mutex::new(Loaded::new()),
            follow_state: Mutex::new(FollowState::default()),
            hint: Notify::new(),
            canary_failed: Arc::new(Notify::new()),
            shadows: Shadows::new(),
            files: Files::default(),
            missing: MissingReleases::default(),
        }
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    pub fn registry(&self) -> &Arc<Registry<L::Release>> {
        &self.registry
    }

    pub fn demands_signatures(&self) -> bool {
        self.trust.is_needed()
    }

    /// Joins the fleet: sends a heartbeat, and takes over what runs. A release that does not load here is
    /// reported and is not an error, because the other handlers can serve.
    pub async fn join(&self) -> Result<(), Error> {
        self.repository.heartbeat(&self.heartbeat()).await?;
        self.converge().await
    }

    // ---- changes ----

    /// Deploys a release. Returns when every live node runs the release or has reported why not, or when the
    /// wait is over.
    pub async fn deploy(&self, bytes: Bytes, by: &str, note: Option<&str>) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let file = parsed(bytes).await?;
        self.deploy_file(&file, by, note, began).await
    }

    async fn deploy_file(
        &self,
        file: &ReleaseFile,
        by: &str,
        note: Option<&str>,
        began: Instant,
    ) -> Result<Outcome, Refused> {
        let name = file.manifest.name.as_str();
        let before = self.repository.handler_state(name).await?;
        if let Some(same) = before.running().filter(|running| running.digest == file.digest) {
            return self.unchanged(Action::Deploy, same.clone(), began).await;
        }
        self.load_and_store(file, by, note).await?;
        let change = Change::of_running(Action::Deploy, name, file.digest, &before, by, note);
        self.switch(&change, Some(&file.manifest), began).await
    }

    /// Rolls back to the release whose digest begins with `to`. Without `to`: a canary is withdrawn;
    /// otherwise the release that ran before runs again; a retired handler gets the release that was retired.
    pub async fn rollback(
        &self,
        name: &str,
        to: Option<&str>,
        by: &str,
        note: Option<&str>,
    ) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let before = self.repository.handler_state(name).await?;
        match &before {
            HandlerState::Unknown => return Err(Refused::UnknownHandler(name.to_owned())),
            HandlerState::Runs(running) if to.is_none() && running.canary.is_some() => {
                return self.withdraw(running.clone(), by, note, None, began).await;
            }
            HandlerState::Runs(_) | HandlerState::Retired(_) => {}
        }
        let digest = match to {
            Some(hex) => self.find(Some(name), hex).await?,
            None => self.repository.previous(name).await?.ok_or(Refused::NothingBefore)?,
        };
        if let Some(same) = before.running().filter(|now| now.digest == digest && now.canary.is_none()) {
            return self.unchanged(Action::Rollback, same.clone(), began).await;
        }
        let release = self.load_stored(digest).await?;
        let change = Change::of_running(Action::Rollback, name, digest, &before, by, note);
        self.switch(&change, Some(release.manifest()), began).await
    }

    /// Retires a handler in the whole fleet, with its canary and its shadow. Calls in flight finish. A deploy
    /// or a rollback brings it back; the files of `handlers_dir` do not.
    pub async fn retire(&self, name: &str, by: &str, note: Option<&str>) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let running = match self.repository.handler_state(name).await? {
            HandlerState::Unknown => return Err(Refused::UnknownHandler(name.to_owned())),
            HandlerState::Runs(running) => running,
            HandlerState::Retired(Retired { name, digest, generation }) => {
                let gone = Running { name, digest, generation, canary: None, shadow: None };
                return self.unchanged(Action::Retire, gone, began).await;
            }
        };
        let digest = running.digest;
        let to = Running { canary: None, shadow: None, ..running };
        // A rollback goes back to the release that ran before the retirement.
        let previous = Some(digest);
        let action = Action::Retire;
        let change = Change { action, to, digest, previous, percent: None, by, note, verdict: None };
        self.switch(&change, None, began).await
    }

    /// Finds the one release whose digest begins with these hex digits.
    pub async fn find(&self, name: Option<&str>, hex: &str) -> Result<Digest, Refused> {
        let hex = hex.strip_prefix("sha256:").unwrap_or(hex).to_ascii_lowercase();
        let plausible = (limits::DIGEST_PREFIX_MIN..=64).contains(&hex.len())
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !plausible {
            return Err(Refused::NoDigest(hex));
        }
        match self.repository.beginning_with(name, &hex).await?[..] {
            [digest] => Ok(digest),
            [] => Err(Refused::UnknownRelease(hex)),
            _ => Err(Refused::Ambiguous(hex)),
        }
    }

    /// Makes a switch and waits for the nodes. `manifest` is that of the release that begins to run, or
    /// becomes a canary or a shadow; None at a retirement.
    async fn switch(
        &self,
        change: &Change<'_>,
        manifest: Option<&Manifest>,
        began: Instant,
    ) -> Result<Outcome, Refused> {
        if let Some(manifest) = manifest {
            self.check_requirements(manifest).await?;
        }
        let mut switch = self.repository.switch().await?;
        if change.by == FOUND_BY
            && let Some(reason) = switch.skip_reason(change.to.digest, &change.to.name).await?
        {
            return Err(Refused::Skipped(reason));
        }
        if let Some(manifest) = manifest {
            let declared = switch.running().await?;
            if matches!(change.action, Action::Canary | Action::Shadow) {
                let runs = declared.iter().find(|(running, _)| running.name == change.to.name);
                runs.map_or(Ok(()), |(_, running)| covers(running, manifest))?;
            }
            check_conflicts(declared.into_iter().map(|(_, manifest)| manifest), manifest)?;
        }
        let generation = match switch.to(change).await? {
            SwitchResult::To { generation } => generation,
            SwitchResult::Lost { to } => return Err(Refused::Lost { to }),
        };
        // From here on the fleet has switched. Errors below are corrected when each node polls again.
        if let Err(error) = self.converge().await {
            let (name, action) = (&change.to.name, change.action.as_str());
            warn!(%error, "the fleet has switched {name} ({action}), but this node could not follow yet; it tries again");
        }
        let outcome = Outcome {
            name: change.to.name.clone(),
            action: change.action,
            digest: change.digest,
            generation,
            // The `previous` of a retirement in the history is the target of a rollback: the same release
            // that was retired.
            previous: change.previous.filter(|_| change.action != Action::Retire),
            percent: change.percent,
            unchanged: false,
            complete: false,
            nodes: Vec::new(),
            took_ms: 0,
        };
        let (name, digest) = (outcome.name.clone(), outcome.digest);
        let expected = (change.action != Action::Retire).then_some(change.to.digest);
        self.wait_for_nodes(outcome, expected, began).await.map_err(|error| match error {
            Refused::Backend(error) => Refused::NodesUnknown { name, digest, error },
            other => other,
        })
    }

    async fn check_requirements(&self, manifest: &Manifest) -> Result<(), Refused> {
        let missing = self.repository.migrations_missing(&manifest.needs.migrations).await?;
        if !missing.is_empty() {
            return Err(Refused::Migrations(missing));
        }
        // Checked after the migrations, because they create the roles.
        if let Some(role) = &manifest.grants.postgres
            && !self.repository.has_role(role).await?
        {
            return Err(Refused::Role(role.clone()));
        }
        Ok(())
    }

    async fn unchanged(&self, action: Action, running: Running, began: Instant) -> Result<Outcome, Refused> {
        let outcome = Outcome {
            name: running.name,
            action,
            digest: running.digest,
            generation: running.generation,
            previous: None,
            percent: None,
            unchanged: true,
            complete: false,
            nodes: Vec::new(),
            took_ms: 0,
        };
        let expected = (action != Action::Retire).then_some(running.digest);
        self.wait_for_nodes(outcome, expected, began).await
    }

    /// Waits for the nodes that are live now. A node that becomes silent meanwhile stays in the outcome.
    async fn wait_for_nodes(
        &self,
        mut outcome: Outcome,
        expected: Option<Digest>,
        began: Instant,
    ) -> Result<Outcome, Refused> {
        let mut look = interval(limits::DEPLOY_LOOKS_EVERY);
        let since = Instant::now();
        let until = since + limits::DEPLOY_WAITS;
        let answers = loop {
            look.tick().await;
            let answers = self.repository.answers(&outcome.name, outcome.generation, since.elapsed()).await?;
            if answers.iter().all(|answer| answer.report.is_some()) || Instant::now() > until {
                break answers;
            }
        };
        outcome.nodes = answers.into_iter().map(|answer| NodeOutcome::of(answer, expected)).collect();
        outcome.complete = outcome.nodes.iter().all(NodeOutcome::is_live);
        outcome.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(outcome)
    }

    async fn running(&self, name: &str) -> Result<Option<Running>, Error> {
        Ok(self.repository.running().await?.into_iter().find(|running| running.name == name))
    }

    // ---- loading ----

    /// Loads a release on this node, and then stores it where every node finds it.
    async fn load_and_store(
        &self,
        file: &ReleaseFile,
        by: &str,
        note: Option<&str>,
    ) -> Result<Arc<L::Release>, Refused> {
        let release = self.load(file).await?;
        self.loader.vet(&release).await?;
        self.repository.store(file.digest, &file.manifest, &file.bytes, by, note).await?;
        Ok(release)
    }

    async fn load(&self, file: &ReleaseFile) -> Result<Arc<L::Release>, Refused> {
        if let Some(loaded) = self.loaded().get(file.digest) {
            return Ok(loaded);
        }
        self.check_signatures(file.digest).await?;
        let _permit =
            self.compiles.acquire().await.map_err(|_| Refusal::of_host("the node is shutting down"))?;
        let settings = self.config.handler_settings(&file.manifest.name, &file.manifest.config);
        let release = self.loader.load(file, settings).await?;
        self.loaded().put(file.digest, &file.manifest.name, release.clone());
        Ok(release)
    }

    /// Checks the signatures of a release. Every node checks them itself, and does not trust the node that
    /// stored them.
    async fn check_signatures(&self, digest: Digest) -> Result<(), Refused> {
        if !self.trust.is_needed() {
            return Ok(());
        }
        let signatures = self.repository.signatures(digest, &self.trust.keys()).await?;
        if self.trust.accepts(digest, &signatures) {
            return Ok(());
        }
        Err(Refused::Unsigned(digest))
    }

    /// Loads a release that the fleet has stored.
    async fn load_stored(&self, digest: Digest) -> Result<Arc<L::Release>, Refused> {
        if let Some(loaded) = self.loaded().get(digest) {
            return Ok(loaded);
        }
        let bytes =
            self.repository.file(digest).await?.ok_or_else(|| Refused::UnknownRelease(digest.to_string()))?;
        self.load(&ReleaseFile::parse(bytes)?).await
    }

    /// Returns the metrics of the loaded releases' calls in the Prometheus text format.
    pub fn meters(&self) -> String {
        let loaded: Vec<_> = self.loaded().releases.clone();
        meters::page(&self.node.to_string(), &self.registry.current(), loaded)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, Loaded<L::Release>> {
        // Each change is one step, so a panic elsewhere cannot have left it half done.
        self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<'a> Change<'a> {
    /// A change of the running release. It ends the canary and the shadow, because these were compared with
    /// the old release.
    fn of_running(
        action: Action,
        name: &str,
        digest: Digest,
        before: &HandlerState,
        by: &'a str,
        note: Option<&'a str>,
    ) -> Self {
        let seen = before.generation();
        let to = Running { name: name.to_owned(), digest, generation: seen, canary: None, shadow: None };
        let previous = before.running().map(|running| running.digest);
        Self { action, to, digest, previous, percent: None, by, note, verdict: None }
    }
}

async fn parsed(bytes: Bytes) -> Result<ReleaseFile, Refused> {
    let parsed = tokio::task::spawn_blocking(|| ReleaseFile::parse(bytes)).await;
    Ok(parsed.map_err(|_| Refused::Host("the task that parses the release file panicked".into()))??)
}

/// Checks that a release binds nothing that another handler binds.
fn check_conflicts(running: impl Iterator<Item = Manifest>, next: &Manifest) -> Result<(), Conflict> {
    let entry = |manifest: Manifest| {
        let (name, of_any) = (manifest.name.clone(), Digest::of(&[]));
        Arc::new(Entry::new(name, of_any, 0, Arc::new(manifest)))
    };
    let others = running.filter(|manifest| manifest.name != next.name).map(entry);
    // The new release comes last, so that the error names it.
    RoutingTable::of(others.chain([entry(next.clone())])).map(drop)
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

#[cfg(test)]
mod tests;
