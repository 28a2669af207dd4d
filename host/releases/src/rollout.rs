//! How a fleet moves from one release to the next. A deploy loads the file here, compares what it binds with the other
//! handlers inside the switch, and then waits until every live node says that it runs it. Each node follows by itself: it
//! asks Postgres for the fleet's generation, loads what is new and swaps its pointer.
//!
//! What runs keeps running whatever fails here: a file that does not load, a node that is silent, Postgres gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::time::{Instant, interval};
use tracing::warn;

use super::meters;
use super::outcome::{NodeOutcome, Outcome, Refused};
use super::registry::{Bindings, Conflict, Declares, Entry, Lives, Registry, covers};
use super::repository::{Action, Change, Error, FOUND_BY, Repository, Retired, Running, Standing, Switched};
use super::signature::Trust;
use crate::config::Config;
use crate::ids::{Digest, NodeId};
use crate::limits;
use crate::manifest::Manifest;
use crate::runtime::{LoadedRelease, Refusal, ReleaseFile, Runtime};
use crate::trace::Trace;

mod files;
mod follow;
mod guard;
mod shadows;
mod trials;

use files::Files;
use follow::{Lacking, Turn};
use shadows::Shadows;
pub use trials::Beside;

/// What makes a file ready to run; the runtime, as seen from here.
pub trait Load: Send + Sync + 'static {
    type Release: Lives + Send + Sync + 'static;

    /// Compiled, linked, checked against its grants, warmed. Refused with a reason, for whoever deploys.
    fn load(
        &self,
        file: &ReleaseFile,
        settings: BTreeMap<String, String>,
    ) -> impl Future<Output = Result<Arc<Self::Release>, Refusal>> + Send;

    /// What is looked at once, at the deploy, and not by every node that takes the release over.
    fn vet(&self, release: &Arc<Self::Release>) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// A recorded call once more, on another release, with the recorded answers.
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

/// This node's part in the fleet.
pub struct Rollout<L: Load = Arc<Runtime>> {
    pub node: NodeId,
    admin: SocketAddr,
    config: Arc<Config>,
    loader: L,
    registry: Arc<Registry<L::Release>>,
    repository: Repository,
    /// Who must vouch for a release before it is loaded here.
    trust: Trust,
    /// For the heartbeat.
    connections: Box<dyn Fn() -> u64 + Send + Sync>,
    compiles: Semaphore,
    loaded: std::sync::Mutex<Loaded<L::Release>>,
    /// Held from asking what the fleet runs to running it: two turns at once would undo each other.
    turn: Mutex<Turn>,
    hint: Notify,
    /// A canary's call went wrong.
    alarm: Arc<Notify>,
    shadows: Shadows<L::Release>,
    files: Files,
    lacking: Lacking,
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
            turn: Mutex::new(Turn::default()),
            hint: Notify::new(),
            alarm: Arc::new(Notify::new()),
            shadows: Shadows::new(),
            files: Files::default(),
            lacking: Lacking::default(),
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

    /// Joins the fleet: says that it is there, and takes over what runs. A release that does not load here is reported,
    /// not an error: the other handlers serve.
    pub async fn join(&self) -> Result<(), Error> {
        self.repository.heartbeat(&self.heartbeat()).await?;
        self.converge().await
    }

    // ---- changes -----------------------------------------------------------------------------------------------------

