//! The bus: Redis pub/sub between the nodes. It uses one channel for each address, one control channel for
//! all nodes, and one loopback channel for each node. A node publishes a heartbeat to its loopback channel,
//! because a connection can stay open and healthy while Redis no longer delivers anything on it. Other nodes
//! publish there what only this node needs.
//!
//! The bus does not promise delivery. After each loss it subscribes to everything again and emits
//! `BusEvent::Reconnected`. The rooms then ask for what they missed. During a failover, a node may publish to
//! the old primary while others already receive from the new one. So a node that publishes through another
//! server than before announces it, and the rooms of all nodes ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::envelope::Envelope;
use switchboard_core::ids::{Address, NodeId};
use switchboard_core::limits;
use switchboard_redis::Redis;
use switchboard_redis::pubsub::Subscriber;

mod link;

/// An event that the bus delivers to the hub.
#[derive(Debug)]
pub(super) enum BusEvent {
    /// A message on the channel of an address.
    Address(Address, Envelope),
    /// A message on the control channel, for all nodes.
    Control(Envelope),
    /// The connection was lost. A new one is open, and every address is subscribed again.
    Reconnected,
}

/// The bus has no connection, or Redis did not confirm within [`limits::BUS_CONFIRM_WAIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

#[derive(Clone)]
pub(super) struct Bus(Arc<Shared>);

struct Shared {
    redis: Redis,
    names: Names,
    subscriptions: Mutex<HashMap<Address, BusSubscription>>,
    /// Orders are sent under the lock of `subscriptions`, so that the two always agree. Each holder and each
    /// subscription has at most one order in the channel.
    orders: mpsc::UnboundedSender<Order>,
    /// None until every address is subscribed on the present connection.
    connected: watch::Sender<Option<Connected>>,
    up: AtomicBool,
}

#[derive(Clone)]
struct Connected {
    /// Number of the connection, counted from 1.
    epoch: u64,
    subscriber: Subscriber,
}

/// An address whose messages this node receives.
#[derive(Default)]
struct BusSubscription {
    /// Callers of `hold` that have not dropped their `Hold`. While there are any, the bus does not
    /// unsubscribe.
    holders: u32,
    /// The number of the connection on which Redis confirmed the subscription.
    confirmed_in: u64,
}

/// A task for `run_orders`. Orders run in the order in which they were sent.
pub(super) enum Order {
    /// The sender fires once Redis has confirmed all addresses.
    Subscribe(Vec<Address>, oneshot::Sender<()>),
    Unsubscribe(Vec<Address>),
}

/// Keeps addresses subscribed until it is dropped. After that an address stays subscribed while its room has
/// members.
pub(super) struct Hold {
    bus: Bus,
    addresses: Vec<Address>,
}

/// Names of the channels. An address begins with a letter after the prefix, so it cannot collide with the
/// other channels.
struct Names {
    address: String,
    control: String,
    loopback: String,
    /// The beginning of the channel of each node, `loopback` of that node.
    nodes: String,
}

impl Bus {
    /// Creates a bus without a connection. The caller must run `listen` and `run_orders` as long as the bus
    /// is in use. Nodes with the same namespace receive each other's messages.
    pub(super) fn new(redis: Redis, namespace: &str, node: NodeId) -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, ordered) = mpsc::unbounded_channel();
        let shared = Shared {
            redis,
            names: Names {
                address: format!("{namespace}:"),
                control: format!("{namespace}!control"),
                loopback: format!("{namespace}!canary:{node}"),
                nodes: format!("{namespace}!canary:"),
            },
            subscriptions: Mutex::default(),
            orders,
            connected: watch::Sender::new(None),
            up: AtomicBool::new(false),
        };
        (Self(Arc::new(shared)), ordered)
    }

    /// Returns true while the loopback heartbeats of this node arrive.
    pub(super) fn is_up(&self) -> bool {
        self.0.up.load(Relaxed)
    }

    /// Subscribes to the addresses. Once it returns, this node receives everything that is published to them.
    ///
    /// # Errors
    /// When Redis has not confirmed all of them within [`limits::BUS_CONFIRM_WAIT`].
    pub(super) async fn hold(&self, addresses: &[Address]) -> Result<Hold, Unavailable> {
        let (confirmed, confirmation) = oneshot::channel();
        let hold = {
            let mut subscriptions = self.subscriptions();
            let epoch = self.0.connected.borrow().as_ref().map(|connected| connected.epoch);
            let mut unconfirmed = Vec::new();
            for address in addresses {
                let subscription = subscriptions.entry(address.clone()).or_default();
                subscription.holders += 1;
                if Some(subscription.confirmed_in) != epoch {
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
        match timeout(limits::BUS_CONFIRM_WAIT, confirmation).await {
            Ok(Ok(())) => Ok(hold),
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }

    /// Unsubscribes from those of the addresses that have no holder and, by `in_use`, no room.
    pub(super) fn unsubscribe_idle(&self, addresses: &[Address], in_use: impl Fn(&Address) -> bool) {
        let mut subscriptions = self.subscriptions();
        let idle = |address: &&Address| {
            subscriptions.get(*address).is_some_and(|subscription| subscription.holders == 0)
                && !in_use(address)
        };
        let idle: Vec<_> = addresses.iter().filter(idle).cloned().collect();
        for address in &idle {
            subscriptions.remove(address);
        }
        if subscriptions.is_empty() {
            subscriptions.shrink_to_fit();
        }
        if !idle.is_empty() {
            let _ = self.0.orders.send(Order::Unsubscribe(idle));
        }
    }

    /// Publishes the messages in order, in one round trip. After an error, Redis may have taken some of them.
    pub(super) async fn publish(&self, messages: &[(Address, Bytes)]) -> Result<(), Unavailable> {
        let messages: Vec<_> =
            messages.iter().map(|(address, payload)| (self.0.names.of(address), payload)).collect();
        self.send(&messages).await
    }

    /// Publishes to every node, this one included.
    pub(super) async fn publish_control(&self, envelope: &Envelope) -> Result<(), Unavailable> {
        self.send(&[(&self.0.names.control, envelope.encode())]).await
    }

    /// Publishes to one node, on its own channel.
    pub(super) async fn publish_to_node(&self, node: Uuid, envelope: &Envelope) -> Result<(), Unavailable> {
        self.send(&[(format!("{}{node}", self.0.names.nodes), envelope.encode())]).await
    }

    async fn send(&self, messages: &[(impl AsRef<[u8]>, impl AsRef<[u8]>)]) -> Result<(), Unavailable> {
        let published = self.0.redis.publish(messages, Instant::now() + limits::BUS_CONFIRM_WAIT).await;
        published.map_err(|error| {
            tracing::debug!(?error, "Redis did not take a publication; the caller gets `unavailable`");
            Unavailable
        })
    }

    fn subscriptions(&self) -> MutexGuard<'_, HashMap<Address, BusSubscription>> {
        self.0.subscriptions.lock()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut subscriptions = self.bus.subscriptions();
        for address in &self.addresses {
            if let Some(subscription) = subscriptions.get_mut(address) {
                subscription.holders -= 1;
            }
        }
    }
}

impl Names {
    fn of(&self, address: &Address) -> String {
        format!("{}{address}", self.address)
    }
}
