//! The state of all triggers: the registry, the runtime, and the state of this node's tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use uuid::Uuid;

use super::admission::Admission;
use super::connection::{ClosedBatches, OpenedBatches};
use super::event::progress::Progress;
use super::touches::Touches;
use switchboard_core::ids::NodeId;
use switchboard_core::manifest::EventBinding;
use switchboard_fanout::{Hub, Wakes};
use switchboard_postgres::Postgres;
use switchboard_postgres::epochs::Epoch;
use switchboard_postgres::poll::Poll;
use switchboard_releases::registry::Registry;
use switchboard_runtime::{LoadedRelease, Runtime};
use switchboard_telemetry::Tracer;

pub struct Triggers {
    pub(super) node: NodeId,
    pub(super) registry: Arc<Registry<LoadedRelease>>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) hub: Hub,
    pub(super) postgres: Postgres,
    pub(super) poll: Poll,
    pub(super) wakes: Wakes,
    pub(super) tracer: Tracer,
    /// The position epoch, once it is known. It changes after a failover or restore that lost commits.
    pub(super) epochs: watch::Sender<Option<Epoch>>,
    pub(super) touches: Touches,
    pub(super) admission: Admission,
    pub(super) opened_batches: OpenedBatches,
    pub(super) closed_batches: ClosedBatches,
    pub(super) progress: Progress,
}

impl Triggers {
    pub fn new(
        poll: Poll,
        registry: Arc<Registry<LoadedRelease>>,
        runtime: Arc<Runtime>,
        hub: Hub,
        postgres: Postgres,
        wakes: Wakes,
        tracer: Tracer,
    ) -> Arc<Self> {
        Arc::new(Self {
            node: poll.node(),
            registry,
            runtime,
            hub,
            postgres,
            poll,
            wakes,
            tracer,
            epochs: watch::Sender::new(None),
            touches: Touches::default(),
            admission: Admission::default(),
            opened_batches: OpenedBatches::default(),
            closed_batches: ClosedBatches::default(),
            progress: Progress::default(),
        })
    }

    /// Returns the Postgres roles of the releases that run here, each once and without its prefix.
    pub fn postgres_roles(&self) -> Vec<String> {
        let bindings = self.registry.current();
        let granted = bindings.handlers().filter_map(|entry| entry.running.manifest.grants.postgres.clone());
        granted.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns the release of a consumer, pinned for one batch, and its binding. A canary gets its traffic
    /// share of the batches. A batch that the canary fails may go to the other release the next time.
    pub(super) fn consumer(&self, name: &str) -> Option<(Arc<LoadedRelease>, EventBinding)> {
        let bindings = self.registry.current();
        let consumer = bindings.consumers().iter().find(|consumer| consumer.entry.name == name)?;
        let release = consumer.entry.pick(&Uuid::now_v7().to_string()).clone();
        Some((release, consumer.binding.clone()))
    }

    /// Returns one sentence for each consumer of this node that does not make progress, for readiness.
    pub fn consumers_standing(&self) -> Vec<String> {
        self.progress.standing(tokio::time::Instant::now())
    }
}
