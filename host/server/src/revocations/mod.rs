//! Tokens that an operator revokes before they expire. The revocations are in Postgres. Each node reads the
//! new ones when its poll shows them, keeps all of them in memory (`known`) and closes the connections of
//! revoked tokens. A notification makes the nodes poll at once; without it, a revocation applies on every
//! node within a second.
//!
//! While Postgres is not reachable, a node applies the revocations in its memory, and no token can be
//! revoked.

mod known;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};
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
use switchboard_postgres::poll::{Polled, Snapshot};
use switchboard_postgres::revocations;
use switchboard_protocol::wire::close::Close;

/// The revocations of the process. Clones share them.
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    table: revocations::Revocations,
    epochs: Epochs,
    hub: Hub,
    /// The revocations in memory. `gateway::auth` compares every verified token with them.
    known: Arc<RevocationList>,
    /// Locked while new revocations are read, so that there is one reader at a time.
    progress: Mutex<ReadProgress>,
}

/// How far the table is read.
#[derive(Default)]
struct ReadProgress {
    /// All revocations up to this position are in memory.
    position: i64,
    /// The position epoch in which the position is valid. `None`: nothing was read yet.
    epoch: Option<Epoch>,
}

#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
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

impl Blamed for RevocationError {
    fn blame(&self) -> Blame {
        match self {
            Self::TokensFull | Self::UsersFull => Blame::Operator,
            Self::Postgres(error) => error.blame(),
        }
    }
}

impl Revocations {
    /// Reads all revocations. A node must not accept a token before this has returned.
    pub async fn start(
        table: revocations::Revocations,
        epochs: Epochs,
        hub: Hub,
    ) -> Result<Self, RevocationError> {
        let inner = Inner { table, epochs, hub, known: Arc::default(), progress: Mutex::default() };
        let revocations = Self(Arc::new(inner));
        revocations.clean().await?;
        revocations.read_new().await?;
        Ok(revocations)
    }

    /// The list with which every verified token is compared.
    pub fn known(&self) -> Arc<RevocationList> {
        self.0.known.clone()
    }

    /// Adds a revocation. Returns when it is stored and this node applies it; the other nodes follow within a
    /// second. The maximum is checked with the revocations that this node has read, so nodes that add at the
    /// same time can exceed it by a few.
    pub async fn add(&self, revocation: &Revocation, by: &str) -> Result<(), RevocationError> {
        if !self.0.known.has_room_for(&revocation.revoked) {
            return Err(match revocation.revoked {
                Revoked::Token(_) => RevocationError::TokensFull,
                Revoked::User { .. } => RevocationError::UsersFull,
            });
        }
        in_time(self.0.table.add(revocation, by)).await?;
        self.read_new().await
    }

    /// Reads new revocations until the shutdown begins. `polls` are the results of the node's poll.
    pub async fn follow(self, mut polls: watch::Receiver<Polled>, mut guard: ShutdownGuard) {
        let (mut reachable, mut clean_at) = (true, Instant::now() + limits::REVOCATIONS_CLEANED_EVERY);
        loop {
            let followed = tokio::select! {
                Ok(()) = polls.changed() => {
                    let polled = polls.borrow_and_update().clone();
                    match polled {
                        Some(Ok(snapshot)) if self.has_read(&snapshot).await => Ok(()),
                        Some(Ok(_)) => self.read_new().await,
                        // The follower of releases logs that Postgres cannot be polled.
                        Some(Err(_)) | None => continue,
                    }
                }
                () = sleep_until(clean_at) => {
                    clean_at = Instant::now() + limits::REVOCATIONS_CLEANED_EVERY;
                    self.clean().await
                }
                () = guard.begun() => return,
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

    /// Returns true when the poll shows nothing that this node has not read.
    async fn has_read(&self, snapshot: &Snapshot) -> bool {
        let progress = self.0.progress.lock().await;
        progress.epoch == Some(snapshot.epoch) && snapshot.revocations <= progress.position
    }

    /// Reads the new revocations, and closes the connections of revoked tokens.
    async fn read_new(&self) -> Result<(), RevocationError> {
        let Inner { table, epochs, hub, known, progress } = &*self.0;
        let mut progress = progress.lock().await;
        let epoch = in_time(epochs.current()).await?;
        if progress.epoch != Some(epoch) {
            // After a failover, other revocations may get the same positions. So the whole table is read
            // again. A revocation that the failover lost stays in memory.
            *progress = ReadProgress { position: 0, epoch: Some(epoch) };
        }
        loop {
            let page = in_time(table.after(progress.position, limits::REVOCATIONS_PAGE)).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            let (last, is_last_page) = (*last, page.len() < limits::REVOCATIONS_PAGE as usize);
            known.add(page.into_iter().map(|(_, revocation)| revocation));
            let closed = hub.close_where(&Close::TOKEN, |token| known.has(token));
            if closed > 0 {
                info!(closed, "closed connections of revoked tokens");
            }
            progress.position = last;
            if is_last_page {
                return Ok(());
            }
        }
    }

    /// Removes the revocations of expired tokens, in memory and in the table.
    async fn clean(&self) -> Result<(), RevocationError> {
        self.0.known.forget(timestamp::now_ms());
        in_time(self.0.table.clean()).await.map(drop)
    }
}

/// Bounds a statement by [`limits::FOLLOW_WAIT`]. A server that hangs is treated like one that is not
/// reachable.
async fn in_time<T>(
    statement: impl Future<Output = Result<T, postgres::Error>>,
) -> Result<T, RevocationError> {
    postgres::in_time(limits::FOLLOW_WAIT, statement).await.map_err(RevocationError::Postgres)
}
