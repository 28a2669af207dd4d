//! Canaries and shadows. A canary answers some of the users; a shadow gets a copy of some of the calls. Both
//! end when the running release changes, because they are compared with it.

use bytes::Bytes;
use tokio::time::Instant;

use super::super::outcome::{Outcome, Refused};
use super::super::registry::HasManifest;
use super::super::repository::{Action, Change, HandlerState, Running, TrafficShare, Verdict};
use super::{Load, Rollout, parsed};

/// How a release is deployed beside the running one, with its percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// The release answers this percentage of the users.
    Canary(u8),
    /// The release gets a copy of this percentage of the calls.
    Shadow(u8),
}

impl<L: Load> Rollout<L> {
    /// Makes a release a canary or a shadow, after the checks of a deploy. Deploying the same release again
    /// changes its percentage; another release replaces it.
    pub async fn deploy_beside(
        &self,
        bytes: Bytes,
        how: Deployment,
        by: &str,
        note: Option<&str>,
    ) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let file = parsed(bytes).await?;
        let name = file.manifest.name.as_str();
        let before = self.running(name).await?.ok_or_else(|| Refused::NothingRuns(name.to_owned()))?;
        if before.digest == file.digest {
            return Err(Refused::RunsAlready(name.to_owned()));
        }
        self.load_and_store(&file, by, note).await?;
        let (action, percent) = match how {
            Deployment::Canary(percent) => (Action::Canary, percent),
            Deployment::Shadow(percent) => (Action::Shadow, percent),
        };
        let previous = Some(before.digest);
        let share = Some(TrafficShare { digest: file.digest, percent });
        let to = match how {
            Deployment::Canary(_) => Running { canary: share, ..before },
            Deployment::Shadow(_) => Running { shadow: share, ..before },
        };
        let digest = file.digest;
        let change = Change { action, to, digest, previous, percent: Some(percent), by, note, verdict: None };
        self.switch(&change, Some(&file.manifest), began).await
    }

    /// Makes the canary the running release. `release` says which release the caller means.
    pub async fn promote(
        &self,
        name: &str,
        release: Option<&str>,
        by: &str,
        note: Option<&str>,
    ) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let before = self.running(name).await?.ok_or_else(|| Refused::UnknownHandler(name.to_owned()))?;
        let canary = before.canary.ok_or_else(|| Refused::NoCanary(name.to_owned()))?;
        if let Some(hex) = release
            && self.find(Some(name), hex).await? != canary.digest
        {
            return Err(Refused::OtherCanary(canary.digest));
        }
        let release = self.load_stored(canary.digest).await?;
        let before = HandlerState::Runs(before);
        let change = Change::of_running(Action::Promote, name, canary.digest, &before, by, note);
        self.switch(&change, Some(release.manifest()), began).await
    }

    /// Ends the shadow. Its results stay readable.
    pub async fn unshadow(&self, name: &str, by: &str, note: Option<&str>) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let before = self.running(name).await?.ok_or_else(|| Refused::UnknownHandler(name.to_owned()))?;
        let shadow = before.shadow.ok_or_else(|| Refused::NoShadow(name.to_owned()))?;
        self.end_candidate(Action::Unshadow, before, shadow, by, note, None, began).await
    }

    /// Ends the canary: the running release answers everybody again.
    pub(super) async fn withdraw(
        &self,
        before: Running,
        by: &str,
        note: Option<&str>,
        verdict: Option<&Verdict>,
        began: Instant,
    ) -> Result<Outcome, Refused> {
        let canary = before.canary.ok_or_else(|| Refused::NoCanary(before.name.clone()))?;
        self.end_candidate(Action::Withdraw, before, canary, by, note, verdict, began).await
    }

    #[allow(clippy::too_many_arguments)] // what a change consists of
    async fn end_candidate(
        &self,
        action: Action,
        before: Running,
        ended: TrafficShare,
        by: &str,
        note: Option<&str>,
        verdict: Option<&Verdict>,
        began: Instant,
    ) -> Result<Outcome, Refused> {
        let running = self.load_stored(before.digest).await?;
        let digest = before.digest;
        let to = match action {
            Action::Unshadow => Running { shadow: None, ..before },
            _ => Running { canary: None, ..before },
        };
        let previous = Some(ended.digest);
        let change = Change { action, to, digest, previous, percent: None, by, note, verdict };
        self.switch(&change, Some(running.manifest()), began).await
    }
}

#[cfg(test)]
mod tests;
