//! Tokens that were taken back before their time, known on every node within a second: they are in Postgres, each node
//! reads on from where it was four times a second, keeps all of them in memory and closes the connections they mean.
//!
//! While Postgres is away a node goes on with what it knows, and nothing more can be revoked.

mod known;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

pub use crate::postgres::revocations::{Revocation, Revoked};
pub use known::Known;

use crate::fanout::Hub;
use crate::limits;
use crate::postgres::epochs::{self, Epoch};
use crate::postgres::revocations;
use crate::shutdown::ShutdownGuard;
use crate::wire::close::Close;
use crate::wire::timestamp;

/// One for the process. Clones are the same.
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    pool: PgPool,
    hub: Hub,
    known: Arc<Known>,
    /// The position up to which everything is known, and the position epoch in which it was read. Held while reading on.
    read: Mutex<(i64, Option<Epoch>)>,
}

#[derive(Debug)]
pub enum Error {
    /// [`limits::REVOKED_TOKENS_MAX`] are known.
    TokensFull,
    /// [`limits::REVOKED_USERS_MAX`] are.
    UsersFull,
    Postgres(sqlx::Error),
}

impl Revocations {
    /// Knows what is there. A node must not take a token before it does.
    pub async fn start(pool: PgPool, hub: Hub) -> Result<Self, Error> {
        let inner = Inner { pool, hub, known: Arc::default(), read: Mutex::default() };
        let revocations = Self(Arc::new(inner));
        revocations.clean().await?;
        revocations.read_on().await?;
        Ok(revocations)
    }

    /// What every verified token is compared with.
    pub fn known(&self) -> Arc<Known> {
        self.0.known.clone()
    }

    /// Returns when it is kept and this node goes by it.
    pub async fn add(&self, revocation: &Revocation, by: &str) -> Result<(), Error> {
        if !self.0.known.has_room_for(&revocation.revoked) {
            return Err(match revocation.revoked {
                Revoked::Token(_) => Error::TokensFull,
                Revoked::User { .. } => Error::UsersFull,
            });
        }
        in_time(revocations::add(&self.0.pool, revocation, by)).await?;
        self.read_on().await
    }

    /// Until the process ends.
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
                self.read_on().await
            };
            // Said once at each turn for the worse or the better.
            match followed {
                Err(error) if reachable => {
                    warn!(%error, "cannot read revocations; those that are known count");
                    reachable = false;
                }
                Ok(()) if !reachable => {
                    info!("reading revocations again");
                    reachable = true;
                }
                _ => {}
            }
        }
    }

    /// Reads what was added since, and closes the connections that it means.
    async fn read_on(&self) -> Result<(), Error> {
        let Inner { pool, hub, known, read } = &*self.0;
        let mut read = read.lock().await;
        let epoch = in_time(epochs::current(pool)).await?;
        if read.1 != Some(epoch) {
            // After a failover positions may be given out again, for other revocations.
            *read = (0, Some(epoch));
        }
        loop {
            let page = in_time(revocations::after(pool, read.0, limits::REVOCATIONS_PAGE)).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            let (last, is_all) = (*last, page.len() < limits::REVOCATIONS_PAGE as usize);
            known.learn(page.into_iter().map(|(_, revocation)| revocation));
            let closed = hub.close_where(&Close::TOKEN, |token| known.has(token));
            if closed > 0 {
                info!(closed, "connections of revoked tokens are closed");
            }
            read.0 = last;
            if is_all {
                return Ok(());
            }
        }
    }

    async fn clean(&self) -> Result<(), Error> {
        self.0.known.forget(timestamp::now_ms());
        in_time(revocations::clean(&self.0.pool)).await.map(drop)
    }
}

/// A server that hangs is no better than one that is gone.
async fn in_time<T>(asked: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
    let answered = timeout(limits::FOLLOW_WAITS, asked).await;
    answered.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(Error::Postgres)
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TokensFull => write!(f, "{} tokens are revoked already", limits::REVOKED_TOKENS_MAX),
            Self::UsersFull => {
                write!(f, "the tokens of {} users are revoked already", limits::REVOKED_USERS_MAX)
            }
            Self::Postgres(error) => write!(f, "Postgres did not keep or tell revocations: {error}"),
        }
    }
}

impl std::error::Error for Error {}
