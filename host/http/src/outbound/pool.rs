//! Open connections, and those that are idle between two fetches. A connection belongs to one handler:
//! another one never gets it, so no handler can use an address that only another one's grant permits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connect::Dialed;
use super::meter::Meter;
use switchboard_core::limits;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub handler: Arc<str>,
    pub is_tls: bool,
    pub host: String,
    pub port: u16,
}

/// An open connection. Dropping it closes it.
pub(super) struct Connection {
    pub sender: SendRequest<Full<Bytes>>,
    /// The address at the other end, which each further fetch must be allowed to use.
    pub address: IpAddr,
    pub meter: Meter,
    opened: Instant,
    driver: Driver,
    _slot: Slot,
}

/// The task that moves the bytes of a connection.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    pub(super) fn new(dialed: Dialed, slot: Slot) -> Self {
        let Dialed { sender, address, driver, meter } = dialed;
        Self { sender, address, meter, opened: Instant::now(), driver: Driver(driver), _slot: slot }
    }

    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.driver.0.is_finished()
    }
}

/// The right to one open connection. Dropping it gives it back.
pub(super) struct Slot {
    counts: Arc<Mutex<Counts>>,
    key: Key,
}

#[derive(Default)]
struct Counts {
    of_hosts: HashMap<Key, usize>,
    all: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        counts.all -= 1;
        if let Some(count) = counts.of_hosts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.of_hosts.remove(&self.key);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtBound {
    Host,
    Node,
}

/// The times of idle connections.
#[derive(Clone, Copy)]
pub(super) struct Ages {
    pub idle_max: Duration,
    pub age_max: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self { idle_max: limits::FETCH_IDLE_MAX, age_max: limits::FETCH_CONNECTION_AGE_MAX }
    }
}

#[derive(Default)]
pub(super) struct Pool {
    counts: Arc<Mutex<Counts>>,
    /// The connections of a key, the last used one last.
    idle: Mutex<HashMap<Key, Vec<Idle>>>,
    ages: Ages,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn with(ages: Ages) -> Self {
        Self { ages, ..Self::default() }
    }

    /// Takes an idle connection whose address is permitted. Those that may not be used any more are closed.
    pub(super) fn take(&self, key: &Key, is_permitted: impl Fn(IpAddr) -> bool) -> Option<Connection> {
        let mut all = self.idle.lock();
        let of_key = all.get_mut(key)?;
        let mut taken = None;
        while let Some(Idle { connection, since }) = of_key.pop() {
            let is_fresh =
                since.elapsed() < self.ages.idle_max && connection.opened.elapsed() < self.ages.age_max;
            if is_fresh && connection.is_usable() && is_permitted(connection.address) {
                taken = Some(connection);
                break;
            }
        }
        if of_key.is_empty() {
            all.remove(key);
        }
        taken
    }

    /// Keeps a connection whose answer was read whole.
    pub(super) fn give(&self, key: Key, connection: Connection) {
        if connection.is_usable() {
            self.idle.lock().entry(key).or_default().push(Idle { connection, since: Instant::now() });
        }
    }

    /// The right to open one more connection; `None` at a bound. A full node closes the connection that has
    /// been idle for longest.
    pub(super) fn slot(&self, key: &Key) -> Option<Slot> {
        loop {
            match self.try_slot(key) {
                Ok(slot) => return Some(slot),
                Err(AtBound::Host) => return None,
                Err(AtBound::Node) => self.close_oldest()?,
            }
        }
    }

    fn try_slot(&self, key: &Key) -> Result<Slot, AtBound> {
        let mut counts = self.counts.lock();
        if counts.of_hosts.get(key).is_some_and(|count| *count >= limits::FETCH_CONNECTIONS_PER_HOST_MAX) {
            return Err(AtBound::Host);
        }
        if counts.all >= limits::FETCH_CONNECTIONS_MAX {
            return Err(AtBound::Node);
        }
        counts.all += 1;
        *counts.of_hosts.entry(key.clone()).or_default() += 1;
        Ok(Slot { counts: self.counts.clone(), key: key.clone() })
    }

    fn close_oldest(&self) -> Option<()> {
        let mut idle = self.idle.lock();
        // The first of a key has been idle for longest.
        let since = |of_key: &Vec<Idle>| of_key.first().map(|idle| idle.since);
        let oldest = idle.iter().min_by_key(|(_, of_key)| since(of_key)).map(|(key, _)| key.clone())?;
        let of_key = idle.get_mut(&oldest)?;
        of_key.remove(0);
        if of_key.is_empty() {
            idle.remove(&oldest);
        }
        Some(())
    }

    /// Closes the connections that have been idle for too long, or that the servers have closed.
    pub(super) fn close_idle(&self) {
        self.idle.lock().retain(|_, of_key| {
            of_key.retain(|idle| idle.since.elapsed() < self.ages.idle_max && idle.connection.is_usable());
            !of_key.is_empty()
        });
    }

    pub(super) fn close_all(&self) {
        self.idle.lock().clear();
    }

    /// The number of open connections, in use and idle.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.counts.lock().all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(handler: &str, port: u16) -> Key {
        Key { handler: handler.into(), is_tls: true, host: "x.example".to_owned(), port }
    }

    #[test]
    fn slots_are_bounded_for_each_host_and_for_the_node() {
        let pool = Pool::default();
        let per_host = limits::FETCH_CONNECTIONS_PER_HOST_MAX;
        let mut held: Vec<Slot> = (0..per_host).map(|_| pool.slot(&key("a", 1)).unwrap()).collect();
        assert!(pool.slot(&key("a", 1)).is_none());
        assert!(pool.slot(&key("b", 1)).is_some(), "each handler has its own");
        held.pop();
        held.push(pool.slot(&key("a", 1)).expect("one was given back"));
        for number in per_host..limits::FETCH_CONNECTIONS_MAX {
            held.push(pool.slot(&key("a", 1000 + number as u16)).unwrap());
        }
        assert!(pool.slot(&key("c", 2)).is_none(), "none is idle");
        held.clear();
        assert_eq!((pool.open(), pool.counts.lock().of_hosts.len()), (0, 0));
    }
}