    /// Returns once every live node runs the release or has said why not, or the wait is over.
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
        let before = self.repository.standing(name).await?;
        if let Some(same) = before.running().filter(|running| running.digest == file.digest) {
            return self.unchanged(Action::Deploy, same.clone(), began).await;
        }
        self.keep(file, by, note).await?;
        let change = Change::of_running(Action::Deploy, name, file.digest, &before, by, note);
        self.switch(&change, Some(&file.manifest), began).await
    }

    /// To a release given by the beginning of its digest, or to the one that ran before the present one; of a retired
    /// handler, to the one that was taken out. A canary that stands is what is taken back first.
    pub async fn rollback(
        &self,
        name: &str,
        to: Option<&str>,
        by: &str,
        note: Option<&str>,
    ) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let before = self.repository.standing(name).await?;
        match &before {
            Standing::Unknown => return Err(Refused::UnknownHandler(name.to_owned())),
            Standing::Runs(running) if to.is_none() && running.canary.is_some() => {
                return self.withdraw(running.clone(), by, note, None, began).await;
            }
            Standing::Runs(_) | Standing::Retired(_) => {}
        }
        let digest = match to {
            Some(hex) => self.find(Some(name), hex).await?,
            None => self.repository.previous(name).await?.ok_or(Refused::NothingBefore)?,
        };
        if let Some(same) = before.running().filter(|now| now.digest == digest && now.canary.is_none()) {
            return self.unchanged(Action::Rollback, same.clone(), began).await;
        }
        let release = self.known(digest).await?;
        let change = Change::of_running(Action::Rollback, name, digest, &before, by, note);
        self.switch(&change, Some(release.manifest()), began).await
    }

    /// Takes a handler out of the whole fleet, with its canary and its shadow. Calls in flight finish. A deploy or a rollback
    /// brings it back; the files of `handlers_dir` do not.
    pub async fn retire(&self, name: &str, by: &str, note: Option<&str>) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let running = match self.repository.standing(name).await? {
            Standing::Unknown => return Err(Refused::UnknownHandler(name.to_owned())),
            Standing::Runs(running) => running,
            Standing::Retired(Retired { name, digest, generation }) => {
                let gone = Running { name, digest, generation, canary: None, shadow: None };
                return self.unchanged(Action::Retire, gone, began).await;
            }
        };
        let digest = running.digest;
        let to = Running { canary: None, shadow: None, ..running };
        // What ran before the retirement is what a rollback goes back to.
        let previous = Some(digest);
        let action = Action::Retire;
        let change = Change { action, to, digest, previous, percent: None, by, note, verdict: None };
        self.switch(&change, None, began).await
    }

    /// The one release whose digest begins with these hex digits.
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

    /// `manifest` is that of the release which begins to run, or to stand beside what runs; none at a retirement.
    async fn switch(
        &self,
        change: &Change<'_>,
        manifest: Option<&Manifest>,
        began: Instant,
    ) -> Result<Outcome, Refused> {
        if let Some(manifest) = manifest {
            self.has_what_it_needs(manifest).await?;
        }
        let mut switch = self.repository.switch().await?;
        if change.by == FOUND_BY
            && let Some(settled) = switch.settled(change.to.digest, &change.to.name).await?
        {
            return Err(Refused::Settled(settled));
        }
        if let Some(manifest) = manifest {
            let declared = switch.running().await?;
            if matches!(change.action, Action::Canary | Action::Shadow) {
                let runs = declared.iter().find(|(running, _)| running.name == change.to.name);
                runs.map_or(Ok(()), |(_, running)| covers(running, manifest))?;
            }
            fits(declared.into_iter().map(|(_, manifest)| manifest), manifest)?;
        }
        let generation = match switch.to(change).await? {
            Switched::To { generation } => generation,
            Switched::Lost { to } => return Err(Refused::Lost { to }),
        };
        // From here on the fleet has switched; what fails below is for the followers to put right.
        if let Err(error) = self.converge().await {
            let (name, action) = (&change.to.name, change.action.as_str());
            warn!(%error, "the fleet has switched {name} ({action}), but this node cannot follow yet");
        }
        let outcome = Outcome {
            name: change.to.name.clone(),
            action: change.action,
            digest: change.digest,
            generation,
            // The history of a retirement names what a rollback goes back to; that is what was taken out.
            previous: change.previous.filter(|_| change.action != Action::Retire),
            percent: change.percent,
            unchanged: false,
            complete: false,
            nodes: Vec::new(),
            took_ms: 0,
        };
        let (name, digest) = (outcome.name.clone(), outcome.digest);
        let expected = (change.action != Action::Retire).then_some(change.to.digest);
        self.watched(outcome, expected, began).await.map_err(|error| match error {
            Refused::Backend(error) => Refused::Unwatched { name, digest, error },
            other => other,
        })
    }

    async fn has_what_it_needs(&self, manifest: &Manifest) -> Result<(), Refused> {
        let missing = self.repository.migrations_missing(&manifest.needs.migrations).await?;
        if !missing.is_empty() {
            return Err(Refused::Migrations(missing));
        }
        // After the migrations: they make the roles.
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
        self.watched(outcome, expected, began).await
    }

    /// Waits for the nodes that are live now. One that falls silent meanwhile is not forgotten for that: it is named.
    async fn watched(
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

    async fn wanted(&self, name: &str) -> Result<Option<Running>, Error> {
        Ok(self.repository.running().await?.into_iter().find(|running| running.name == name))
    }

    // ---- loading -----------------------------------------------------------------------------------------------------

    /// Loaded here, and then where every node finds it.
    async fn keep(
        &self,
        file: &ReleaseFile,
        by: &str,
        note: Option<&str>,
    ) -> Result<Arc<L::Release>, Refused> {
        let release = self.load(file).await?;
        self.loader.vet(&release).await?;
        self.repository.keep(file.digest, &file.manifest, &file.bytes, by, note).await?;
        Ok(release)
    }

    async fn load(&self, file: &ReleaseFile) -> Result<Arc<L::Release>, Refused> {
        if let Some(loaded) = self.loaded().get(file.digest) {
            return Ok(loaded);
        }
        self.vouched_for(file.digest).await?;
        let _turn = self.compiles.acquire().await.map_err(|_| Refusal::of_host("the node ends"))?;
        let settings = self.config.handler_settings(&file.manifest.name, &file.manifest.config);
        let release = self.loader.load(file, settings).await?;
        self.loaded().put(file.digest, &file.manifest.name, release.clone());
        Ok(release)
    }

    /// Asked of Postgres and verified here, whoever uploaded it and whatever other nodes say.
    async fn vouched_for(&self, digest: Digest) -> Result<(), Refused> {
        if !self.trust.is_needed() {
            return Ok(());
        }
        let signatures = self.repository.signatures(digest, &self.trust.keys()).await?;
        if self.trust.accepts(digest, &signatures) {
            return Ok(());
        }
        Err(Refused::Unsigned(digest))
    }

    /// A release that the fleet has kept.
    async fn known(&self, digest: Digest) -> Result<Arc<L::Release>, Refused> {
        if let Some(loaded) = self.loaded().get(digest) {
            return Ok(loaded);
        }
        let bytes =
            self.repository.file(digest).await?.ok_or_else(|| Refused::UnknownRelease(digest.to_string()))?;
        self.load(&ReleaseFile::parse(bytes)?).await
    }

    /// The Prometheus text format: what the calls of the releases that are loaded here were.
    pub fn meters(&self) -> String {
        let loaded: Vec<_> = self.loaded().releases.clone();
        meters::page(&self.node.to_string(), &self.registry.current(), loaded)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, Loaded<L::Release>> {
        // Each change of it is one step; a panic elsewhere cannot have left it half done.
        self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<'a> Change<'a> {
    /// What runs is another release from here on. What stood beside the old one was compared with it, and goes with it.
    fn of_running(
        action: Action,
        name: &str,
        digest: Digest,
        before: &Standing,
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
    Ok(parsed.map_err(|_| Refused::Host("reading the file failed".into()))??)
}

/// Whether a release may run beside the others, those of other names.
fn fits(running: impl Iterator<Item = Manifest>, next: &Manifest) -> Result<(), Conflict> {
    let entry = |manifest: Manifest| {
        let (name, of_any) = (manifest.name.clone(), Digest::of(&[]));
        Arc::new(Entry::new(name, of_any, 0, Arc::new(manifest)))
    };
    let others = running.filter(|manifest| manifest.name != next.name).map(entry);
    // The new one last, so that the refusal blames it.
    Bindings::of(others.chain([entry(next.clone())])).map(drop)
}

/// Releases ready to run, also those that do not: a rollback must not wait for a compile.
struct Loaded<R> {
    /// The latest used last.
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

    /// A retired handler's go; calls in flight hold theirs.
    fn forget(&mut self, name: &str) {
        self.releases.retain(|(_, known, _)| known != name);
    }
}

#[cfg(test)]
mod tests;
