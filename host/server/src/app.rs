//! One node. Every part is created, connected and started here, in the order of the layers, and stopped in
//! the reverse order. This module does nothing else, and no part is created elsewhere.

mod generations;
mod readiness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::error::{Error, of, of_setting, of_system};
use crate::gateway::auth::Auth;
use crate::gateway::{Gateway, Tickets, Tls};
use crate::revocations::Revocations;
use crate::triggers::Triggers;
use switchboard_core::config::Config;
use switchboard_core::ids::NodeId;
use switchboard_core::limits;
use switchboard_core::shutdown::{Shutdown, ShutdownGuard};
use switchboard_fanout::{Hub, Wakes};
use switchboard_http::http_server;
use switchboard_http::outbound::Outbound;
use switchboard_postgres::Postgres;
use switchboard_redis::{self as redis, Redis};
use switchboard_releases::registry::Registry;
use switchboard_releases::repository::Repository;
use switchboard_releases::{Rollout, Trust};
use switchboard_runtime::{Backends, Runtime};
use switchboard_telemetry::{self as telemetry, Telemetry};

pub use generations::keyspace;

/// A running node. Its tasks run until `end` is called.
pub struct App {
    /// The real addresses of the listeners: port 0 in the settings becomes a free port.
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    postgres: Postgres,
    hub: Hub,
    /// Ends first, during the drain: clients and their calls.
    clients: Shutdown,
    /// Ends after the last client: until then events are delivered, schedules run, and the node follows the
    /// fleet.
    work: Shutdown,
    /// Ends last, so that the admin listener can report the drain.
    operators: Shutdown,
    drain: Duration,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn serve(config: Config) -> Result<(), Error> {
    let (mut term, mut int) = (
        signal(SignalKind::terminate()).map_err(of_system("signals"))?,
        signal(SignalKind::interrupt()).map_err(of_system("signals"))?,
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
        let Telemetry { metrics, tracer } = telemetry::start(&config, node).map_err(of("log"))?;
        for variable in &config.unknown_variables {
            warn!(variable, "the environment variable {variable} is not a setting and has no effect");
        }

        // Bound first, so that a port in use is reported at once, and the announced port is the real one.
        let clients = http_server::bind(config.listen).map_err(of_setting("listen"))?;
        let operators = http_server::bind(config.admin_listen).map_err(of_setting("admin_listen"))?;
        config.listen = clients.local_addr().map_err(of_setting("listen"))?;
        config.admin_listen = operators.local_addr().map_err(of_setting("admin_listen"))?;
        let config = Arc::new(config);

        let postgres = Postgres::connect(&config).await.map_err(of("postgres"))?;
        let fleet = postgres.fleet().identify().await.map_err(of("postgres"))?;
        let poll = postgres.poll(node, config.admin_listen);
        let keyspace = keyspace(&fleet, postgres.fleet(), Some(poll.clone()));
        let redis = Redis::connect(&config, keyspace).map_err(of("redis"))?;
        let wakes = Wakes::default();
        let hub = Hub::start(&redis, &redis::namespace(&fleet.name), node, wakes.clone(), tracer.clone());
        let revocations = Revocations::start(postgres.revocations(), postgres.epochs(), hub.clone())
            .await
            .map_err(of("revocations"))?;
        let auth = Arc::new(Auth::new(&config, revocations.known()).map_err(of("jwt"))?);
        // A node starts also when its identity provider is not reachable.
        let keys_again_after = auth.read_keys().await;

        let outbound = Outbound::default();
        let backends =
            Backends::new(postgres.clone(), redis.clone(), hub.clone(), wakes.clone(), outbound.clone());
        let runtime = Arc::new(Runtime::new(&config, backends, tracer.clone()).map_err(of("runtime"))?);
        let registry: Arc<Registry> = Arc::new(Registry::new());
        runtime.connect_handlers(registry.clone());
        let triggers = Triggers::new(
            poll.clone(),
            registry.clone(),
            runtime.clone(),
            hub.clone(),
            postgres.clone(),
            wakes,
            tracer,
        );
        let repository = postgres.access(Repository::new);
        let tls = Tls::of(&config).map_err(of("tls"))?;
        let tickets = Tickets::new(redis.clone());
        let gateway =
            Gateway::new(&config, node, auth.clone(), tickets, tls.clone(), triggers.clone(), hub.clone());
        let polls = poll.results();
        let rollout = Arc::new(Rollout::new(
            poll,
            config.clone(),
            runtime,
            registry,
            repository.clone(),
            Trust::of(&config).map_err(of("release_keys"))?,
            {
                let gateway = gateway.clone();
                move || gateway.connections() as u64
            },
        ));

        let (clients_end, work_end, operators_end) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
        let guard = work_end.guard();
        if rollout.demands_signatures() {
            info!("this node loads only releases that are signed with a key of `release_keys`");
        }
        rollout.join().await.map_err(of("releases"))?;
        spawn_follow(rollout.clone(), &guard);
        tokio::spawn(revocations.clone().follow(polls, guard.clone()));
        tokio::spawn(auth.follow_keys(keys_again_after, guard.clone()));
        if let Some(tls) = tls {
            tokio::spawn(tls.follow(guard.clone()));
        }
        if let Some(directory) = &config.handlers_dir {
            // A file that cannot be deployed now is logged, is shown in `readyz`, and is tried again by
            // `follow`.
            rollout.deploy_found(directory).await.map_err(of_setting("handlers_dir"))?;
        }
        triggers.start(&guard);
        tokio::spawn(metrics.clone().upkeep(guard.clone()));
        tokio::spawn(outbound.upkeep(guard.clone()));
        let gauges =
            admin::gauges::run(repository, postgres.outbox(), redis.clone(), hub.clone(), guard.clone());
        tokio::spawn(gauges);
        tokio::spawn(gateway.clone().serve(clients, clients_end.guard()));
        let admin = Admin {
            token: config.admin_token.clone(),
            readiness: readiness::checks(&rollout, &triggers, &postgres, &redis, &hub, clients_end.watch()),
            rollout,
            operators: postgres.operators(),
            outbox: postgres.outbox(),
            timers: postgres.timers(),
            hub: hub.clone(),
            redis,
            revocations,
            calls: triggers,
            metrics,
            deploys: Semaphore::new(limits::DEPLOY_REQUESTS_MAX),
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

    /// 1. The node accepts no new connections. Clients are asked to reconnect elsewhere, each at its own
    ///    time. Calls in flight finish. What clients send until then is acknowledged, so it must be
    ///    delivered: the rest of the node keeps working.
    /// 2. After the last client, consumers release their shards, schedules end, and the node leaves the
    ///    fleet.
    /// 3. Operators are served until all of that is done.
    pub async fn end(self) {
        info!("draining: the node takes no new connections and asks its clients to reconnect elsewhere");
        let until = Instant::now() + self.drain + limits::SHUTDOWN_WAIT;
        let left = || until.saturating_duration_since(Instant::now());
        self.clients.begin();
        if !self.clients.finished(self.drain + limits::SHUTDOWN_CLIENTS_WAIT).await {
            warn!("a client or its call did not end in time and was cut off");
        }
        self.work.begin();
        if !self.work.finished(left().max(limits::SHUTDOWN_WORK_WAIT_MIN)).await {
            warn!("a background task did not end in time and was cut off");
        }
        self.operators.begin();
        if !self.operators.finished(left().max(limits::SHUTDOWN_OPERATORS_WAIT_MIN)).await {
            warn!("a request of an operator did not end in time and was cut off");
        }
        self.hub.stop().await;
        self.postgres.close().await;
        info!("the node has shut down");
    }
}

fn spawn_follow(rollout: Arc<Rollout>, guard: &ShutdownGuard) {
    let guard = guard.clone();
    tokio::spawn(async move { rollout.follow(guard).await });
}
