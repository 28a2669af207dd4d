//! One node: every part made, joined and started here, in the order of the layers, and ended in the reverse. No part is
//! made anywhere else, and nothing else is done here.

mod generations;
mod readiness;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::config::Config;
use crate::fanout::{Hub, Wakes};
use crate::gateway::auth::Auth;
use crate::gateway::{Gateway, Inside, Tickets, Tls};
use crate::http_server;
use crate::ids::NodeId;
use crate::limits;
use crate::postgres::{Postgres, fleet};
use crate::redis::{self, Redis};
use crate::releases::registry::Registry;
use crate::releases::repository::Repository;
use crate::releases::{Rollout, Trust};
use crate::revocations::Revocations;
use crate::runtime::{Backends, Runtime};
use crate::shutdown::{Shutdown, ShutdownGuard};
use crate::telemetry;
use crate::triggers::Triggers;

pub use generations::keyspace;

/// So long after the drain the whole end is over; what has not ended by then is cut off.
const END_WAITS: Duration = Duration::from_secs(10);
/// So long after the drain clients that are still there are cut off.
const CLIENTS_WAIT: Duration = Duration::from_secs(7);
/// What the node does by itself has so long to end where clients have used up all of the time before.
const WORK_WAITS_MIN: Duration = Duration::from_secs(2);
/// What operators are being answered when a drain has used up all of its time.
const OPERATORS_WAIT_MIN: Duration = Duration::from_secs(1);

/// What kept a node from starting: which part, and what it said.
#[derive(Debug)]
pub struct Error {
    part: &'static str,
    reason: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.reason)
    }
}

impl std::error::Error for Error {}

fn of<E: fmt::Display>(part: &'static str) -> impl FnOnce(E) -> Error {
    move |reason| Error { part, reason: reason.to_string() }
}

