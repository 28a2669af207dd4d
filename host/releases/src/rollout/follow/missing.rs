//! Lists what the fleet runs and this node does not, for `/readyz`. It loads nothing: the follower does.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::super::registry::RoutingTable;
use super::super::super::repository::Running;
use super::FollowState;
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_runtime::Observable;

/// The releases that the fleet runs and this node does not. Kept apart from `FollowState`, which stays locked
/// while a release is compiled.
#[derive(Default)]
pub(super) struct MissingReleases(Mutex<Option<BTreeMap<String, MissingRelease>>>);

struct MissingRelease {
    digest: Digest,
    /// True when the node runs the release, but with former inputs.
    runs: bool,
    since: Instant,
    /// None: the release is being loaded.
    error: Option<String>,
}

impl MissingReleases {
    /// Compares what the fleet should run with what runs here.
    pub(super) fn update<R>(&self, wanted: &[Running], current: &RoutingTable<R>, state: &FollowState)
    where
        R: Observable,
    {
        let mut missing = self.0.lock();
        let mut before = missing.take().unwrap_or_default();
        let absent = wanted.iter().filter_map(|running| {
            let failed = state.failed.get(&running.name);
            let failed = failed.filter(|failed| failed.generation == running.generation);
            let error = failed.map(|failed| failed.lack.why.clone());
            let has_former_inputs = failed.is_some_and(|failed| failed.lack.has_former_inputs);
            let entry = current.by_name(&running.name).filter(|entry| entry.digest == running.digest);
            let runs = match entry {
                Some(_) if error.is_none() => return None,
                // The failure is that of a candidate, and the running release has the present inputs.
                Some(entry) if entry.generation == running.generation && !has_former_inputs => return None,
                other => other.is_some(),
            };
            let known = before.remove(&running.name).filter(|release| release.digest == running.digest);
            let since = known.map_or_else(Instant::now, |release| release.since);
            Some((running.name.clone(), MissingRelease { digest: running.digest, runs, since, error }))
        });
        *missing = Some(absent.collect());
    }

    pub(super) fn messages(&self) -> Vec<String> {
        let missing = self.0.lock();
        let Some(missing) = &*missing else {
            return vec!["this node has not read the running releases from Postgres yet".to_owned()];
        };
        let messages = missing.iter().filter_map(|(name, wanted)| {
            let release = wanted.digest.short();
            match &wanted.error {
                Some(error) if wanted.runs => {
                    Some(format!("handler `{name}` keeps its former settings on this node: {error}"))
                }
                Some(error) => Some(format!("handler `{name}` does not run release {release} on this node: {error}")),
                None if wanted.since.elapsed() > limits::DEPLOY_WAIT => Some(format!(
                    "handler `{name}` does not run release {release} on this node yet: the release is still being loaded"
                )),
                None => None,
            }
        });
        messages.collect()
    }
}
