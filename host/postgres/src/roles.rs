//! Decides which call may use which connection, and when. A connection logs in as the role of its handler.
//! One budget bounds the connections of all roles on this node: each role has a fair share of it, and may
//! borrow more while the rest is free. A connection passes to another call only after it is clean.
//!
//! While a call waits that may have a connection, no connection is idle: a connection that comes back is
//! passed on, or closed to make room.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::{Mutex, MutexGuard};
use sha2::Sha256;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::connection::Connection;
use super::failure::Failure;
use super::outbox::Committed;
use super::owner::Suspicion;
use super::socket::Endpoint;
use super::work::Work;
use switchboard_contract::postgres::Error;
use switchboard_core::limits;
use switchboard_core::manifest::ROLE_PREFIX;
use switchboard_core::shares::{Division, Shares};

#[derive(Clone)]
pub(super) struct Roles(Arc<Inner>);

struct Inner {
    login: tokio_postgres::Config,
    endpoints: Vec<Endpoint>,
    secrets: RoleSecrets,
    connections_max: usize,
    /// Gets the events that the connections commit.
    committed: Committed,
    state: Mutex<State>,
    work: Work,
    suspicion: Suspicion,
}

/// The secrets from which the roles' passwords may be derived. While operators change `secret`, the roles
/// have the passwords of the one before until `switchboard migrate` sets new ones.
pub(super) struct RoleSecrets {
    present: String,
    previous: Option<String>,
    /// True when the one before worked last, so that it is tried first. Otherwise each login would begin with
    /// a failure.
    previous_is_first: AtomicBool,
}

impl RoleSecrets {
    pub(crate) fn new(present: &str, previous: Option<&str>) -> Self {
        let (present, previous) = (present.to_owned(), previous.map(str::to_owned));
        Self { present, previous, previous_is_first: AtomicBool::new(false) }
    }

    /// In the order in which they are tried.
    fn in_order(&self) -> impl Iterator<Item = &str> {
        let (present, previous) = (Some(&*self.present), self.previous.as_deref());
        let order =
            if self.previous_is_first.load(Relaxed) { [previous, present] } else { [present, previous] };
        order.into_iter().flatten()
    }

    fn worked(&self, secret: &str) {
        self.previous_is_first.store(secret != self.present, Relaxed);
    }
}

/// Each connection that exists or is being opened is idle or belongs to a [`Permit`], so there are never more
/// than the budget allows.
struct State {
    /// The connections in use, by role.
    shares: Shares<Arc<str>>,
    /// Least recently used first.
    idle: VecDeque<Idle>,
    /// Waiting calls by role, in the order of their arrival. A role's entry is removed with its last waiter.
    waiting: BTreeMap<Arc<str>, VecDeque<Waiter>>,
    /// The role that was last refused a login.
    refused: Option<Arc<str>>,
}

struct Idle {
    role: Arc<str>,
    connection: Connection,
}

struct Waiter {
    since: Instant,
    grant: oneshot::Sender<Grant>,
}

#[allow(clippy::large_enum_variant)] // the large one is what waiters wait for
enum Grant {
    Connection(Connection, Permit),
    /// The right to open a connection.
    Permit(Permit),
}

impl Roles {
    pub(crate) fn new(
        login: tokio_postgres::Config,
        secrets: RoleSecrets,
        connections_max: usize,
        committed: Committed,
        work: Work,
        suspicion: Suspicion,
    ) -> Self {
        let connections_max = connections_max.max(1);
        // One role alone may use half of the connections and some more. Three roles whose statements hang
        // leave a third to the others.
        let division = Division { total: connections_max, reserve: connections_max.div_ceil(4), lent: 2 };
        let state = State {
            shares: Shares::new(division),
            idle: VecDeque::new(),
            waiting: BTreeMap::new(),
            refused: None,
        };
        Self(Arc::new(Inner {
            endpoints: Endpoint::of(&login),
            login,
            secrets,
            connections_max,
            committed,
            state: Mutex::new(state),
            work,
            suspicion,
        }))
    }

