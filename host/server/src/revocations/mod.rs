//! Tokens that were revoked before they expire. Every node knows a revocation within a second: revocations
//! are in Postgres, and each node reads the new ones four times a second, keeps all in memory and closes the
//! connections of revoked tokens.
//!
//! While Postgres is not reachable, a node uses the revocations that it knows, and no token can be revoked.

mod known;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

pub use known::RevocationList;
pub use switchboard_postgres::revocations::{Revocation, Revoked};

use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_core::timestamp;
use switchboard_core::{Blame, Blamed};
use switchboard_fanout::Hub;
use switchboard_postgres as postgres;
use switchboard_postgres::epochs::{Epoch, Epochs};
use switchboard_postgres::revocations;
use switchboard_protocol::wire::close::Close;

/// The revocations of the process. Clones share them.
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    table: revocations::Revocations,
    epochs: Epochs,
    hub: Hub,
    known: Arc<RevocationList>,
    /// The position up to which all revocations are known, and the position epoch in which it was read.
    /// Locked while reading.
    read: Mutex<(i64, Option<Epoch>)>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The maximum of [`limits::REVOKED_TOKENS_MAX`] tokens is revoked.
    #[error(
        "the maximum of {} single tokens is already revoked: revoke them by user",
        limits::REVOKED_TOKENS_MAX
    )]
    TokensFull,
    /// The tokens of the maximum of [`limits::REVOKED_USERS_MAX`] users are revoked.
    #[error("the tokens of the maximum of {} users are already revoked", limits::REVOKED_USERS_MAX)]
    UsersFull,
    #[error("Postgres failed to store or read revocations: {0}")]
    Postgres(postgres::Error),
}

impl Blamed for Error {
    fn blame(&self) -> Blame {
        match self {
            Self::TokensFull | Self::UsersFull => Blame::Operator,
            Self::Postgres(error) => error.blame(),
        }
    }
}

impl Revocations {
    /// Reads all revocations. A node must not accept a token before that.
    pub async fn start(table: revocations::Revocations, epochs: Epochs, hub: Hub) -> Result<Self, Error> {
        let inner = Inner { table, epochs, hub, known: Arc::default(), read: Mutex::default() };
        let revocations = Self(Arc::new(inner));
        revocations.clean().await?;
        revocations.read_new().await?;
        Ok(revocations)
    }

    /// The list with which every verified token is compared.
    pub fn known(&self) -> Arc<RevocationList> {
        self.0.known.clone()
    }

    /// Adds a revocation. Returns when it is stored and this node applies it.
    pub async fn add(&self, revocation: &Revocation, by: &str) -> Result<(), Error> {
        if !self.0.known.has_room_for(&revocation.revoked) {
            return Err(match revocation.revoked {
                Revoked::Token(_) => Error::TokensFull,
                Revoked::User { .. } => Error::UsersFull,
            });
        }
        in_time(self.0.table.add(revocation, by)).await?;
        self.read_new().await
    }

    /// Reads new revocations until the shutdown begins.
    pub async fn follow(self, mut guard: ShutdownGuard) {
        let mut tick = interval(limits::FOLLOW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reachable, mut clean_at) = (true, Instant::now() + limits::REVOCATIONS_CLEANED_EVERY);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = guard.begun() => return,
            }
            let followed = if clean_at <= Instant::now() {
                clean_at = Instant::now() + limits::REVOCATIONS_CLEANED_EVERY;
                self.clean().await
            } else {
                self.read_new().await
            };
            // Logged only when the state changes.
            match followed {
                Err(error) if reachable => {
                    warn!(%error, "cannot read new revocations from Postgres; the known ones still apply");
                    reachable = false;
                }
                Ok(()) if !reachable => {
                    info!("revocations are read from Postgres again");
                    reachable = true;
                }
                _ => {}
            }
        }
    }

    /// Reads the new revocations, and closes the connections of revoked tokens.
    async fn read_new(&self) -> Result<(), Error> {
        let Inner { table, epochs, hub, known, read } = &*self.0;
        let mut read = read.lock().await;
        let epoch = in_time(epochs.current()).await?;
        if read.1 != Some(epoch) {
            // After a failover, positions may be given out again for other revocations.
            *read = (0, Some(epoch));
        }
        loop {
            let page = in_time(table.after(read.0, limits::REVOCATIONS_PAGE)).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            let (last, is_all) = (*last, page.len() < limits::REVOCATIONS_PAGE as usize);
            known.add(page.into_iter().map(|(_, revocation)| revocation));
            let closed = hub.close_where(&Close::TOKEN, |token| known.has(token));
            if closed > 0 {
                info!(closed, "closed connections of revoked tokens");
            }
            read.0 = last;
            if is_all {
                return Ok(());
            }
        }
    }

    async fn clean(&self) -> Result<(), Error> {
        self.0.known.forget(timestamp::now_ms());
        in_time(self.0.table.clean()).await.map(drop)
    }
}

async fn in_time<T>(statement: impl Future<Output = Result<T, postgres::Error>>) -> Result<T, Error> {
    postgres::in_time(limits::FOLLOW_WAIT, statement).await.map_err(Error::Postgres)
}
