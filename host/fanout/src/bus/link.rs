//! The receiving side of the bus: it reads from Redis until the connection is lost or its loopback check
//! fails, and then connects again. One task reads. A second task runs the subscriptions in order, so that
//! many of them share one round trip and a busy stream does not delay them.

use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Bus, BusEvent, Connected, Order};
use crate::envelope::{Batch, Envelope};
use switchboard_core::ids::Address;
use switchboard_core::limits;
use switchboard_redis::pubsub::{self, Event};

/// Missed heartbeats after which the loopback check has failed.
const HEARTBEATS_MISSED_MAX: u64 =
    (limits::LOOPBACK_TIMEOUT.as_millis() / limits::LOOPBACK_HEARTBEAT_EVERY.as_millis()) as u64;

/// How one connection ended.
enum ConnectionEnd {
    /// Redis closed it, or the network lost it.
    Lost,
    /// It stayed open, but the heartbeats that Redis took did not arrive on it.
    LoopbackTimeout,
}

impl Bus {
    /// Receives until the future is dropped. Every event goes to `receive`, in the order of Redis.
    pub(crate) async fn listen(self, mut receive: impl FnMut(BusEvent)) {
        let _down_at_the_end = DownOnDrop(self.clone());
        let mut epoch = 0;
        loop {
            let (subscriber, mut events) = self.0.redis.subscriber();
            while let Some(event) = events.next().await {
                if event == Event::Up {
                    epoch += 1;
                    let connected = Connected { epoch, subscriber: subscriber.clone() };
                    let end = self.receive_until_lost(connected, &mut events, &mut receive).await;
                    self.0.connected.send_replace(None);
                    self.0.up.store(false, Relaxed);
                    metrics::counter!("switchboard_bus_losses_total").increment(1);
                    if matches!(end, ConnectionEnd::LoopbackTimeout) {
                        tracing::warn!("bus loopback check failed; reconnecting");
                        break;
                    }
                }
            }
        }
    }

    /// Subscribes and unsubscribes as ordered, until the future is dropped. Orders that arrive during one
    /// round trip share the next.
    pub(crate) async fn run_orders(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut ordered = Vec::new();
        while orders.recv_many(&mut ordered, limits::BUS_CHANNELS_PER_COMMAND_MAX).await > 0 {
            let (mut wanted, mut waiting) = (Vec::new(), Vec::new());
            for order in ordered.drain(..) {
                match order {
                    Order::Subscribe(addresses, confirm) => {
                        wanted.extend(addresses);
                        waiting.push(confirm);
                    }
                    Order::Unsubscribe(addresses) => {
                        self.subscribe(std::mem::take(&mut wanted), std::mem::take(&mut waiting)).await;
                        self.unsubscribe(&addresses).await;
                    }
                }
            }
            self.subscribe(wanted, waiting).await;
        }
    }

    /// Announces to all nodes whenever this node publishes through another server than before, because the
    /// last publications may have reached nobody. A node that has not followed to the new server needs no
    /// announcement: its rooms ask as soon as it has followed. Runs until the future is dropped.
    pub(crate) async fn announce_losses(self) {
        let mut publisher = self.0.redis.publisher();
        // The first server: nothing was published before.
        let mut known = publisher.wait_for(Option::is_some).await.is_ok();
        while known {
            known = publisher.changed().await.is_ok();
            while known && self.publish_control(&Envelope::PublicationsLost).await.is_err() {
                tokio::time::sleep(limits::LOOPBACK_HEARTBEAT_EVERY).await;
            }
        }
    }

