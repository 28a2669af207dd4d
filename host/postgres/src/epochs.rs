//! Position epochs: which history this database has (`migrations/host/1350_position_epochs.sql`). A restore,
//! or a failover to a replica that lagged, loses commits. From then on the database is in another epoch.

use sqlx::PgPool;

use crate::Error;

/// The number of an epoch. Within one database a later epoch has a higher number.
pub type Epoch = i32;

/// The table of the position epochs.
#[derive(Clone)]
pub struct Epochs(PgPool);

impl Epochs {
    /// `pool` is the host's pool.
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }

    /// Returns the epoch of the server that answers. When the server has a new history, this call begins the
    /// new epoch.
    pub async fn current(&self) -> Result<Epoch, Error> {
        sqlx::query_scalar("select switchboard.current_epoch()")
            .fetch_one(&self.0)
            .await
            .map_err(Error::Statement)
    }
}
