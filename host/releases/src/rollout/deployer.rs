//! Makes changes: a deploy, a rollback, a retirement. It switches the fleet and waits until the live nodes
//! follow.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, interval};
use tracing::warn;

use super::super::outcome::{NodeOutcome, Outcome};
use super::super::registry::{Conflict, Entry, RoutingTable, covers};
use super::super::repository::{
    Action, Change, FOUND_BY, HandlerState, Retired, Running, SwitchResult, Verdict,
};
use super::fleet::Fleet;
use super::follow::Follower;
use super::settings;
use crate::Error;
use crate::selection::Selection;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::manifest::Manifest;
use switchboard_runtime::{HasManifest, Load, ReleaseFile};

pub struct Deployer<L: Load> {
    pub(super) fleet: Arc<Fleet<L>>,
    pub(super) follower: Arc<Follower<L>>,
}

impl<L: Load> Deployer<L> {
    pub(super) fn new(fleet: Arc<Fleet<L>>, follower: Arc<Follower<L>>) -> Self {
        Self { fleet, follower }
    }

    /// Deploys a release. Returns when every live node runs the release or has reported why not, or when the
    /// wait is over.
    pub async fn deploy(&self, bytes: Bytes, origin: Origin<'_>) -> Result<Outcome, Error> {
        let file = parsed(bytes).await?;
        self.deploy_file(&file, origin).await
    }

    pub(super) async fn deploy_file(&self, file: &ReleaseFile, origin: Origin<'_>) -> Result<Outcome, Error> {
        let name = file.manifest.name.as_str();
        let before = self.fleet.repository.handler_state(name).await?;
        if let Some(same) = before.running().filter(|running| running.digest == file.digest) {
            return self.unchanged(Action::Deploy, same.clone(), origin.began).await;
        }
        self.load_and_store(file, origin).await?;
        let change = Change::of_running(Action::Deploy, name, file.digest, &before, origin);
        self.switch(&change, Some(&file.manifest), origin.began).await
    }

    /// Rolls back to the release whose digest begins with `to`. Without `to`: a canary is withdrawn;
    /// otherwise the release that ran before runs again; a retired handler gets the release that was retired.
    pub async fn rollback(&self, name: &str, to: Option<&str>, origin: Origin<'_>) -> Result<Outcome, Error> {
        let before = self.fleet.repository.handler_state(name).await?;
        match &before {
            HandlerState::Unknown => return Err(Error::UnknownHandler(name.to_owned())),
            HandlerState::Runs(running) if to.is_none() && running.canary.is_some() => {
                return self.withdraw(running.clone(), origin).await;
            }
            HandlerState::Runs(_) | HandlerState::Retired(_) => {}
        }
        let digest = match to {
            Some(hex) => self.find(Some(name), hex).await?,
            None => self.fleet.repository.previous(name).await?.ok_or(Error::NothingBefore)?,
        };
        if let Some(running) = before.running().filter(|now| now.digest == digest) {
            // It runs already, so only its canary can end.
            return match running.canary {
                Some(_) => self.withdraw(running.clone(), origin).await,
                None => self.unchanged(Action::Rollback, running.clone(), origin.began).await,
            };
        }
        let release = self.fleet.load_stored(digest).await?;
        let change = Change::of_running(Action::Rollback, name, digest, &before, origin);
        self.switch(&change, Some(release.manifest()), origin.began).await
    }

    /// Retires a handler in the whole fleet, with its canary and its shadow. Calls in flight finish. A deploy
    /// or a rollback brings it back; the files of `handlers_dir` do not.
    pub async fn retire(&self, name: &str, origin: Origin<'_>) -> Result<Outcome, Error> {
        let running = match self.fleet.repository.handler_state(name).await? {
            HandlerState::Unknown => return Err(Error::UnknownHandler(name.to_owned())),
            HandlerState::Runs(running) => running,
            HandlerState::Retired(Retired { name, digest, generation }) => {
                let selection = Selection::default();
                let gone = Running { name, digest, generation, canary: None, selection, shadow: None };
                return self.unchanged(Action::Retire, gone, origin.began).await;
            }
        };
        let digest = running.digest;
        let to = Running { canary: None, selection: Selection::default(), shadow: None, ..running };
        // A rollback goes back to the release that ran before the retirement.
        let previous = Some(digest);
        let change = origin.change(Action::Retire, to, digest, previous, None);
        self.switch(&change, None, origin.began).await
    }

    /// Finds the one release whose digest begins with these hex digits.
    pub async fn find(&self, name: Option<&str>, hex: &str) -> Result<Digest, Error> {
        let hex = hex.strip_prefix("sha256:").unwrap_or(hex).to_ascii_lowercase();
        let plausible = (limits::DIGEST_PREFIX_MIN..=64).contains(&hex.len())
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !plausible {
            return Err(Error::NoDigest(hex));
        }
        match self.fleet.repository.beginning_with(name, &hex).await?[..] {
            [digest] => Ok(digest),
            [] => Err(Error::UnknownRelease(hex)),
            _ => Err(Error::Ambiguous(hex)),
        }
    }

