//! Triggers: what starts calls into handlers. A trigger finds the handler that a manifest binds, pins the
//! release for this caller, and calls it. `gateway` knows no WebAssembly and `runtime` no HTTP; the triggers
//! join the two.

mod connection;
mod epochs;
mod event;
mod frame;
mod http;
mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

pub use frame::FrameIn;
pub use http::{HttpIn, Reach};

use switchboard_core::ids::NodeId;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_fanout::{Hub, Wakes};
use switchboard_postgres::Postgres;
use switchboard_postgres::epochs::Epoch;
use switchboard_releases::registry::Registry;
use switchboard_runtime::{LoadedRelease, Runtime};
use switchboard_telemetry::Tracer;

pub struct Triggers {
    node: NodeId,
    registry: Arc<Registry<LoadedRelease>>,
    runtime: Arc<Runtime>,
    hub: Hub,
    postgres: Postgres,
    wakes: Wakes,
    tracer: Tracer,
    /// The position epoch, once it is known. It changes after a failover or restore that lost commits.
    epochs: watch::Sender<Option<Epoch>>,
    touches: connection::Touches,
    admission: connection::Admission,
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
        tracer: Tracer,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            registry,
            runtime,
            hub,
            postgres,
            wakes,
            tracer,
            epochs: watch::Sender::new(None),
            touches: connection::Touches::default(),
            admission: connection::Admission::default(),
            progress: event::Progress::default(),
        })
    }

    /// Returns the Postgres roles of the releases that run here, each once and without its prefix.
    pub fn postgres_roles(&self) -> Vec<String> {
        let bindings = self.registry.current();
        let granted = bindings.handlers().filter_map(|entry| entry.running.manifest.grants.postgres.clone());
        granted.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns one sentence for each consumer of this node that does not make progress, for readiness.
    pub fn consumers_standing(&self) -> Vec<String> {
        self.progress.standing(tokio::time::Instant::now())
    }

    /// Starts the tasks that run without a request: events, schedules, reports of touched connections, and
    /// the filling of gaps. Each task holds a clone of `guard`, and ends when the shutdown begins.
    pub fn start(self: &Arc<Self>, guard: &ShutdownGuard) {
        tokio::spawn(connection::report_touches(self.clone(), guard.clone()));
        tokio::spawn(connection::fill_gaps(self.clone(), guard.clone()));
        tokio::spawn(epochs::run(self.clone(), guard.clone()));
        tokio::spawn(schedule::run(self.clone(), guard.clone()));
        tokio::spawn(event::run(self.clone(), guard.clone()));
    }
}
