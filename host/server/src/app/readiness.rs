//! The checks of `/readyz`. `docs/operations.md` says what each check means and what to do.

use std::sync::Arc;

use crate::admin::Readiness;
use crate::triggers::Triggers;
use switchboard_core::shutdown::ShutdownWatch;
use switchboard_fanout::Hub;
use switchboard_postgres::Postgres;
use switchboard_redis::Redis;
use switchboard_releases::Rollout;

pub(super) fn checks(
    rollout: &Arc<Rollout>,
    triggers: &Arc<Triggers>,
    postgres: &Postgres,
    redis: &Redis,
    hub: &Hub,
    shutdown: ShutdownWatch,
) -> Readiness {
    let (postgres, redis, hub) = (postgres.clone(), redis.clone(), hub.clone());
    let (writes, running) = (postgres.clone(), triggers.clone());
    let (releases, files, triggers) = (rollout.clone(), rollout.clone(), triggers.clone());
    Readiness::default()
        .check("postgres", move || {
            let postgres = postgres.clone();
            async move { holds(postgres.healthy().await, "Postgres does not answer") }
        })
        .check("writes", move || {
            let (postgres, roles) = (writes.clone(), running.postgres_roles());
            async move { postgres.can_write(&roles).await.map_err(|why| why.to_string()) }
        })
        .check("redis", move || {
            let writable = redis.writable_primary();
            async move { writable.map_err(|why| format!("Redis is not a writable primary: {why}")) }
        })
        .check("bus", move || {
            let up = hub.is_up();
            async move { holds(up, "this node does not receive its own messages on the bus: delivery waits") }
        })
        .check("releases", move || {
            let missing = releases.releases_missing();
            async move { none(&missing) }
        })
        .check("handlers_dir", move || {
            let missing = files.files_missing();
            async move { none(&missing) }
        })
        .check("consumers", move || {
            let standing = triggers.consumers_standing();
            async move { none(&standing) }
        })
        .look("serving", move || holds(!shutdown.has_begun(), "the node is draining"))
}

fn holds(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// Fails when there is a message. Each message is one problem.
fn none(sentences: &[String]) -> Result<(), String> {
    if sentences.is_empty() { Ok(()) } else { Err(sentences.join("; ")) }
}
