//! Metrics that no single call shows: how far behind the outbox is, the number of nodes, and whether this
//! node receives its own messages. They are read at intervals, so that a scrape sends no queries.

use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_fanout::Hub;
use switchboard_postgres::outbox::Outbox;
use switchboard_redis::Redis;
use switchboard_releases::repository::Repository;

/// Updates the gauges until the shutdown begins.
pub async fn run(repository: Repository, outbox: Outbox, redis: Redis, hub: Hub, mut guard: ShutdownGuard) {
    let mut tick = interval(limits::GAUGES_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = guard.begun() => return,
        }
        let up = |up: bool| if up { 1.0 } else { 0.0 };
        metrics::gauge!("switchboard_bus_up").set(up(hub.is_up()));
        metrics::gauge!("switchboard_redis_up").set(up(redis.is_up()));
        metrics::gauge!("switchboard_fanout_addresses").set(hub.addresses() as f64);
        let update = async {
            let nodes = repository.live_nodes().await.map_err(|error| error.to_string())?;
            metrics::gauge!("switchboard_nodes").set(nodes as f64);
            for lag in outbox.lag().await.map_err(|error| error.to_string())? {
                let labels = [("consumer", lag.consumer)];
                // No node reads for a retired consumer. Without this, an alarm on it would never end.
                let behind = if lag.retired { 0 } else { lag.behind };
                metrics::gauge!("switchboard_outbox_behind", &labels).set(behind as f64);
                metrics::gauge!("switchboard_outbox_retries", &labels).set(lag.retries as f64);
                metrics::gauge!("switchboard_outbox_failed", &labels).set(lag.failed as f64);
            }
            Ok::<_, String>(())
        };
        // Readiness reports that Postgres is not reachable.
        if let Ok(Err(error)) = timeout(limits::FOLLOW_WAIT, update).await {
            debug!(%error, "the gauges could not be updated");
        }
    }
}