    /// Returns a clean connection that is logged in as the role. Waits for its turn, but not past the
    /// deadline.
    pub(crate) async fn acquire(
        &self,
        role: &Arc<str>,
        deadline: Instant,
    ) -> Result<PooledConnection, Error> {
        let Ok(granted) = timeout_at(deadline, self.grant(role)).await else { return Err(Error::Busy) };
        let (connection, permit) = match granted? {
            Grant::Connection(connection, permit) => (connection, permit),
            Grant::Permit(permit) => (self.log_in_by(role, deadline).await?, permit),
        };
        Ok(PooledConnection { held: Some(Held { connection, permit }) })
    }

    async fn grant(&self, role: &Arc<str>) -> Result<Grant, Error> {
        let begun = Instant::now();
        let waiter = {
            let mut state = self.0.lock();
            if state.shares.take(role, 1) {
                let (found, closed) = state.connection_for(role, self.0.connections_max);
                if found.is_none() {
                    set_gauges(&state);
                }
                drop(state);
                drop(closed);
                return Ok(self.0.granted(role, found));
            }
            let (grant, waiter) = oneshot::channel();
            state.wait(role, grant)?;
            set_gauges(&state);
            waiter
        };
        // The sender is dropped only together with the pool.
        let granted = waiter.await.map_err(|_| Error::Busy)?;
        record_wait(role, begun);
        Ok(granted)
    }

    async fn log_in_by(&self, role: &Arc<str>, deadline: Instant) -> Result<Connection, Error> {
        let connect_by = Instant::now() + limits::POSTGRES_CONNECT_WAIT;
        match timeout_at(deadline.min(connect_by), self.log_in(role)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(failure)) => {
                let name = format!("{ROLE_PREFIX}{role}");
                tracing::warn!(postgres.role = %name, "the role {name} cannot log in to Postgres; calls that need it fail: {failure}");
                if failure.is_read_only() {
                    self.0.suspicion.raise();
                }
                self.0.lock().refused = Some(role.clone());
                Err(match failure {
                    // No statement was sent, and an operator can correct the cause, so the error is
                    // retryable.
                    Failure::Sql(error) => Failure::Unavailable(error).uncommitted(),
                    Failure::Lost => Error::Retryable("cannot connect to Postgres".to_owned()),
                    other => other.uncommitted(),
                })
            }
            Err(_) => Err(Error::Busy),
        }
    }

    /// Opens a connection that does not count in the budget. The caller owns it. When the server refuses the
    /// password, the login is tried once more with the other secret, if there is one.
    pub(crate) async fn log_in(&self, role: &str) -> Result<Connection, Failure> {
        let name = format!("{ROLE_PREFIX}{role}");
        let mut refusal = None;
        for secret in self.0.secrets.in_order() {
            let mut login = self.0.login.clone();
            login.user(&name).password(password(secret, &name)).application_name(&name);
            match Connection::open(&login, &self.0.endpoints, &self.0.committed).await {
                Err(failure) if failure.is_wrong_password() => refusal = Some(failure),
                opened => {
                    if opened.is_ok() {
                        self.0.secrets.worked(secret);
                    }
                    return opened;
                }
            }
        }
        Err(refusal.expect("there is a secret, and its password was refused"))
    }

    /// Returns the role that was last refused a login, and forgets it.
    pub(crate) fn take_refused(&self) -> Option<Arc<str>> {
        self.0.lock().refused.take()
    }

    pub(crate) fn suspicion(&self) -> &Suspicion {
        &self.0.suspicion
    }

    /// The number of connections that exist or are being opened, and of calls that wait for one.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let mut state = self.0.lock();
        state.remove_closed_waiters(true);
        (state.connections(), state.waiters())
    }

    pub(crate) fn work(&self) -> &Work {
        &self.0.work
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete before anything can panic.
        self.state.lock()
    }

    /// Closes the idle connections, because the server behind them is read-only.
    fn close_idle(&self) {
        self.suspicion.raise();
        let idle = std::mem::take(&mut self.lock().idle);
        // Dropped outside the lock, because closing takes time.
        drop(idle);
    }

    fn granted(self: &Arc<Self>, role: &Arc<str>, connection: Option<Connection>) -> Grant {
        let permit = Permit { inner: self.clone(), role: role.clone(), clean: None };
        match connection {
            Some(connection) => Grant::Connection(connection, permit),
            None => Grant::Permit(permit),
        }
    }

    /// Takes a connection back from a role. A clean connection stays for the next call.
    fn release(self: &Arc<Self>, role: &Arc<str>, connection: Option<Connection>) {
        let mut state = self.lock();
        state.shares.give(role, 1);
        let is_seen = connection.is_none() || !state.waiting.is_empty();
        if let Some(connection) = connection {
            state.idle.push_back(Idle { role: role.clone(), connection });
        }
        // Usually one waiter gets the connection. The next waiter may be of a role that could have none
        // before.
        let mut first = true;
        while let Some((of_role, waiter)) = state.next(role, first) {
            first = false;
            let (found, closed) = state.connection_for(&of_role, self.connections_max);
            drop(state);
            // The server counts the connection until it notices the end. The server's reserve covers that
            // moment.
            drop(closed);
            // If that call ended at this very moment, the grant comes back, and dropping it returns its
            // permit.
            drop(waiter.grant.send(self.granted(&of_role, found)));
            state = self.lock();
        }
        if is_seen {
            set_gauges(&state);
        }
    }
}

