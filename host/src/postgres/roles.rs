//! Who may use which connection when. A handler's role is the role its connection logs in with, one budget bounds the
//! connections of all roles on this node, and no connection passes to another call before it is clean.
//!
//! While anybody waits nothing is idle: a connection that comes back is handed on, or closed to make room.

use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use super::connection::Connection;
use super::failure::Failure;
use super::socket::Endpoint;
use super::work::Work;
use crate::contract::postgres::Error;
use crate::limits;

/// Before the role's name in `grants.postgres`.
pub const ROLE_PREFIX: &str = "switchboard_";

/// A connection of the same role is handed on past a waiter of another, but not for longer than this.
const PATIENCE: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub(super) struct Roles(Arc<Inner>);

struct Inner {
    login: tokio_postgres::Config,
    endpoints: Vec<Endpoint>,
    secret: String,
    connections_max: usize,
    state: Mutex<State>,
    work: Work,
}

#[derive(Default)]
struct State {
    /// Connections that exist or are being made.
    taken: usize,
    /// Least recently used first.
    idle: VecDeque<Idle>,
    waiting: VecDeque<Waiter>,
    /// Each role's share, so that one whose statements hang leaves connections to the others.
    shares: HashMap<Arc<str>, Arc<Semaphore>>,
}

struct Idle {
    role: Arc<str>,
    connection: Connection,
    slot: Slot,
}

struct Waiter {
    role: Arc<str>,
    since: Instant,
    grant: oneshot::Sender<Grant>,
}

#[allow(clippy::large_enum_variant)] // the large one is what waiters wait for
enum Grant {
    Connection(Connection, Slot),
    Room(Slot),
}

impl Roles {
    pub fn new(login: tokio_postgres::Config, secret: &str, connections_max: usize, work: Work) -> Self {
        Self(Arc::new(Inner {
            endpoints: Endpoint::of(&login),
            login,
            secret: secret.to_owned(),
            connections_max: connections_max.max(1),
            state: Mutex::default(),
            work,
        }))
    }

    /// A clean connection that logged in as the role. Waits for its turn, but not past the deadline.
    pub async fn acquire(&self, role: &Arc<str>, deadline: Instant) -> Result<Lease, Error> {
        let Ok(granted) = timeout_at(deadline, self.grant(role)).await else { return Err(Error::Busy) };
        let (share, granted) = granted?;
        let (connection, slot) = match granted {
            Grant::Connection(connection, slot) => (connection, slot),
            Grant::Room(slot) => (self.log_in(role, deadline).await?, slot),
        };
        Ok(Lease {
            held: Some(Held { connection, slot, _share: share }),
            role: role.clone(),
            roles: self.clone(),
        })
    }

    async fn grant(&self, role: &Arc<str>) -> Result<(OwnedSemaphorePermit, Grant), Error> {
        let share = self.0.lock().share(role, self.0.connections_max);
        let begun = Instant::now();
        let (share, waited) = match share.clone().try_acquire_owned() {
            Ok(share) => (share, false),
            Err(_) => (share.acquire_owned().await.map_err(|_| Error::Busy)?, true),
        };
        if waited {
            show_wait(role, begun);
        }
        let waiter = loop {
            let mut state = self.0.lock();
            if let Some(Idle { connection, slot, .. }) = state.take_idle(role) {
                drop(state);
                if connection.is_closed() {
                    continue;
                }
                return Ok((share, Grant::Connection(connection, slot)));
            }
            if state.taken < self.0.connections_max {
                state.taken += 1;
                show(&state);
                return Ok((share, Grant::Room(Slot(Some(self.0.clone())))));
            }
            if let Some(Idle { slot, connection, .. }) = state.idle.pop_front() {
                drop(state);
                drop(connection);
                return Ok((share, Grant::Room(slot)));
            }
            if state.waiting.len() >= limits::POSTGRES_WAITING_MAX {
                return Err(Error::Busy);
            }
            let (grant, waiter) = oneshot::channel();
            state.waiting.push_back(Waiter { role: role.clone(), since: Instant::now(), grant });
            show(&state);
            break waiter;
        };
        // The sender is dropped only with the pool.
        let granted = waiter.await.map_err(|_| Error::Busy)?;
        show_wait(role, begun);
        Ok((share, granted))
    }

