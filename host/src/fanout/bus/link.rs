//! The bus's connection to Redis: made, listened to, found deaf or dead, made again. One task listens, another keeps
//! the subscriptions in order, so that many of them share a round trip and a busy stream does not delay them.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use redis::aio::PubSubStream;
use redis::{AsyncConnectionConfig, ErrorKind, Msg, RedisError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Bus, Connected, Heard, Order, confirm_within};
use crate::fanout::envelope::{Batch, Envelope};
use crate::ids::Address;
use crate::limits;

/// Messages heard in one go before anything else gets a turn.
const BURST_MAX: usize = 256;
/// Channels in one SUBSCRIBE.
const CHANNELS_MAX: usize = 1000;

/// Why a connection ended.
#[derive(Debug)]
enum Loss {
    Closed,
    /// It publishes and hears nothing of it.
    Deaf,
    Broken,
}

impl Bus {
    /// Runs until dropped. Everything that is heard goes to `hear`, in the order of Redis.
    pub(in crate::fanout) async fn listen(self, mut hear: impl FnMut(Heard)) {
        let _silent_at_the_end = Silence(self.clone());
        let (mut epoch, mut retry_ms, mut told) = (1, limits::BUS_RETRY_MS, false);
        loop {
            match self.connect(epoch).await {
                Ok((connected, stream)) => {
                    if epoch > 1 {
                        tracing::info!("the bus is back");
                        hear(Heard::Back);
                    }
                    (retry_ms, told) = (limits::BUS_RETRY_MS, false);
                    epoch += 1;
                    self.0.connected.send_replace(Some(connected.clone()));
                    let loss = self.hear_all(&connected, stream, &mut hear).await;
                    self.0.connected.send_replace(None);
                    self.0.up.store(false, Relaxed);
                    metrics::counter!("switchboard_bus_losses_total").increment(1);
                    tracing::warn!(?loss, "the bus is lost: connecting again");
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "the bus cannot be reached: trying on");
                    }
                    sleep(Duration::from_millis(retry_ms)).await;
                    retry_ms = (retry_ms * 2).min(limits::BUS_RETRY_MS_MAX);
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

    async fn connect(&self, epoch: u64) -> Result<(Connected, PubSubStream), RedisError> {
        let patience = confirm_within();
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(None);
        let connecting = async {
            let publisher = self.0.client.get_multiplexed_async_connection_with_config(&config).await?;
            let (mut sink, stream) = self.0.client.get_async_pubsub().await?.split();
            sink.subscribe(&[&self.0.names.control, &self.0.names.canary]).await?;
            Ok::<_, RedisError>((Connected { epoch, sink, publisher }, stream))
        };
        let timed_out = || RedisError::from((ErrorKind::Io, "no answer in time"));
        let (mut connected, stream) = timeout(patience, connecting).await.map_err(|_| timed_out())??;

        // Lines that come from now on order their own subscription.
        let addresses: Vec<_> = self.lines().keys().cloned().collect();
        for addresses in addresses.chunks(CHANNELS_MAX) {
            let names: Vec<_> = addresses.iter().map(|address| self.0.names.of(address)).collect();
            timeout(patience, connected.sink.subscribe(&names)).await.map_err(|_| timed_out())??;
            self.confirm(addresses, epoch);
        }
        Ok((connected, stream))
    }

    async fn hear_all(
        &self,
        connected: &Connected,
        mut stream: PubSubStream,
        hear: &mut impl FnMut(Heard),
    ) -> Loss {
        let mut sing = interval(Duration::from_millis(limits::CANARY_MS));
        // After a stall of this task, one song and not all that were left out.
        sing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut unheard, mut singing) = (0, None);
        loop {
            let song = async {
                match &mut singing {
                    Some(song) => std::pin::Pin::as_mut(song).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = stream.next() => match message {
                    None => return Loss::Closed,
                    Some(message) => {
                        if self.hear_burst(message, &mut stream, hear) {
                            unheard = 0;
                        }
                    }
                },
                _ = sing.tick() => {
                    if unheard * limits::CANARY_MS >= limits::CANARY_DEAF_MS {
                        return Loss::Deaf;
                    }
                    unheard += 1;
                    singing = Some(Box::pin(sing_to(connected.clone(), self.0.names.canary.clone())));
                }
                () = song => singing = None,
                () = self.0.broken.notified() => return Loss::Broken,
            }
        }
    }

    /// What is there already is heard in one go, and what of it concerns the same address is one batch. True when the
    /// canary was heard.
    fn hear_burst(&self, first: Msg, stream: &mut PubSubStream, hear: &mut impl FnMut(Heard)) -> bool {
        let mut canary = false;
        let mut run: Option<(Address, Batch)> = None;
        let mut next = Some(first);
        let mut heard = 0;
        while let Some(message) = next.take() {
            match self.read(&message) {
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
                Some((None, Envelope::Canary(_))) => {
                    canary = true;
                    self.0.up.store(true, Relaxed);
                }
                Some((None, envelope)) => {
                    flush(run.take(), hear);
                    hear(Heard::Control(envelope));
                }
                None => {}
            }
            heard += 1;
            if heard < BURST_MAX {
                next = stream.next().now_or_never().flatten();
            }
        }
        flush(run, hear);
        canary
    }

    /// Where it came, and what it says. Nothing, if it is not ours.
    fn read(&self, message: &Msg) -> Option<(Option<Address>, Envelope)> {
        let channel = message.get_channel_name();
        let address = match channel.strip_prefix(&self.0.names.address) {
            Some(address) => Some(Address::parse(address)?),
            None => None,
        };
        match Envelope::decode(Bytes::copy_from_slice(message.get_payload_bytes())) {
            Ok(envelope) => Some((address, envelope)),
            Err(malformed) => {
                metrics::counter!("switchboard_bus_malformed_total").increment(1);
                tracing::debug!(channel, %malformed, "ignored a message of the bus");
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
                Some(connected) => self.subscribe_on(connected, &addresses).await,
            };
            if result.is_break() {
                break;
            }
            // Another connection, or another try on this one; and a look at who still waits.
            let _ = timeout(Duration::from_millis(limits::BUS_RETRY_MS_MAX), connection.changed()).await;
        }
        for confirm in waiting {
            let _ = confirm.send(());
        }
    }

    async fn subscribe_on(&self, mut connected: Connected, addresses: &[Address]) -> ControlFlow<()> {
        for addresses in addresses.chunks(CHANNELS_MAX) {
            let names: Vec<_> = addresses.iter().map(|address| self.0.names.of(address)).collect();
            match timeout(confirm_within(), connected.sink.subscribe(&names)).await {
                Ok(Ok(())) => self.confirm(addresses, connected.epoch),
                Ok(Err(_)) | Err(_) => return ControlFlow::Continue(()),
            }
        }
        ControlFlow::Break(())
    }

    /// Where this fails the connection fails, and the next one does not subscribe to them.
    async fn unsubscribe(&self, addresses: &[Address]) {
        let connected = self.0.connected.borrow().clone();
        let Some(mut connected) = connected else { return };
        for addresses in addresses.chunks(CHANNELS_MAX) {
            let names: Vec<_> = addresses.iter().map(|address| self.0.names.of(address)).collect();
            let _ = timeout(confirm_within(), connected.sink.unsubscribe(&names)).await;
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

/// Whether it was taken is of no interest: it is heard or not.
async fn sing_to(mut connected: Connected, canary: String) {
    let song = Envelope::Canary(connected.epoch).encode();
    let mut command = redis::cmd("PUBLISH");
    command.arg(canary).arg(&song[..]);
    let _ = timeout(confirm_within(), command.query_async::<()>(&mut connected.publisher)).await;
}

/// Nobody listens: the bus is down, whatever Redis thinks.
struct Silence(Bus);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.0.up.store(false, Relaxed);
        self.0.0.connected.send_replace(None);
    }
}
