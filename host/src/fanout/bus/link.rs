//! The bus's listening: what Redis says, until the connection is lost or found deaf, and again. One task listens, another
//! keeps the subscriptions in order, so that many of them share a round trip and a busy stream does not delay them.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Bus, Connected, Heard, Order, confirm_within};
use crate::fanout::envelope::{Batch, Envelope};
use crate::ids::Address;
use crate::limits;
use crate::redis::pubsub::{self, Event};

/// Messages heard in one go before anything else gets a turn.
const BURST_MAX: usize = 256;
/// Channels in one SUBSCRIBE.
const CHANNELS_MAX: usize = 1000;
/// So many songs unheard, and the node is deaf.
const UNHEARD_MAX: u64 = limits::CANARY_DEAF_MS / limits::CANARY_MS;

impl Bus {
    /// Runs until dropped. Everything that is heard goes to `hear`, in the order of Redis.
    pub(in crate::fanout) async fn listen(self, mut hear: impl FnMut(Heard)) {
        let _silent_at_the_end = Silence(self.clone());
        let mut epoch = 0;
        loop {
            let (subscriber, mut events) = self.0.redis.subscriber();
            while let Some(event) = events.next().await {
                if event == Event::Up {
                    epoch += 1;
                    let connected = Connected { epoch, subscriber: subscriber.clone() };
                    let end = self.hear_all(connected, &mut events, &mut hear).await;
                    self.0.connected.send_replace(None);
                    self.0.up.store(false, Relaxed);
                    metrics::counter!("switchboard_bus_losses_total").increment(1);
                    if end.is_break() {
                        tracing::warn!(
                            "the bus is deaf: it publishes and hears nothing of it; connecting again"
                        );
                        break;
                    }
                }
            }
        }
    }