    /// Makes a switch and waits for the nodes. `manifest` is that of the release that begins to run, or
    /// becomes a canary or a shadow; None at a retirement, and when only a candidate ends.
    pub(super) async fn switch(
        &self,
        change: &Change<'_>,
        manifest: Option<&Manifest>,
        began: Instant,
    ) -> Result<Outcome, Error> {
        if let Some(manifest) = manifest {
            self.check_requirements(manifest).await?;
        }
        let mut switch = self.fleet.repository.switch().await?;
        if change.by == FOUND_BY
            && let Some(reason) = switch.skip_reason(change.to.digest, &change.to.name).await?
        {
            return Err(Error::Skipped(reason));
        }
        if let Some(manifest) = manifest {
            let missing = switch.secrets_missing(&manifest.grants.secrets).await?;
            if !missing.is_empty() {
                return Err(Error::SecretsMissing(missing));
            }
            let bytes = switch.secrets_bytes(&manifest.grants.secrets).await?;
            if bytes > limits::SECRETS_BYTES_MAX {
                return Err(Error::SecretsTooLarge { handler: manifest.name.clone(), bytes });
            }
            let declared = switch.running().await?;
            if matches!(change.action, Action::Canary | Action::Shadow) {
                let runs = declared.iter().find(|(running, _)| running.name == change.to.name);
                runs.map_or(Ok(()), |(_, running)| covers(running, manifest))?;
            }
            settings::fits(&switch.settings(&manifest.name).await?, manifest)?;
            check_conflicts(declared.into_iter().map(|(_, manifest)| manifest), manifest)?;
        }
        let generation = match switch.to(change).await? {
            SwitchResult::To { generation } => generation,
            SwitchResult::Lost { to } => return Err(Error::Lost { to }),
        };
        // From here on the fleet has switched. Errors below are corrected when each node polls again.
        if let Err(error) = self.follower.converge().await {
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
            Error::Backend(error) => Error::NodesUnknown { name, digest, error },
            other => other,
        })
    }

    async fn check_requirements(&self, manifest: &Manifest) -> Result<(), Error> {
        let missing = self.fleet.repository.migrations_missing(&manifest.needs.migrations).await?;
        if !missing.is_empty() {
            return Err(Error::Migrations(missing));
        }
        // Checked after the migrations, because they create the roles.
        if let Some(role) = &manifest.grants.postgres
            && !self.fleet.repository.has_role(role).await?
        {
            return Err(Error::Role(role.clone()));
        }
        Ok(())
    }

    async fn unchanged(&self, action: Action, running: Running, began: Instant) -> Result<Outcome, Error> {
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
    ) -> Result<Outcome, Error> {
        outcome.nodes = self.node_outcomes(&outcome.name, outcome.generation, expected).await?;
        outcome.complete = outcome.nodes.iter().all(NodeOutcome::is_live);
        outcome.took_ms = elapsed_ms(began);
        Ok(outcome)
    }

    /// Waits until every node that is live now has reported about this generation of a handler, or the wait
    /// is over. `expected` is the release that they should run.
    pub(super) async fn node_outcomes(
        &self,
        name: &str,
        generation: i64,
        expected: Option<Digest>,
    ) -> Result<Vec<NodeOutcome>, Error> {
        let mut look = interval(limits::DEPLOY_CHECK_EVERY);
        let since = Instant::now();
        let until = since + limits::DEPLOY_WAIT;
        loop {
            look.tick().await;
            let answers = self.fleet.repository.answers(name, generation, since.elapsed()).await?;
            if answers.iter().all(|answer| answer.report.is_some()) || Instant::now() > until {
                return Ok(answers.into_iter().map(|answer| NodeOutcome::of(answer, expected)).collect());
            }
        }
    }

    /// Loads a release on this node, and then stores it where every node finds it.
    pub(super) async fn load_and_store(
        &self,
        file: &ReleaseFile,
        origin: Origin<'_>,
    ) -> Result<Arc<L::Release>, Error> {
        // Checked again in the switch. Here it saves a compilation, and names who set the value.
        self.check_live_settings(&file.manifest).await?;
        let missing = self.fleet.repository.secrets_missing(&file.manifest.grants.secrets).await?;
        if !missing.is_empty() {
            return Err(Error::SecretsMissing(missing));
        }
        let release = self.fleet.load(file).await?;
        self.fleet.loader.vet(&release).await?;
        self.fleet.repository.store(file.digest, &file.manifest, &file.bytes, origin.by, origin.note).await?;
        Ok(release)
    }
}

/// The origin of a change: who makes it, why, and when the request began.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub(super) by: &'a str,
    /// For the history.
    pub(super) note: Option<&'a str>,
    /// The figures by which the host withdraws a canary automatically.
    pub(super) verdict: Option<&'a Verdict>,
    pub(super) began: Instant,
}

impl<'a> Origin<'a> {
    pub fn new(by: &'a str, note: Option<&'a str>) -> Self {
        Self { by, note, verdict: None, began: Instant::now() }
    }

    pub(super) fn change(
        self,
        action: Action,
        to: Running,
        digest: Digest,
        previous: Option<Digest>,
        percent: Option<u8>,
    ) -> Change<'a> {
        let Self { by, note, verdict, .. } = self;
        Change { action, to, digest, previous, percent, by, note, verdict }
    }
}

impl<'a> Change<'a> {
    /// A change of the running release. It ends the canary and the shadow, because these were compared with
    /// the old release.
    pub(super) fn of_running(
        action: Action,
        name: &str,
        digest: Digest,
        before: &HandlerState,
        origin: Origin<'a>,
    ) -> Self {
        let seen = before.generation();
        let to = Running {
            name: name.to_owned(),
            digest,
            generation: seen,
            canary: None,
            selection: Selection::default(),
            shadow: None,
        };
        let previous = before.running().map(|running| running.digest);
        origin.change(action, to, digest, previous, None)
    }
}

pub(super) fn elapsed_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn parsed(bytes: Bytes) -> Result<ReleaseFile, Error> {
    let parsed = tokio::task::spawn_blocking(|| ReleaseFile::parse(bytes)).await;
    Ok(parsed.map_err(|_| Error::Host("the task that parses the release file panicked".into()))??)
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