    async fn log_in(&self, role: &str, deadline: Instant) -> Result<Connection, Error> {
        let name = format!("{ROLE_PREFIX}{role}");
        let mut login = self.0.login.clone();
        login.user(&name).password(password(&self.0.secret, &name)).application_name(&name);
        let patience = Instant::now() + Duration::from_millis(limits::POSTGRES_CONNECT_MS_MAX);
        match timeout_at(deadline.min(patience), Connection::open(&login, &self.0.endpoints)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(failure)) => {
                tracing::warn!(postgres.role = %name, "no login as {name}: {failure:?}");
                Err(match failure {
                    Failure::Lost => Error::Retryable("no connection to Postgres".to_owned()),
                    other => other.uncommitted(),
                })
            }
            Err(_) => Err(Error::Busy),
        }
    }

    /// Connections that exist or are being made, and calls that wait for one.
    pub fn usage(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.taken, state.waiting.len())
    }

    pub fn work(&self) -> &Work {
        &self.0.work
    }

    fn put_back(&self, role: Arc<str>, mut connection: Connection, mut slot: Slot) {
        loop {
            let waiter = {
                let mut state = self.0.lock();
                let Some(first) = state.waiting.front() else {
                    state.idle.push_back(Idle { role, connection, slot });
                    return;
                };
                let impatient = first.role != role && first.since.elapsed() > PATIENCE;
                let same = (!impatient).then(|| state.waiting.iter().position(|waiter| waiter.role == role));
                let waiter = state.waiting.remove(same.flatten().unwrap_or(0));
                show(&state);
                waiter
            };
            let Some(waiter) = waiter else { continue };
            if waiter.role != role {
                // The server counts the connection until it noticed the end; its reserve covers that moment.
                drop(connection);
                drop(slot.pass_to(waiter));
                return;
            }
            match waiter.grant.send(Grant::Connection(connection, slot)) {
                Ok(()) => return,
                Err(Grant::Connection(back, its_slot)) => (connection, slot) = (back, its_slot),
                Err(Grant::Room(_)) => return,
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn share(&mut self, role: &Arc<str>, connections_max: usize) -> Arc<Semaphore> {
        let share = || Arc::new(Semaphore::new(connections_max.div_ceil(2)));
        self.shares.entry(role.clone()).or_insert_with(share).clone()
    }

    /// The most recently used one.
    fn take_idle(&mut self, role: &str) -> Option<Idle> {
        let at = self.idle.iter().rposition(|idle| *idle.role == *role)?;
        self.idle.remove(at)
    }
}

/// Only where the budget is used or waited for; who finds an idle connection changes neither.
fn show(state: &State) {
    metrics::gauge!("switchboard_postgres_connections").set(state.taken as f64);
    metrics::gauge!("switchboard_postgres_waiting").set(state.waiting.len() as f64);
}

/// Only of those who had to wait for a connection.
fn show_wait(role: &str, begun: Instant) {
    metrics::histogram!("switchboard_postgres_wait_seconds", "role" => role.to_owned())
        .record(begun.elapsed());
}

/// Room for one connection. Dropping it lets the next waiter make one.
struct Slot(Option<Arc<Inner>>);

impl Slot {
    /// What comes back is to be dropped.
    fn pass_to(self, waiter: Waiter) -> Option<Grant> {
        waiter.grant.send(Grant::Room(self)).err()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(inner) = self.0.take() else { return };
        loop {
            let waiter = {
                let mut state = inner.lock();
                match state.waiting.pop_front() {
                    Some(waiter) => waiter,
                    None => {
                        state.taken -= 1;
                        show(&state);
                        return;
                    }
                }
            };
            match Slot(Some(inner.clone())).pass_to(waiter) {
                None => return,
                // That waiter had gone: take the slot back without letting its drop come here again.
                Some(Grant::Room(mut slot)) => drop(slot.0.take()),
                Some(Grant::Connection(..)) => return,
            }
        }
    }
}

/// A connection in use by one call. However it is dropped, the connection reaches the next call clean or not at all.
pub(super) struct Lease {
    held: Option<Held>,
    role: Arc<str>,
    roles: Roles,
}

struct Held {
    connection: Connection,
    slot: Slot,
    _share: OwnedSemaphorePermit,
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.held.as_ref().expect("held until dropped").connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.held.as_mut().expect("held until dropped").connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(Held { mut connection, slot, _share }) = self.held.take() else { return };
        let (role, roles) = (self.role.clone(), self.roles.clone());
        if connection.is_clean() {
            roles.put_back(role, connection, slot);
        } else if connection.is_running() {
            // The slot and the share are free once the statement has stopped, or had its time to stop.
            self.roles.0.work.spawn(async move {
                connection.canceller().cancel().await;
                drop((connection, slot, _share));
            });
        } else if connection.is_resettable() {
            self.roles.0.work.spawn(async move {
                let patience = Duration::from_millis(limits::POSTGRES_CANCEL_GRACE_MS);
                if let Ok(Ok(())) = tokio::time::timeout(patience, connection.reset()).await {
                    drop(_share);
                    roles.put_back(role, connection, slot);
                }
            });
        }
    }
}

/// The same on every node with the same secret, and never stored.
pub(super) fn password(secret: &str, role: &str) -> String {
    derived(secret, "postgres password of ", role)
}

/// Tells whether a role's password was derived from this secret, without telling the password.
pub(super) fn fingerprint(secret: &str, role: &str) -> String {
    derived(secret, "postgres password fingerprint of ", role)
}

fn derived(secret: &str, purpose: &str, of: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(purpose.as_bytes());
    mac.update(of.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
