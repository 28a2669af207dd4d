//! Deploys the files of `handlers_dir`. The first node that finds a file deploys it, once. A file that could
//! not be deployed is tried again with a growing wait, until the fleet has run it or an operator has decided
//! otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::super::outcome::Outcome;
use super::super::repository::{FOUND_BY, SkipReason};
use super::super::signature::Signature;
use super::deployer::{Deployer, Origin, parsed};
use crate::Error;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_core::{Blame, Blamed};
use switchboard_runtime::Load;

/// The files that should run and do not.
#[derive(Default)]
struct Files {
    waiting: Mutex<BTreeMap<PathBuf, Waiting>>,
    /// Notified when a file begins to wait.
    added: Notify,
}

/// One file that could not be deployed.
struct Waiting {
    /// None when the file, or its manifest, could not be read.
    release: Option<(Digest, String)>,
    reason: String,
    /// False for a file that should not run now: one that lacks a signature of `release_keys`, and one whose
    /// handler has a canary or a shadow.
    should_run: bool,
    again_at: Instant,
    wait: Duration,
}

impl Files {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Waiting>> {
        // Each change is one step, so a panic elsewhere cannot have left it half done.
        self.waiting.lock()
    }

    fn remove(&self, path: &Path) {
        self.waiting().remove(path);
    }

    fn wait(&self, path: &Path, release: Option<(Digest, String)>, refused: &Error) {
        let mut waiting = self.waiting();
        let longest = match refused {
            // The same content will be refused again, and compiling it is expensive.
            Error::Release(refusal) if refusal.blame() == Blame::Guest => {
                limits::FILE_REFUSED_AGAIN_AFTER_MAX
            }
            _ => limits::LOAD_AGAIN_AFTER_MAX,
        };
        let should_run = !matches!(refused, Error::Unsigned(_) | Error::Skipped(_));
        let before = waiting.get(path).map(|waiting| waiting.wait * 2);
        let wait = before.unwrap_or(limits::LOAD_AGAIN_AFTER_MIN).min(longest);
        let again_at = Instant::now() + wait;
        let reason = refused.to_string();
        waiting.insert(path.to_owned(), Waiting { release, reason, should_run, again_at, wait });
        drop(waiting);
        self.added.notify_one();
    }

    fn next_retry(&self) -> Option<Instant> {
        self.waiting().values().map(|waiting| waiting.again_at).min()
    }

    fn due(&self, now: Instant) -> Vec<PathBuf> {
        let waiting = self.waiting();
        waiting.iter().filter(|(_, waiting)| waiting.again_at <= now).map(|(path, _)| path.clone()).collect()
    }

    fn known(&self) -> Vec<(PathBuf, Digest, String)> {
        let waiting = self.waiting();
        let known = waiting.iter().filter_map(|(path, waiting)| {
            let (digest, name) = waiting.release.clone()?;
            Some((path.clone(), digest, name))
        });
        known.collect()
    }
}

pub(super) struct FileDeployer<L: Load> {
    deployer: Arc<Deployer<L>>,
    files: Files,
}

impl<L: Load> FileDeployer<L> {
    pub(crate) fn new(deployer: Arc<Deployer<L>>) -> Self {
        Self { deployer, files: Files::default() }
    }

    pub(crate) async fn deploy_found(
        &self,
        directory: &Path,
    ) -> std::io::Result<Vec<(PathBuf, Result<Outcome, Error>)>> {
        let mut files: Vec<_> = std::fs::read_dir(directory)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
            .collect();
        files.sort();
        let deploys = futures_util::stream::iter(files).map(|path| async move {
            let deployed = self.deploy_unless_skipped(&path).await;
            (path, deployed)
        });
        let done = deploys.buffered(limits::DEPLOYS_PREPARED_AT_ONCE_MAX).collect::<Vec<_>>().await;
        Ok(done.into_iter().filter_map(|(path, result)| Some((path, result.transpose()?))).collect())
    }