    /// Receives on one connection until it ends.
    async fn receive_until_lost(
        &self,
        connected: Connected,
        events: &mut pubsub::Messages,
        receive: &mut impl FnMut(BusEvent),
    ) -> ConnectionEnd {
        let mut heartbeat = interval(limits::LOOPBACK_HEARTBEAT_EVERY);
        // After a stall of this task, it sends one heartbeat and not all those that it missed.
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Heartbeats that this node has started to publish, and those that Redis took, since the last one
        // arrived.
        let (mut started, mut accepted) = (0, 0);
        let mut sending = pin!(futures_util::future::Fuse::terminated());
        // Runs while this task receives, because the confirmations arrive on the same connection.
        let mut subscribing = pin!(self.subscribe_to_all(&connected).fuse());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Message { channel, payload }) => {
                        let (heartbeat_arrived, ended) = self.receive_burst((channel, payload), events, receive);
                        if heartbeat_arrived {
                            (started, accepted) = (0, 0);
                            self.0.up.store(true, Relaxed);
                        }
                        if ended {
                            return ConnectionEnd::Lost;
                        }
                    }
                    Some(Event::Up) => {}
                    Some(Event::Down) | None => return ConnectionEnd::Lost,
                },
                subscribed = &mut subscribing => {
                    if !subscribed {
                        return ConnectionEnd::LoopbackTimeout;
                    }
                    if connected.epoch > 1 {
                        tracing::info!("bus reconnected; rooms with subscribers ask for what they missed");
                        receive(BusEvent::Reconnected);
                    }
                    self.0.connected.send_replace(Some(connected.clone()));
                }
                _ = heartbeat.tick() => {
                    if started >= HEARTBEATS_MISSED_MAX {
                        self.0.up.store(false, Relaxed);
                    }
                    if accepted >= HEARTBEATS_MISSED_MAX {
                        return ConnectionEnd::LoopbackTimeout;
                    }
                    started += 1;
                    sending.set(self.send_heartbeat().fuse());
                }
                taken = &mut sending => accepted += u64::from(taken),
            }
        }
    }

    /// Subscribes to the node's own channels and to all addresses. Returns false when the connection ended
    /// meanwhile.
    async fn subscribe_to_all(&self, connected: &Connected) -> bool {
        let own = [&self.0.names.control, &self.0.names.loopback];
        if connected.subscriber.subscribe(&own).await.is_err() {
            return false;
        }
        // Subscriptions that are added from now on send their own orders.
        let addresses: Vec<_> = self.subscriptions().keys().cloned().collect();
        self.subscribe_on(connected, &addresses).await
    }

    /// Publishes one heartbeat to this node's own channel. Returns true when Redis took it.
    async fn send_heartbeat(&self) -> bool {
        self.send(&[(&self.0.names.loopback, Envelope::Loopback(0).encode())]).await.is_ok()
    }

    /// Takes the messages that have already arrived, at most [`limits::BUS_BURST_MESSAGES_MAX`]. Consecutive
    /// publications to one address become one batch. Returns whether a heartbeat was among them, and whether
    /// the connection ended.
    fn receive_burst(
        &self,
        first: (Bytes, Bytes),
        events: &mut pubsub::Messages,
        receive: &mut impl FnMut(BusEvent),
    ) -> (bool, bool) {
        let (mut heartbeat_arrived, mut ended) = (false, false);
        let mut run: Option<(Address, Batch)> = None;
        let mut next = Some(first);
        let mut received = 0;
        while let Some((channel, payload)) = next.take() {
            match self.read(&channel, payload) {
                Some((Some(address), Envelope::Publications(batch))) => match &mut run {
                    Some((of, before))
                        if *of == address && before.bytes() + batch.bytes() <= limits::ENVELOPE_BYTES_MAX =>
                    {
                        before.append(batch);
                    }
                    _ => flush(run.replace((address, batch)), receive),
                },
                Some((Some(address), envelope)) => {
                    flush(run.take(), receive);
                    receive(BusEvent::Address(address, envelope));
                }
                Some((None, Envelope::Loopback(_))) => heartbeat_arrived = true,
                Some((None, envelope)) => {
                    flush(run.take(), receive);
                    receive(BusEvent::Control(envelope));
                }
                None => {}
            }
            received += 1;
            if received < limits::BUS_BURST_MESSAGES_MAX {
                match events.next().now_or_never() {
                    Some(Some(Event::Message { channel, payload })) => next = Some((channel, payload)),
                    Some(Some(Event::Down) | None) => ended = true,
                    Some(Some(Event::Up)) | None => {}
                }
            }
        }
        flush(run, receive);
        (heartbeat_arrived, ended)
    }

    /// Decodes a message. The address is `None` on the node's own channels. Returns `None` for anything that
    /// is not a message of this fleet.
    fn read(&self, channel: &[u8], payload: Bytes) -> Option<(Option<Address>, Envelope)> {
        let address = match channel.strip_prefix(self.0.names.address.as_bytes()) {
            Some(address) => Some(Address::parse(std::str::from_utf8(address).ok()?)?),
            None => None,
        };
        match Envelope::decode(payload) {
            Ok(envelope) => Some((address, envelope)),
            Err(malformed) => {
                metrics::counter!("switchboard_bus_malformed_total").increment(1);
                tracing::debug!(%malformed, "ignored a malformed message on the bus");
                None
            }
        }
    }

    /// Subscribes, on a new connection if need be, until Redis has confirmed all addresses or no caller waits
    /// any more.
    async fn subscribe(&self, addresses: Vec<Address>, waiting: Vec<oneshot::Sender<()>>) {
        let mut connection = self.0.connected.subscribe();
        while !addresses.is_empty() && !waiting.iter().all(oneshot::Sender::is_closed) {
            let connected = connection.borrow_and_update().clone();
            let subscribed = match connected {
                None => false,
                Some(connected) => self.subscribe_on(&connected, &addresses).await,
            };
            if subscribed {
                break;
            }
            // Wait for a new connection, or try this one again. Either way, check again whether a caller
            // still waits.
            let _ = timeout(limits::BUS_CONFIRM_WAIT / 4, connection.changed()).await;
        }
        for confirm in waiting {
            let _ = confirm.send(());
        }
    }

    /// Returns true once Redis has confirmed all of the addresses on this connection.
    async fn subscribe_on(&self, connected: &Connected, addresses: &[Address]) -> bool {
        for addresses in addresses.chunks(limits::BUS_CHANNELS_PER_COMMAND_MAX) {
            let names: Vec<_> = addresses.iter().map(|address| self.0.names.of(address)).collect();
            match timeout(limits::BUS_CONFIRM_WAIT, connected.subscriber.subscribe(&names)).await {
                Ok(Ok(())) => self.confirm(addresses, connected.epoch),
                Ok(Err(pubsub::Away)) | Err(_) => return false,
            }
        }
        true
    }

    /// Unsubscribes on the present connection. A failure needs no handling: the connection has failed then,
    /// and the next one does not subscribe to these addresses.
    async fn unsubscribe(&self, addresses: &[Address]) {
        let connected = self.0.connected.borrow().clone();
        let Some(connected) = connected else { return };
        for addresses in addresses.chunks(limits::BUS_CHANNELS_PER_COMMAND_MAX) {
            let names: Vec<_> = addresses.iter().map(|address| self.0.names.of(address)).collect();
            let _ = timeout(limits::BUS_CONFIRM_WAIT, connected.subscriber.unsubscribe(&names)).await;
        }
    }

    fn confirm(&self, addresses: &[Address], epoch: u64) {
        let mut subscriptions = self.subscriptions();
        for address in addresses {
            if let Some(subscription) = subscriptions.get_mut(address) {
                subscription.confirmed_in = epoch;
            }
        }
    }
}

fn flush(run: Option<(Address, Batch)>, receive: &mut impl FnMut(BusEvent)) {
    if let Some((address, batch)) = run {
        receive(BusEvent::Address(address, Envelope::Publications(batch)));
    }
}

/// Marks the bus as down when `listen` is dropped, because nothing is received from then on.
struct DownOnDrop(Bus);

impl Drop for DownOnDrop {
    fn drop(&mut self) {
        self.0.0.up.store(false, Relaxed);
        self.0.0.connected.send_replace(None);
    }
}