/// A node that is being served by tasks until `end` is called.
pub struct App {
    /// Where clients and operators really are: a port 0 in the settings is a free one here.
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    postgres: Postgres,
    hub: Hub,
    /// Ends first, over the drain: clients, and the calls that they wait for.
    clients: Shutdown,
    /// Ends when the last client is gone: until then events are delivered, schedules run, and the node follows the fleet.
    work: Shutdown,
    /// Ends last: the admin listener says that the node drains until it has.
    operators: Shutdown,
    drain: Duration,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn serve(config: Config) -> Result<(), Error> {
    let (mut term, mut int) = (
        signal(SignalKind::terminate()).map_err(of("signals"))?,
        signal(SignalKind::interrupt()).map_err(of("signals"))?,
    );
    let app = App::start(config).await?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    app.end().await;
    Ok(())
}

impl App {
    pub async fn start(mut config: Config) -> Result<Self, Error> {
        let began = Instant::now();
        let node = NodeId::random();
        let metrics = telemetry::start(&config, node).map_err(of("log"))?;
        for variable in &config.unknown_variables {
            warn!(variable, "the variable {variable} names no setting and has no effect");
        }

        // Bound first: a port in use is said before anything else is done, and what is announced is the real one.
        let clients = http_server::bind(config.listen).map_err(of("listen"))?;
        let operators = http_server::bind(config.admin_listen).map_err(of("admin_listen"))?;
        config.listen = clients.local_addr().map_err(of("listen"))?;
        config.admin_listen = operators.local_addr().map_err(of("admin_listen"))?;
        let config = Arc::new(config);

        let postgres = Postgres::connect(&config).await.map_err(of("postgres"))?;
        let fleet = fleet::identify(postgres.host()).await.map_err(of("postgres"))?;
        let keyspace = keyspace(&fleet, postgres.host().clone());
        let redis = Redis::connect(&config, keyspace).map_err(of("redis"))?;
        let wakes = Wakes::default();
        let hub = Hub::start(&redis, &redis::namespace(&fleet.name), node, wakes.clone());
        let revocations =
            Revocations::start(postgres.host().clone(), hub.clone()).await.map_err(of("revocations"))?;
        let auth = Arc::new(Auth::new(&config, revocations.known()).map_err(of("jwt"))?);
        // A provider of identities that is away does not keep a node from starting.
        let keys_again_after = auth.read_keys().await;

        let backends = Backends::new(postgres.clone(), redis.clone(), hub.clone(), wakes.clone());
        let runtime = Arc::new(Runtime::new(&config, backends).map_err(of("runtime"))?);
        let registry = Arc::new(Registry::new());
        let triggers =
            Triggers::new(node, registry.clone(), runtime.clone(), hub.clone(), postgres.clone(), wakes);
        let inside = Inside::new(triggers.clone(), hub.clone());
        let tls = Tls::of(&config).map_err(of("tls"))?;
        let gateway =
            Gateway::new(&config, node, auth.clone(), Tickets::new(redis.clone()), tls.clone(), inside);
        let rollout = Arc::new(Rollout::new(
            node,
            config.clone(),
            runtime,
            registry,
            Repository::new(postgres.host().clone()),
            Trust::of(&config).map_err(of("release_keys"))?,
            {
                let gateway = gateway.clone();
                move || gateway.connections() as u64
            },
        ));

        let (clients_end, work_end, operators_end) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
        let guard = work_end.guard();
        if rollout.demands_signatures() {
            info!("only releases that a key of `release_keys` vouches for are loaded");
        }
        rollout.join().await.map_err(of("releases"))?;
        spawn_follow(rollout.clone(), &guard);
        tokio::spawn(revocations.clone().follow(guard.clone()));
        tokio::spawn(auth.follow(keys_again_after, guard.clone()));
        if let Some(tls) = tls {
            tokio::spawn(tls.follow(guard.clone()));
        }
        if let Some(directory) = &config.handlers_dir {
            // What cannot be deployed now is logged, in `readyz`, and tried again by `follow`.
            rollout.deploy_found(directory).await.map_err(of("handlers_dir"))?;
        }
        triggers.start(&guard);
        tokio::spawn(metrics.clone().upkeep(guard.clone()));
        let host = postgres.host().clone();
        tokio::spawn(admin::gauges::keep(host, redis.clone(), hub.clone(), guard.clone()));
        tokio::spawn(gateway.clone().serve(clients, clients_end.guard()));
        let admin = Admin {
            token: config.admin_token.clone(),
            readiness: readiness::checks(&rollout, &triggers, &postgres, &redis, &hub, clients_end.watch()),
            rollout,
            postgres: postgres.host().clone(),
            hub: hub.clone(),
            redis,
            revocations,
            handlers: triggers,
            metrics,
            deploys: Semaphore::new(limits::DEPLOYS_AT_ONCE),
        };
        let settings = admin::Settings::of(&config);
        tokio::spawn(admin::serve(operators, Arc::new(admin), settings, operators_end.guard()));

        info!(
            listen = %config.listen,
            admin_listen = %config.admin_listen,
            took_ms = began.elapsed().as_millis() as u64,
            "serving",
        );
        Ok(Self {
            listen: config.listen,
            admin_listen: config.admin_listen,
            postgres,
            hub,
            clients: clients_end,
            work: work_end,
            operators: operators_end,
            drain: Duration::from_millis(config.drain_ms),
        })
    }

    /// 1. No new connections; the clients that are there are told to move, each at its own time; calls in flight finish.
    ///    What they send until they have gone is acknowledged, so it is also delivered: the rest of the node works on.
    /// 2. With the last client gone, consumers give back their shards, schedules end, and the node leaves the fleet.
    /// 3. Operators are served until all of that is done.
    pub async fn end(self) {
        info!("draining");
        let until = Instant::now() + self.drain + END_WAITS;
        let left = || until.saturating_duration_since(Instant::now());
        self.clients.begin();
        if !self.clients.finished(self.drain + CLIENTS_WAIT).await {
            warn!("a client or its call did not end in time and is cut off");
        }
        self.work.begin();
        if !self.work.finished(left().max(WORK_WAITS_MIN)).await {
            warn!("something did not end in time and is cut off");
        }
        self.operators.begin();
        if !self.operators.finished(left().max(OPERATORS_WAIT_MIN)).await {
            warn!("an operator was not answered in time and is cut off");
        }
        self.hub.stop().await;
        self.postgres.close().await;
        info!("ended");
    }
}

fn spawn_follow(rollout: Arc<Rollout>, guard: &ShutdownGuard) {
    let guard = guard.clone();
    tokio::spawn(async move { rollout.follow(guard).await });
}