impl State {
    fn connections(&self) -> usize {
        self.idle.len() + self.shares.taken()
    }

    fn waiters(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Returns the most recently used open connection of the role, or none when a new one must be opened. To
    /// make room, the least recently used connection of another role may have to be closed; that is the
    /// second value.
    fn connection_for(&mut self, role: &str, most: usize) -> (Option<Connection>, Option<Idle>) {
        while let Some(at) = self.idle.iter().rposition(|idle| *idle.role == *role) {
            let Some(Idle { connection, .. }) = self.idle.remove(at) else { break };
            if !connection.is_closed() {
                return (Some(connection), None);
            }
        }
        // The connection that will be opened is counted already.
        let closed = if self.connections() > most { self.idle.pop_front() } else { None };
        (None, closed)
    }

    /// Removes the waiters whose calls ended: only at the front of each queue, or `anywhere`.
    fn remove_closed_waiters(&mut self, anywhere: bool) {
        self.waiting.retain(|_, queue| {
            if anywhere {
                queue.retain(|waiter| !waiter.grant.is_closed());
            }
            while queue.front().is_some_and(|waiter| waiter.grant.is_closed()) {
                queue.pop_front();
            }
            !queue.is_empty()
        });
    }

    fn wait(&mut self, role: &Arc<str>, grant: oneshot::Sender<Grant>) -> Result<(), Error> {
        let of_role = self.waiting.get(role).map_or(0, VecDeque::len);
        if of_role >= limits::POSTGRES_WAITING_PER_ROLE_MAX || self.waiters() >= limits::POSTGRES_WAITING_MAX
        {
            self.remove_closed_waiters(true);
        }
        let others = self.waiters();
        let queue = self.waiting.entry(role.clone()).or_default();
        if queue.len() >= limits::POSTGRES_WAITING_PER_ROLE_MAX || others >= limits::POSTGRES_WAITING_MAX {
            return Err(Error::Busy);
        }
        queue.push_back(Waiter { since: Instant::now(), grant });
        Ok(())
    }

    /// Takes the waiter that gets the next connection, and counts the connection for its role. Waiters whose
    /// role is below its fair share come first, then those that have waited longest. `freed` is the role
    /// whose connection came back.
    fn next(&mut self, freed: &Arc<str>, prefers_freed: bool) -> Option<(Arc<str>, Waiter)> {
        self.remove_closed_waiters(false);
        let may_have_one = self.waiting.iter().filter(|(role, _)| self.shares.may_take(role, 1));
        let by_urgency = may_have_one.filter_map(|(role, queue)| {
            let since = queue.front()?.since;
            Some((!self.shares.is_below_share(role), since, role.clone()))
        });
        let (lent, since, first) = by_urgency.min()?;
        let can_wait =
            prefers_freed && first != *freed && since.elapsed() <= limits::POSTGRES_SAME_ROLE_FIRST_MAX;
        let as_urgent = self.shares.may_take(freed, 1) && (lent || self.shares.is_below_share(freed));
        let stays = self.waiting.contains_key(freed) && can_wait && as_urgent;
        let role = if stays { freed.clone() } else { first };
        let queue = self.waiting.get_mut(&role)?;
        let waiter = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&role);
        }
        self.shares.take(&role, 1).then_some((role, waiter))
    }
}