    pub(crate) fn missing(&self) -> Vec<String> {
        let waiting = self.files.waiting();
        let missing = waiting.iter().filter(|(_, waiting)| waiting.should_run);
        missing
            .map(|(path, waiting)| {
                let file = path.file_name().unwrap_or(path.as_os_str()).display();
                format!("{file} is not deployed: {}", waiting.reason)
            })
            .collect()
    }

    /// Tries waiting files again, until the shutdown begins.
    pub(crate) async fn run(&self, mut guard: ShutdownGuard) {
        let mut changes = self.deployer.fleet.registry.changes();
        loop {
            let next = self.files.next_retry();
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    for path in self.files.due(Instant::now()) {
                        let _ = self.deploy_unless_skipped(&path).await;
                    }
                }
                () = self.files.added.notified() => {}
                // An operator's change may mean that a file need not be deployed any more.
                Ok(()) = changes.changed() => self.drop_skipped().await,
                () = guard.begun() => return,
            }
        }
    }

    async fn drop_skipped(&self) {
        for (path, digest, name) in self.files.known() {
            // Without an answer the file keeps waiting.
            if let Ok(Some(reason)) = self.deployer.fleet.repository.skip_reason(digest, &name).await
                && reason != SkipReason::HasCandidate
            {
                self.files.remove(&path);
            }
        }
    }

    /// Deploys a file. None when it should not be deployed.
    async fn deploy_unless_skipped(&self, path: &Path) -> Result<Option<Outcome>, Error> {
        let mut release = None;
        let deployed = self.try_file(path, &mut release).await;
        let file = path.display();
        match deployed {
            Ok(outcome) => {
                self.files.remove(path);
                info!(%file, handler.release = %outcome.digest.short(), "deployed {}", outcome.name);
                Ok(Some(outcome))
            }
            Err(Error::Skipped(reason)) if reason != SkipReason::HasCandidate => {
                self.files.remove(path);
                Ok(None)
            }
            Err(refused) => {
                let cause = std::error::Error::source(&refused).map(ToString::to_string);
                error!(%file, cause, "the node did not deploy the file; it tries again later: {refused}");
                self.files.wait(path, release, &refused);
                Err(refused)
            }
        }
    }

    /// `release` is set after the manifest was read.
    async fn try_file(&self, path: &Path, release: &mut Option<(Digest, String)>) -> Result<Outcome, Error> {
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|error| Error::Host(format!("the file cannot be read: {error}")))?;
        let file = parsed(Bytes::from(bytes)).await?;
        let name = file.manifest.name.clone();
        *release = Some((file.digest, name.clone()));
        self.store_signatures(path, file.digest).await?;
        self.deployer.fleet.repository.found(file.digest, &name).await?;
        loop {
            if let Some(reason) = self.deployer.fleet.repository.skip_reason(file.digest, &name).await? {
                return Err(Error::Skipped(reason));
            }
            match self.deployer.deploy_file(&file, Origin::new(FOUND_BY, Some("found at start"))).await {
                // Another node was first, with the same file or another one. The history shows which.
                Err(Error::Lost { .. }) => {}
                done => return done,
            }
        }
    }

    /// Stores the signatures in the file's `.sig` file.
    async fn store_signatures(&self, file: &Path, digest: Digest) -> Result<(), Error> {
        let mut beside = file.as_os_str().to_owned();
        beside.push(".sig");
        let Ok(text) = tokio::fs::read_to_string(&beside).await else { return Ok(()) };
        let mut signatures = Signature::parse_all(&text).unwrap_or_else(|| {
            warn!(file = %beside.display(), "the file does not hold signatures and is ignored");
            Vec::new()
        });
        signatures.retain(|signature| signature.is_of(digest));
        Ok(self.deployer.fleet.repository.keep_signatures(digest, &signatures, FOUND_BY).await?)
    }
}
