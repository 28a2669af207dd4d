//! Stores the outcomes of delivered events: done, postponed behind a retry, or parked. Delivers postponed
//! events again when they are due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::super::delivery::Outcome;
use super::{CursorState, Reader, delivery_of};
use switchboard_core::limits;
use switchboard_core::manifest::EventBinding;
use switchboard_postgres::Error;
use switchboard_postgres::outbox::{Stored, Waiting};
use switchboard_runtime::LoadedRelease;

impl Reader {
    /// Delivers postponed events that are due. Returns the time to hold, if the handler asks for one.
    pub(super) async fn retry(
        &mut self,
        release: &Arc<LoadedRelease>,
        binding: &EventBinding,
    ) -> Result<Option<Duration>, Error> {
        let now = Instant::now();
        let none_postponed = self.cursors.values().all(|state| state.postponed.is_empty());
        // While there are none, only an operator adds some, and its notification may be lost.
        let often = if none_postponed { limits::CONSUMER_IDLE_WAIT } else { limits::OUTBOX_TICK };
        let is_due = self.postponed_read_at.is_none_or(|at| now >= at + often);
        if self.cursors.is_empty() || !is_due {
            return Ok(None);
        }
        let outbox = self.triggers.postgres.outbox();
        let shards: Vec<i16> = self.cursors.keys().copied().collect();
        let waiting = outbox.waiting_keys(&self.consumer, &shards).await?;
        self.cursors.values_mut().for_each(|state| state.postponed.clear());
        self.postponed_read_at = Some(now);
        if waiting.is_empty() {
            return Ok(None);
        }
        for (shard, key, count) in waiting {
            if let Some(state) = self.cursors.get_mut(&shard) {
                state.postponed.insert(key, count);
            }
        }
        let due: Vec<Waiting> = outbox.due(&self.consumer, &shards, binding.batch as usize).await?;
        let batch = due.iter().map(|waiting| delivery_of(&waiting.event, waiting.attempts)).collect();
        let delivered = self.deliver(release, binding, batch).await;
        let outcomes: Vec<_> = due
            .iter()
            .zip(&delivered.outcomes)
            .map(|(waiting, outcome)| (&waiting.event, waiting.attempts, outcome))
            .collect();
        self.settle(release, &outcomes).await?;
        if outcomes.iter().any(|(.., outcome)| **outcome == Outcome::Done) {
            // The next event of the same key may be delivered at once.
            self.postponed_read_at = None;
        }
        Ok(delivered.hold)
    }

    /// Stores the outcomes of delivered events. `attempts` counts the attempts before this one.
    pub(super) async fn settle(
        &mut self,
        release: &LoadedRelease,
        outcomes: &[(&Stored, i32, &Outcome)],
    ) -> Result<(), Error> {
        let (outbox, consumer) = (self.triggers.postgres.outbox(), &self.consumer);
        let mut postponed = Vec::new();
        let mut gone = Vec::new();
        for (event, attempts, outcome) in outcomes {
            match outcome {
                Outcome::Done if self.is_behind_postponed(event) => gone.push(*event),
                Outcome::Done => {}
                Outcome::Waiting => postponed.push((*event, 0, Duration::ZERO)),
                Outcome::Postponed { after, error } => {
                    warn!(
                        %consumer,
                        handler.name = release.name(),
                        handler.release = %release.digest.short(),
                        event.id = %event.id,
                        attempts = attempts + 1,
                        "event postponed; it is delivered again after {after:?}: {error}",
                    );
                    postponed.push((*event, attempts + 1, *after));
                }
                Outcome::Parked { error } => {
                    error!(
                        %consumer,
                        handler.name = release.name(),
                        handler.release = %release.digest.short(),
                        event.id = %event.id,
                        attempts = attempts + 1,
                        "event parked; an operator can retry or drop it: {error}",
                    );
                    metrics::counter!("switchboard_outbox_parked_total", "consumer" => consumer.clone())
                        .increment(1);
                    outbox.park(consumer, event, attempts + 1, error).await?;
                }
            }
        }
        outbox.settle(consumer, &gone).await?;
        self.postpone(&postponed).await
    }

    pub(super) async fn postpone(&mut self, events: &[(&Stored, i32, Duration)]) -> Result<(), Error> {
        self.triggers.postgres.outbox().postpone(&self.consumer, events).await?;
        for (event, ..) in events {
            if let Some(state) = self.cursors.get_mut(&event.shard) {
                *state.postponed.entry(event.key.clone()).or_default() += 1;
            }
        }
        Ok(())
    }
}

impl CursorState {
    pub(super) fn update_backpressure(&mut self, consumer: &str) {
        let was = std::mem::replace(
            &mut self.has_backpressure,
            self.postponed.values().sum::<i64>() >= limits::RETRIES_MAX,
        );
        if self.has_backpressure && !was {
            error!(
                consumer,
                shard = self.cursor.shard,
                "{} events wait for a retry; the shard is not read further until some are settled",
                limits::RETRIES_MAX
            );
        }
    }
}
