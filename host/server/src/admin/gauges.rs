//! What no single call shows: how far behind the outbox is, how many nodes there are, whether this one hears itself. Asked
//! now and then, so that a scrape asks nobody.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use crate::fanout::Hub;
use crate::limits;
use crate::postgres::outbox;
use crate::redis::Redis;
use crate::releases::repository::Repository;
use crate::shutdown::ShutdownGuard;

const EVERY: Duration = Duration::from_secs(5);

/// Until the process ends.
pub async fn keep(postgres: PgPool, redis: Redis, hub: Hub, mut guard: ShutdownGuard) {
    let repository = Repository::new(postgres.clone());
    let mut tick = interval(EVERY);
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
        let asked = async {
            let nodes = repository.nodes().await.map_err(|error| error.to_string())?;
            metrics::gauge!("switchboard_nodes").set(nodes.iter().filter(|node| node.live).count() as f64);
            for lag in outbox::lag(&postgres).await.map_err(|error| error.to_string())? {
                let labels = [("consumer", lag.consumer)];
                // Nobody reads for a retired consumer, and nobody waits for it: an alarm on this would never end.
                let behind = if lag.retired { 0 } else { lag.behind };
                metrics::gauge!("switchboard_outbox_behind", &labels).set(behind as f64);
                metrics::gauge!("switchboard_outbox_retries", &labels).set(lag.retries as f64);
                metrics::gauge!("switchboard_outbox_failed", &labels).set(lag.failed as f64);
            }
            Ok::<_, String>(())
        };
        // Readiness says aloud that Postgres is away.
        if let Ok(Err(error)) = timeout(limits::FOLLOW_WAITS, asked).await {
            debug!(%error, "gauges stay as they were");
        }
    }
}
