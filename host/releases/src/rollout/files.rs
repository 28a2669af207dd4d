//! The files of `handlers_dir`: each is deployed once, by the first node that finds it. One that could not be deployed is
//! tried again, with a growing wait, until the fleet has run it or an operator has decided otherwise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::super::outcome::{Outcome, Refused};
use super::super::repository::{FOUND_BY, Settled};
use super::super::signature::Signature;
use super::{Load, Rollout, parsed};
use crate::error::Blame;
use crate::ids::Digest;
use crate::limits;
use crate::shutdown::ShutdownGuard;

/// Files that are to run and do not.
#[derive(Default)]
pub(super) struct Files {
    waiting: Mutex<BTreeMap<PathBuf, Waiting>>,
    /// A file has begun to wait.
    added: Notify,
}

/// One file that could not be deployed.
struct Waiting {
    /// None where the file could not be read, or its manifest.
    release: Option<(Digest, String)>,
    reason: String,
    /// Whether it should run. A file without a signature that `release_keys` ask for should not, nor one whose handler
    /// is on trial.
    should_run: bool,
    again_at: Instant,
    wait: Duration,
}

impl Files {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Waiting>> {
        // Each change of it is one step; a panic elsewhere cannot have left it half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, path: &Path) {
        self.waiting().remove(path);
    }

    fn wait(&self, path: &Path, release: Option<(Digest, String)>, refused: &Refused) {
        let mut waiting = self.waiting();
        let longest = match refused {
            // The same content will be refused again, and to compile it is dear.
            Refused::Release(refusal) if refusal.blame == Blame::Guest => {
                limits::FILE_REFUSED_AGAIN_AFTER_MAX
            }
            _ => limits::LOAD_AGAIN_AFTER_MAX,
        };
        let should_run = !matches!(refused, Refused::Unsigned(_) | Refused::Settled(_));
        let before = waiting.get(path).map(|waiting| waiting.wait * 2);
        let wait = before.unwrap_or(limits::LOAD_AGAIN_AFTER_MIN).min(longest);
        let again_at = Instant::now() + wait;
        let reason = refused.to_string();
        waiting.insert(path.to_owned(), Waiting { release, reason, should_run, again_at, wait });
        drop(waiting);
        self.added.notify_one();
    }

    fn next(&self) -> Option<Instant> {
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

impl<L: Load> Rollout<L> {
    /// Deploys the files of a directory that are to be deployed; the others are left out of the answer. What fails is
    /// logged here and tried again by `follow`. An error: the directory cannot be read.
    pub async fn deploy_found(
        &self,
        directory: &Path,
    ) -> std::io::Result<Vec<(PathBuf, Result<Outcome, Refused>)>> {
        let mut files: Vec<_> = std::fs::read_dir(directory)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
            .collect();
        files.sort();
        let deploys = futures_util::stream::iter(files).map(|path| async move {
            let deployed = self.deploy_if_wanted(&path).await;
            (path, deployed)
        });
        let done = deploys.buffered(limits::COMPILES_AT_ONCE).collect::<Vec<_>>().await;
        Ok(done.into_iter().filter_map(|(path, result)| Some((path, result.transpose()?))).collect())
    }

    /// The files that should run and do not, each with the reason.
    pub fn files_missing(&self) -> Vec<String> {
        let waiting = self.files.waiting();
        let missing = waiting.iter().filter(|(_, waiting)| waiting.should_run);
        missing
            .map(|(path, waiting)| {
                let file = path.file_name().unwrap_or(path.as_os_str()).display();
                format!("{file} is not deployed: {}", waiting.reason)
            })
            .collect()
    }

    /// Until the process ends.
    pub(super) async fn retry_files(&self, mut guard: ShutdownGuard) {
        let mut changes = self.registry.changes();
        loop {
            let next = self.files.next();
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    for path in self.files.due(Instant::now()) {
                        let _ = self.deploy_if_wanted(&path).await;
                    }
                }
                () = self.files.added.notified() => {}
                // What an operator did may have settled the question.
                Ok(()) = changes.changed() => self.settle_files().await,
                () = guard.begun() => return,
            }
        }
    }

    async fn settle_files(&self) {
        for (path, digest, name) in self.files.known() {
            // Without an answer the file goes on waiting for its turn.
            if let Ok(Some(settled)) = self.repository.settled(digest, &name).await
                && settled != Settled::OnTrial
            {
                self.files.settle(&path);
            }
        }
    }

    /// None: it is not to be deployed.
    async fn deploy_if_wanted(&self, path: &Path) -> Result<Option<Outcome>, Refused> {
        let mut release = None;
        let deployed = self.try_file(path, &mut release).await;
        let file = path.display();
        match deployed {
            Ok(outcome) => {
                self.files.settle(path);
                info!(%file, handler.release = %outcome.digest.short(), "deployed {}", outcome.name);
                Ok(Some(outcome))
            }
            Err(Refused::Settled(settled)) if settled != Settled::OnTrial => {
                self.files.settle(path);
                Ok(None)
            }
            Err(refused) => {
                let cause = std::error::Error::source(&refused).map(ToString::to_string);
                error!(%file, cause, "not deployed, tried again later: {refused}");
                self.files.wait(path, release, &refused);
                Err(refused)
            }
        }
    }

    /// `release` is set once the manifest is read.
    async fn try_file(
        &self,
        path: &Path,
        release: &mut Option<(Digest, String)>,
    ) -> Result<Outcome, Refused> {
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|error| Refused::Host(format!("the file cannot be read: {error}")))?;
        let file = parsed(Bytes::from(bytes)).await?;
        let name = file.manifest.name.clone();
        *release = Some((file.digest, name.clone()));
        self.take_signatures(path, file.digest).await?;
        self.repository.found(file.digest, &name).await?;
        loop {
            if let Some(settled) = self.repository.settled(file.digest, &name).await? {
                return Err(Refused::Settled(settled));
            }
            match self.deploy_file(&file, FOUND_BY, Some("found at start"), Instant::now()).await {
                // Another node was first, with the same file or another one: the history tells.
                Err(Refused::Lost { .. }) => {}
                done => return done,
            }
        }
    }

    /// The signatures that lie beside a file.
    async fn take_signatures(&self, file: &Path, digest: Digest) -> Result<(), Refused> {
        let mut beside = file.as_os_str().to_owned();
        beside.push(".sig");
        let Ok(text) = tokio::fs::read_to_string(&beside).await else { return Ok(()) };
        let mut signatures = Signature::parse_all(&text).unwrap_or_else(|| {
            warn!(file = %beside.display(), "the file holds something else than signatures, it is ignored");
            Vec::new()
        });
        signatures.retain(|signature| signature.is_of(digest));
        Ok(self.repository.keep_signatures(digest, &signatures, FOUND_BY).await?)
    }
}