    /// Runs until dropped. Subscribes and unsubscribes as ordered; what is ordered during one round trip shares the next.
    pub(in crate::fanout) async fn keep_orders(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut ordered = Vec::new();
        while orders.recv_many(&mut ordered, CHANNELS_MAX).await > 0 {
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

    /// From one connection's beginning to its end; a break when it is deaf and should not go on.
    async fn hear_all(
        &self,
        connected: Connected,
        events: &mut pubsub::Heard,
        hear: &mut impl FnMut(Heard),
    ) -> ControlFlow<()> {
        let mut sing = interval(Duration::from_millis(limits::CANARY_MS));
        // After a stall of this task, one song and not all that were left out.
        sing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Songs begun, and of those the ones that Redis took, since one was heard.
        let (mut begun, mut sung) = (0, 0);
        let mut singing = pin!(futures_util::future::Fuse::terminated());
        // Beside the listening, for the confirmations come the same way.
        let mut subscribing = pin!(self.subscribe_to_all(&connected).fuse());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Message { channel, payload }) => {
                        let (heard_itself, ended) = self.hear_burst((channel, payload), events, hear);
                        if heard_itself {
                            (begun, sung) = (0, 0);
                            self.0.up.store(true, Relaxed);
                        }
                        if ended {
                            return ControlFlow::Continue(());
                        }
                    }
                    Some(Event::Up) => {}
                    Some(Event::Down) | None => return ControlFlow::Continue(()),
                },
                subscribed = &mut subscribing => {
                    if !subscribed {
                        return ControlFlow::Break(());
                    }
                    if connected.epoch > 1 {
                        tracing::info!("the bus is back");
                        hear(Heard::Back);
                    }
                    self.0.connected.send_replace(Some(connected.clone()));
                }
                _ = sing.tick() => {
                    if begun >= UNHEARD_MAX {
                        self.0.up.store(false, Relaxed);
                    }
                    if sung >= UNHEARD_MAX {
                        return ControlFlow::Break(());
                    }
                    begun += 1;
                    singing.set(self.sing().fuse());
                }
                taken = &mut singing => sung += u64::from(taken),
            }
        }
    }

    /// False when the connection ended over it, which its events say too.
    async fn subscribe_to_all(&self, connected: &Connected) -> bool {
        let own = [&self.0.names.control, &self.0.names.canary];
        if connected.subscriber.subscribe(&own).await.is_err() {
            return false;
        }
        // Lines that come from now on order their own subscription.
        let addresses: Vec<_> = self.lines().keys().cloned().collect();
        self.subscribe_on(connected, &addresses).await.is_break()
    }

    /// Whether Redis took it.
    async fn sing(&self) -> bool {
        self.send(&[(&self.0.names.canary, Envelope::Canary(0).encode())]).await.is_ok()
    }

    /// What is there already is heard in one go, and what of it concerns the same address is one batch. Says whether
    /// the canary was heard, and whether the connection ended.
    fn hear_burst(
        &self,
        first: (Bytes, Bytes),
        events: &mut pubsub::Heard,
        hear: &mut impl FnMut(Heard),
    ) -> (bool, bool) {
        let (mut heard_itself, mut ended) = (false, false);
        let mut run: Option<(Address, Batch)> = None;
        let mut next = Some(first);
        let mut heard = 0;
        while let Some((channel, payload)) = next.take() {
            match self.read(&channel, payload) {
                Some((Some(address), Envelope::Publications(batch))) => match &mut run {
                    Some((of, before))
                        if *of == address && before.bytes() + batch.bytes() <= limits::ENVELOPE_BYTES_MAX =>
                    {
                        before.append(batch);
                    }
                    _ => flush(run.replace((address, batch)), hear),
                },
                Some((Some(address), envelope)) => {
                    flush(run.take(), hear);
                    hear(Heard::At(address, envelope));
                }
                Some((None, Envelope::Canary(_))) => heard_itself = true,
                Some((None, envelope)) => {
                    flush(run.take(), hear);
                    hear(Heard::Control(envelope));
                }
                None => {}
            }
            heard += 1;
            if heard < BURST_MAX {
                match events.next().now_or_never() {
                    Some(Some(Event::Message { channel, payload })) => next = Some((channel, payload)),
                    Some(Some(Event::Down) | None) => ended = true,
                    Some(Some(Event::Up)) | None => {}
                }
            }
        }
        flush(run, hear);
        (heard_itself, ended)
    }

    /// Where it came, and what it says. Nothing, if it is not ours.
    fn read(&self, channel: &[u8], payload: Bytes) -> Option<(Option<Address>, Envelope)> {
        let address = match channel.strip_prefix(self.0.names.address.as_bytes()) {
            Some(address) => Some(Address::parse(std::str::from_utf8(address).ok()?)?),
            None => None,
        };
        match Envelope::decode(payload) {
            Ok(envelope) => Some((address, envelope)),
            Err(malformed) => {
                metrics::counter!("switchboard_bus_malformed_total").increment(1);
                tracing::debug!(%malformed, "ignored a message of the bus");
                None
            }
        }
    }

    /// Returns once they are confirmed, on whatever connection, or nobody waits any more.
    async fn subscribe(&self, addresses: Vec<Address>, waiting: Vec<oneshot::Sender<()>>) {
        let mut connection = self.0.connected.subscribe();
        while !addresses.is_empty() && !waiting.iter().all(oneshot::Sender::is_closed) {
            let connected = connection.borrow_and_update().clone();
            let result = match connected {
                None => ControlFlow::Continue(()),
                Some(connected) => self.subscribe_on(&connected, &addresses).await,
            };
            if result.is_break() {
                break;
            }
            // Another connection, or another try on this one; and a look at who still waits.
            let _ = timeout(Duration::from_millis(limits::BUS_CONFIRM_MS / 4), connection.changed()).await;
        }
        for confirm in waiting {
            let _ = confirm.send(());
        }
    }

    async fn subscribe_on(&self, connected: &Connected, addresses: &[Address]) -> ControlFlow<()> {
        for addresses in addresses.chunks(CHANNELS_MAX) {
            let names: Vec<_> = addresses.iter().map(|address| self.0.names.of(address)).collect();
            match timeout(confirm_within(), connected.subscriber.subscribe(&names)).await {
                Ok(Ok(())) => self.confirm(addresses, connected.epoch),
                Ok(Err(pubsub::Away)) | Err(_) => return ControlFlow::Continue(()),
            }
        }
        ControlFlow::Break(())
    }

    /// Where this fails the connection fails, and the next one does not subscribe to them.
    async fn unsubscribe(&self, addresses: &[Address]) {
        let connected = self.0.connected.borrow().clone();
        let Some(connected) = connected else { return };
        for addresses in addresses.chunks(CHANNELS_MAX) {
            let names: Vec<_> = addresses.iter().map(|address| self.0.names.of(address)).collect();
            let _ = timeout(confirm_within(), connected.subscriber.unsubscribe(&names)).await;
        }
    }

    fn confirm(&self, addresses: &[Address], epoch: u64) {
        let mut lines = self.lines();
        for address in addresses {
            if let Some(line) = lines.get_mut(address) {
                line.confirmed_in = epoch;
            }
        }
    }
}

fn flush(run: Option<(Address, Batch)>, hear: &mut impl FnMut(Heard)) {
    if let Some((address, batch)) = run {
        hear(Heard::At(address, Envelope::Publications(batch)));
    }
}

/// Nobody listens: the bus is down, whatever Redis thinks.
struct Silence(Bus);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.0.up.store(false, Relaxed);
        self.0.0.connected.send_replace(None);
    }
}