/// Called only when the budget or the queue changes. A call that finds an idle connection changes neither.
fn set_gauges(state: &State) {
    metrics::gauge!("switchboard_postgres_connections").set(state.connections() as f64);
    metrics::gauge!("switchboard_postgres_waiting").set(state.waiters() as f64);
}

/// Recorded only for calls that had to wait for a connection.
fn record_wait(role: &str, begun: Instant) {
    metrics::histogram!("switchboard_postgres_wait_seconds", "role" => role.to_owned())
        .record(begun.elapsed());
}

/// The right of a role to one connection. Dropping it passes the right to the next waiter.
struct Permit {
    inner: Arc<Inner>,
    role: Arc<str>,
    /// A clean connection that the next call of the role can use.
    clean: Option<Connection>,
}

impl Permit {
    /// Returns the permit together with its connection, which is clean.
    fn give_back(mut self, connection: Connection) {
        self.clean = Some(connection);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let clean = self.clean.take();
        self.inner.release(&self.role, clean);
    }
}

/// A connection in use by one call. However it is dropped, the next call gets the connection clean or not at
/// all.
pub(super) struct PooledConnection {
    held: Option<Held>,
}

struct Held {
    connection: Connection,
    permit: Permit,
}

impl Deref for PooledConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.held.as_ref().expect("held until dropped").connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.held.as_mut().expect("held until dropped").connection
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(Held { mut connection, permit }) = self.held.take() else { return };
        if connection.is_read_only() {
            permit.inner.close_idle();
        }
        if connection.is_clean() {
            permit.give_back(connection);
        } else if connection.is_running() {
            // The permit is returned after the statement has stopped, or after the time to stop is over.
            permit.inner.work.clone().spawn(async move {
                connection.canceller().cancel().await;
                drop(connection);
                drop(permit);
            });
        } else if connection.is_resettable() {
            permit.inner.work.clone().spawn(async move {
                let grace = limits::POSTGRES_CANCEL_GRACE;
                if let Ok(Ok(())) = tokio::time::timeout(grace, connection.reset()).await {
                    permit.give_back(connection);
                }
            });
        } else {
            drop(connection);
            drop(permit);
        }
    }
}

/// The password of a role, derived from the secret. It is the same on every node with the same secret, and is
/// never stored.
pub(super) fn password(secret: &str, role: &str) -> String {
    derived(secret, "postgres password of ", role)
}

/// Shows whether a role's password was derived from this secret, without revealing the password.
pub(super) fn fingerprint(secret: &str, role: &str) -> String {
    derived(secret, "postgres password fingerprint of ", role)
}

fn derived(secret: &str, purpose: &str, of: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(purpose.as_bytes());
    mac.update(of.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_that_worked_last_is_tried_first() {
        let order = |secrets: &RoleSecrets| secrets.in_order().collect::<Vec<_>>().join(" ");
        let secrets = RoleSecrets::new("new", Some("old"));
        assert_eq!(order(&secrets), "new old");
        secrets.worked("old");
        assert_eq!(order(&secrets), "old new");
        secrets.worked("new");
        assert_eq!(order(&secrets), "new old");
        let alone = RoleSecrets::new("new", None);
        alone.worked("new");
        assert_eq!(order(&alone), "new");
    }
}
