//! What carries publications from node to node: Redis pub/sub, one channel an address, one for all nodes, and one that
//! a node sings to itself on, for a connection that is open but deaf looks healthy to everybody else.
//!
//! It promises no delivery. After every loss it subscribes to everything again and says so (`Heard::Back`); what was
//! lost meanwhile is for the rooms to ask about.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::envelope::Envelope;
use crate::ids::{Address, NodeId};
use crate::limits;
use crate::redis::Redis;
use crate::redis::pubsub::Subscriber;

mod link;

/// What the bus brings.
#[derive(Debug)]
pub(super) enum Heard {
    At(Address, Envelope),
    /// For all nodes.
    Control(Envelope),
    /// There was a loss; everything is subscribed again.
    Back,
}

/// The bus is down, or did not confirm in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

#[derive(Clone)]
pub(super) struct Bus(Arc<Shared>);

struct Shared {
    redis: Redis,
    names: Names,
    lines: Mutex<HashMap<Address, Line>>,
    /// Sent under the lock of `lines`, so that orders and lines never disagree. At most one for each holder and line.
    orders: mpsc::UnboundedSender<Order>,
    /// None while not everything is subscribed.
    connected: watch::Sender<Option<Connected>>,
    up: AtomicBool,
}

#[derive(Clone)]
struct Connected {
    /// Counts connections from 1.
    epoch: u64,
    subscriber: Subscriber,
}

/// An address that this node wants to hear.
#[derive(Default)]
struct Line {
    /// Subscribers on their way; meanwhile it is not given up.
    holders: u32,
    /// The connection on which Redis confirmed it.
    confirmed_in: u64,
}

/// What `keep_orders` is to do, in order.
pub(super) enum Order {
    Subscribe(Vec<Address>, oneshot::Sender<()>),
    Unsubscribe(Vec<Address>),
}

/// These addresses are subscribed and stay so until this is dropped, and as long after as somebody is in their rooms.
pub(super) struct Hold {
    bus: Bus,
    addresses: Vec<Address>,
}

/// Names of channels. Addresses begin with a letter, so they never meet the others.
struct Names {
    address: String,
    control: String,
    canary: String,
}

impl Bus {
    /// Not connected yet: `listen` and `keep_orders` are to be run as long as it is used. Nodes with the same
    /// namespace hear each other.
    pub(super) fn new(redis: Redis, namespace: &str, node: NodeId) -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, ordered) = mpsc::unbounded_channel();
        let shared = Shared {
            redis,
            names: Names {
                address: format!("{namespace}:"),
                control: format!("{namespace}!control"),
                canary: format!("{namespace}!canary:{node}"),
            },
            lines: Mutex::default(),
            orders,
            connected: watch::Sender::new(None),
            up: AtomicBool::new(false),
        };
        (Self(Arc::new(shared)), ordered)
    }

    /// Whether this node hears itself.
    pub(super) fn is_up(&self) -> bool {
        self.0.up.load(Relaxed)
    }

    /// Returns once Redis has confirmed them all: what is published from now on is heard.
    pub(super) async fn hold(&self, addresses: &[Address]) -> Result<Hold, Unavailable> {
        let (confirmed, confirmation) = oneshot::channel();
        let hold = {
            let mut lines = self.lines();
            let epoch = self.0.connected.borrow().as_ref().map(|connected| connected.epoch);
            let mut unconfirmed = Vec::new();
            for address in addresses {
                let line = lines.entry(address.clone()).or_default();
                line.holders += 1;
                if Some(line.confirmed_in) != epoch {
                    unconfirmed.push(address.clone());
                }
            }
            if unconfirmed.is_empty() {
                let _ = confirmed.send(());
            } else {
                let _ = self.0.orders.send(Order::Subscribe(unconfirmed, confirmed));
            }
            Hold { bus: self.clone(), addresses: addresses.to_vec() }
        };
        match timeout(confirm_within(), confirmation).await {
            Ok(Ok(())) => Ok(hold),
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }

    /// Unsubscribes from those that nobody holds and nobody is in the room of.
    pub(super) fn give_up(&self, addresses: &[Address], in_use: impl Fn(&Address) -> bool) {
        let mut lines = self.lines();
        let idle = |address: &&Address| {
            lines.get(*address).is_some_and(|line| line.holders == 0) && !in_use(address)
        };
        let idle: Vec<_> = addresses.iter().filter(idle).cloned().collect();
        for address in &idle {
            lines.remove(address);
        }
        if lines.is_empty() {
            lines.shrink_to_fit();
        }
        if !idle.is_empty() {
            let _ = self.0.orders.send(Order::Unsubscribe(idle));
        }
    }

    /// In order, in one round trip. An error says nothing about what was taken.
    pub(super) async fn publish(&self, messages: &[(Address, Bytes)]) -> Result<(), Unavailable> {
        let messages: Vec<_> =
            messages.iter().map(|(address, payload)| (self.0.names.of(address), payload)).collect();
        self.send(&messages).await
    }

    /// To every node, this one included.
    pub(super) async fn publish_control(&self, envelope: &Envelope) -> Result<(), Unavailable> {
        self.send(&[(&self.0.names.control, envelope.encode())]).await
    }

    async fn send(&self, messages: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> Result<(), Unavailable> {
        let published = self.0.redis.publish(messages, Instant::now() + confirm_within()).await;
        published.map_err(|error| {
            tracing::debug!(?error, "the bus refused a publication");
            Unavailable
        })
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Address, Line>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut lines = self.bus.lines();
        for address in &self.addresses {
            if let Some(line) = lines.get_mut(address) {
                line.holders -= 1;
            }
        }
    }
}

impl Names {
    fn of(&self, address: &Address) -> String {
        format!("{}{address}", self.address)
    }
}

fn confirm_within() -> Duration {
    Duration::from_millis(limits::BUS_CONFIRM_MS)
}
