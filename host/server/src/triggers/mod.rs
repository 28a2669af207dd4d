//! Where the outside meets the handlers: each trigger finds the handler that a manifest binds, pins the release that
//! serves this caller, and calls it. `gateway` knows no WebAssembly and `runtime` no HTTP; both end here.

mod connection;
mod epochs;
mod event;
mod frame;
mod http;
mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::debug;

pub use http::{HttpIn, Reach};

use switchboard_contract::types::Problem;
use switchboard_core::ids::NodeId;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_fanout::{Hub, Wakes};
use switchboard_postgres::Postgres;
use switchboard_postgres::epochs::Epoch;
use switchboard_releases::registry::Registry;
use switchboard_runtime::{Failure, LoadedRelease, Runtime};

pub struct Triggers {
    node: NodeId,
    registry: Arc<Registry<LoadedRelease>>,
    runtime: Arc<Runtime>,
    hub: Hub,
    postgres: Postgres,
    wakes: Wakes,
    /// The position epoch, once it is known; changes when history went back.
    epochs: watch::Sender<Option<Epoch>>,
    touches: connection::Touches,
    turns: connection::Turns,
    progress: event::Progress,
}

impl Triggers {
    pub fn new(
        node: NodeId,
        registry: Arc<Registry<LoadedRelease>>,
        runtime: Arc<Runtime>,
        hub: Hub,
        postgres: Postgres,
        wakes: Wakes,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            registry,
            runtime,
            hub,
            postgres,
            wakes,
            epochs: watch::Sender::new(None),
            touches: connection::Touches::default(),
            turns: connection::Turns::default(),
            progress: event::Progress::default(),
        })
    }

    /// The Postgres roles of the releases that run here, each once, without their prefix.
    pub fn postgres_roles(&self) -> Vec<String> {
        let bindings = self.registry.current();
        let granted = bindings.handlers().filter_map(|entry| entry.running.manifest.grants.postgres.clone());
        granted.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// One sentence for each consumer of this node that does not make progress; for readiness.
    pub fn consumers_standing(&self) -> Vec<String> {
        self.progress.standing(tokio::time::Instant::now())
    }

    /// Starts what runs by itself: events, schedules, the report of touched connections, the filling of gaps. Each task
    /// holds a clone of `guard` and ends when it says so.
    pub fn start(self: &Arc<Self>, guard: &ShutdownGuard) {
        tokio::spawn(connection::report_touches(self.clone(), guard.clone()));
        tokio::spawn(connection::fill_gaps(self.clone(), guard.clone()));
        tokio::spawn(epochs::run(self.clone(), guard.clone()));
        tokio::spawn(schedule::run(self.clone(), guard.clone()));
        tokio::spawn(event::run(self.clone(), guard.clone()));
    }
}

/// A call that ended without an answer: the asker gets its problem. The runtime has logged it, with all it knows of the
/// call, unless nothing ran; how often that happens is in the metrics, and a line for each would only add to the load.
fn told(release: &LoadedRelease, call: &str, failure: &Failure) -> Problem {
    debug!(
        handler.name = release.name(),
        handler.release = %release.digest.short(),
        call,
        blame = %failure.blame(),
        "call failed: {failure}",
    );
    failure.problem()
}
