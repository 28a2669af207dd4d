//! How a fleet moves from one release to the next:
//!
//! 1. A deploy loads the file on this node.
//! 2. It compares the file's bindings with those of the other handlers, inside the switch.
//! 3. It waits until every live node reports that it runs the release.
//!
//! Each node follows by itself: its poll reads the fleet's generation in Postgres, and the node loads new
//! releases and swaps its routing table.
//!
//! When anything fails here (a file does not load, a node is silent, Postgres is not reachable), the releases
//! that run keep running.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::outcome::Outcome;
use super::registry::Registry;
use super::repository::{Repository, RepositoryError};
use super::signature::Trust;
use crate::Error;
use switchboard_core::config::Config;
use switchboard_core::ids::NodeId;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_postgres::poll::Poll;
use switchboard_runtime::{Load, Runtime};

mod candidates;
mod deployer;
mod files;
mod fleet;
mod follow;
mod guard;
mod secrets;
mod settings;
mod shadows;

pub use candidates::Deployment;
use deployer::Deployer;
pub use deployer::Origin;
use files::FileDeployer;
use fleet::Fleet;
use follow::Follower;
use guard::CanaryGuard;
pub use secrets::opened_secrets;
use shadows::{ShadowRunner, Shadows};

/// This node's part in rollouts: one field for each responsibility.
pub struct Rollout<L: Load = Arc<Runtime>> {
    pub node: NodeId,
    pub deployer: Arc<Deployer<L>>,
    fleet: Arc<Fleet<L>>,
    follower: Arc<Follower<L>>,
    files: FileDeployer<L>,
    canary_guard: CanaryGuard<L>,
    shadow_runner: ShadowRunner<L>,
}

impl<L: Load> Rollout<L> {
    /// `poll` is the poll of this node, which `follow` runs.
    pub fn new(
        poll: Poll,
        config: Arc<Config>,
        loader: L,
        registry: Arc<Registry<L::Release>>,
        repository: Repository,
        trust: Trust,
        connections: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let node = poll.node();
        let fleet = Arc::new(Fleet::new(node, config, loader, registry, repository, trust));
        let shadows = Arc::new(Shadows::new());
        let follower = Arc::new(Follower::new(fleet.clone(), shadows.clone(), poll, connections));
        let deployer = Arc::new(Deployer::new(fleet.clone(), follower.clone()));
        Self {
            node,
            files: FileDeployer::new(deployer.clone()),
            canary_guard: CanaryGuard::new(deployer.clone(), &follower),
            shadow_runner: ShadowRunner::new(fleet.clone(), shadows),
            deployer,
            fleet,
            follower,
        }
    }

    pub fn repository(&self) -> &Repository {
        &self.fleet.repository
    }

    pub fn registry(&self) -> &Arc<Registry<L::Release>> {
        &self.fleet.registry
    }

    pub fn demands_signatures(&self) -> bool {
        self.fleet.demands_signatures()
    }

    /// Joins the fleet: sends a heartbeat, and takes over what runs. A release that does not load here is
    /// reported and is not an error, because the other handlers can serve.
    pub async fn join(&self) -> Result<(), RepositoryError> {
        self.follower.join().await
    }

    /// Runs the node's background tasks until the shutdown begins.
    pub async fn follow(&self, guard: ShutdownGuard) {
        tokio::join!(
            self.follower.run(guard.clone()),
            self.canary_guard.run(guard.clone()),
            self.shadow_runner.run(guard.clone()),
            self.files.run(guard),
        );
    }

    /// Returns one sentence for each handler whose release does not run on this node. A missing canary or
    /// shadow is not listed, because the running release answers everybody.
    pub fn releases_missing(&self) -> Vec<String> {
        self.follower.releases_missing()
    }

    /// Returns the files of `handlers_dir` that should run and do not, each with the reason.
    pub fn files_missing(&self) -> Vec<String> {
        self.files.missing()
    }

    /// Deploys the files of a directory that should be deployed. The result leaves out the others. A failure
    /// is logged and tried again by `follow`. The error means that the directory cannot be read.
    pub async fn deploy_found(&self, directory: &Path) -> io::Result<Vec<(PathBuf, Result<Outcome, Error>)>> {
        self.files.deploy_found(directory).await
    }

    /// Returns the metrics of the loaded releases' calls in the Prometheus text format.
    pub fn meters(&self) -> String {
        self.fleet.meters()
    }
}

#[cfg(test)]
mod tests;
