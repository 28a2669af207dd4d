//! Releases beside the running one: a canary answers some of the users, a shadow is shown some of the calls. Both end when
//! what runs changes, for it is that which they are compared with.

use bytes::Bytes;
use tokio::time::Instant;

use super::super::outcome::{Outcome, Refused};
use super::super::registry::Declares;
use super::super::repository::{Action, Change, Running, Share, Standing, Verdict};
use super::{Load, Rollout, parsed};

/// How a release stands beside what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// It answers so many of a hundred users.
    Canary(u8),
    /// It is shown so many of a hundred calls.
    Shadow(u8),
}

impl<L: Load> Rollout<L> {
    /// Checked like a deploy. The same release again changes its share; another takes its place.
    pub async fn try_out(
        &self,
        bytes: Bytes,
        how: Beside,
        by: &str,
        note: Option<&str>,
    ) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let file = parsed(bytes).await?;
        let name = file.manifest.name.as_str();
        let before = self.wanted(name).await?.ok_or_else(|| Refused::NothingRuns(name.to_owned()))?;
        if before.digest == file.digest {
            return Err(Refused::RunsAlready(name.to_owned()));
        }
        self.keep(&file, by, note).await?;
        let (action, percent) = match how {
            Beside::Canary(percent) => (Action::Canary, percent),
            Beside::Shadow(percent) => (Action::Shadow, percent),
        };
        let previous = Some(before.digest);
        let share = Some(Share { digest: file.digest, percent });
        let to = match how {
            Beside::Canary(_) => Running { canary: share, ..before },
            Beside::Shadow(_) => Running { shadow: share, ..before },
        };
        let digest = file.digest;
        let change = Change { action, to, digest, previous, percent: Some(percent), by, note, verdict: None };
        self.switch(&change, Some(&file.manifest), began).await
    }

    /// The canary runs for everybody. `release` says which one the asker means.
    pub async fn promote(
        &self,
        name: &str,
        release: Option<&str>,
        by: &str,
        note: Option<&str>,
    ) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let before = self.wanted(name).await?.ok_or_else(|| Refused::UnknownHandler(name.to_owned()))?;
        let canary = before.canary.ok_or_else(|| Refused::NoCanary(name.to_owned()))?;
        if let Some(hex) = release
            && self.find(Some(name), hex).await? != canary.digest
        {
            return Err(Refused::OtherCanary(canary.digest));
        }
        let release = self.known(canary.digest).await?;
        let before = Standing::Runs(before);
        let change = Change::of_running(Action::Promote, name, canary.digest, &before, by, note);
        self.switch(&change, Some(release.manifest()), began).await
    }

    /// The shadow is shown nothing any more. What it saw stays to be read.
    pub async fn unshadow(&self, name: &str, by: &str, note: Option<&str>) -> Result<Outcome, Refused> {
        let began = Instant::now();
        let before = self.wanted(name).await?.ok_or_else(|| Refused::UnknownHandler(name.to_owned()))?;
        let shadow = before.shadow.ok_or_else(|| Refused::NoShadow(name.to_owned()))?;
        self.end_trial(Action::Unshadow, before, shadow, by, note, None, began).await
    }

    /// Everybody is the running release's again.
    pub(super) async fn withdraw(
        &self,
        before: Running,
        by: &str,
        note: Option<&str>,
        verdict: Option<&Verdict>,
        began: Instant,
    ) -> Result<Outcome, Refused> {
        let canary = before.canary.ok_or_else(|| Refused::NoCanary(before.name.clone()))?;
        self.end_trial(Action::Withdraw, before, canary, by, note, verdict, began).await
    }

    #[allow(clippy::too_many_arguments)] // what a change consists of
    async fn end_trial(
        &self,
        action: Action,
        before: Running,
        trial: Share,
        by: &str,
        note: Option<&str>,
        verdict: Option<&Verdict>,
        began: Instant,
    ) -> Result<Outcome, Refused> {
        let running = self.known(before.digest).await?;
        let digest = before.digest;
        let to = match action {
            Action::Unshadow => Running { shadow: None, ..before },
            _ => Running { canary: None, ..before },
        };
        let previous = Some(trial.digest);
        let change = Change { action, to, digest, previous, percent: None, by, note, verdict };
        self.switch(&change, Some(running.manifest()), began).await
    }
}

#[cfg(test)]
mod tests;
