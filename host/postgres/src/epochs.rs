//! Position epochs: which history this database has (`migrations/host/1350_position_epochs.sql`). A failover to a replica
//! that lagged, and a restore, take history back; from then on the database is in another epoch.

use sqlx::PgPool;

/// The ordinal of an epoch. Within one database a later epoch has a higher one.
pub type Epoch = i32;

/// The epoch of the server that answers. Where it is a new one, this begins it.
pub async fn current(pool: &PgPool) -> sqlx::Result<Epoch> {
    sqlx::query_scalar("select switchboard.current_epoch()").fetch_one(pool).await
}
