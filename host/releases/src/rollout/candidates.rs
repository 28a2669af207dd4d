//! Canaries and shadows. A canary answers some of the users; a shadow gets a copy of some of the calls. Both
//! end when the running release changes, because they are compared with it.

use bytes::Bytes;

use super::super::outcome::Outcome;
use super::super::repository::{Action, Change, HandlerState, Running, TrafficShare};
use super::deployer::{Deployer, Origin, parsed};
use crate::Error;
use crate::selection::Selection;
use switchboard_runtime::{HasManifest, Load};

/// How a release is deployed beside the running one, with its percentage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// The release answers this percentage of the users.
    Canary(u8),
    /// The release answers the selected callers, and this percentage of the other users, which may be 0.
    SelectiveCanary(Selection, u8),
    /// The release gets a copy of this percentage of the calls.
    Shadow(u8),
}

impl<L: Load> Deployer<L> {
    /// Makes a release a canary or a shadow, after the checks of a deploy. Deploying the same release again
    /// changes its percentage and its selection; another release replaces it.
    pub async fn deploy_beside(
        &self,
        bytes: Bytes,
        how: Deployment,
        origin: Origin<'_>,
    ) -> Result<Outcome, Error> {
        let file = parsed(bytes).await?;
        let name = file.manifest.name.as_str();
        let before = self.fleet.running(name).await?.ok_or_else(|| Error::NothingRuns(name.to_owned()))?;
        if before.digest == file.digest {
            return Err(Error::RunsAlready(name.to_owned()));
        }
        self.load_and_store(&file, origin).await?;
        let previous = Some(before.digest);
        let share = |percent| Some(TrafficShare { digest: file.digest, percent });
        let (action, percent, to) = match how {
            Deployment::Canary(percent) => {
                let selection = Selection::default();
                (Action::Canary, percent, Running { canary: share(percent), selection, ..before })
            }
            Deployment::SelectiveCanary(selection, percent) => {
                (Action::Canary, percent, Running { canary: share(percent), selection, ..before })
            }
            Deployment::Shadow(percent) => {
                (Action::Shadow, percent, Running { shadow: share(percent), ..before })
            }
        };
        let change = origin.change(action, to, file.digest, previous, Some(percent));
        self.switch(&change, Some(&file.manifest), origin.began).await
    }

    /// Makes the canary the running release. `release` says which release the caller means.
    pub async fn promote(
        &self,
        name: &str,
        release: Option<&str>,
        origin: Origin<'_>,
    ) -> Result<Outcome, Error> {
        let before = self.fleet.running(name).await?.ok_or_else(|| Error::UnknownHandler(name.to_owned()))?;
        let canary = before.canary.ok_or_else(|| Error::NoCanary(name.to_owned()))?;
        if let Some(hex) = release
            && self.find(Some(name), hex).await? != canary.digest
        {
            return Err(Error::OtherCanary(canary.digest));
        }
        let release = self.fleet.load_stored(canary.digest).await?;
        let before = HandlerState::Runs(before);
        let change = Change::of_running(Action::Promote, name, canary.digest, &before, origin);
        self.switch(&change, Some(release.manifest()), origin.began).await
    }

    /// Ends the shadow. Its results stay readable.
    pub async fn unshadow(&self, name: &str, origin: Origin<'_>) -> Result<Outcome, Error> {
        let before = self.fleet.running(name).await?.ok_or_else(|| Error::UnknownHandler(name.to_owned()))?;
        let shadow = before.shadow.ok_or_else(|| Error::NoShadow(name.to_owned()))?;
        self.end_candidate(Action::Unshadow, before, shadow, origin).await
    }

    /// Ends the canary: the running release answers everybody again.
    pub(super) async fn withdraw(&self, before: Running, origin: Origin<'_>) -> Result<Outcome, Error> {
        let canary = before.canary.ok_or_else(|| Error::NoCanary(before.name.clone()))?;
        self.end_candidate(Action::Withdraw, before, canary, origin).await
    }

    async fn end_candidate(
        &self,
        action: Action,
        before: Running,
        ended: TrafficShare,
        origin: Origin<'_>,
    ) -> Result<Outcome, Error> {
        let digest = before.digest;
        let to = match action {
            Action::Unshadow => Running { shadow: None, ..before },
            _ => Running { canary: None, selection: Selection::default(), ..before },
        };
        let change = origin.change(action, to, digest, Some(ended.digest), None);
        // No release begins to run, so nothing is checked: a secret that was removed or does not open must
        // not keep a bad candidate alive.
        self.switch(&change, None, origin.began).await
    }
}

#[cfg(test)]
mod tests;
