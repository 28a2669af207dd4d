//! Reads the shards that one consumer has on this node: read, deliver, settle, move the cursors. It reads all
//! shards in one step, because the cost of a batch hardly depends on its size. Cursors are saved from time to
//! time; after a crash, events that were handled since the last save are delivered once more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, warn};

use super::super::state::Triggers;
use super::delivery::{Delivered, Outcome, deliver};
use switchboard_contract::event::Event;
use switchboard_core::limits;
use switchboard_core::manifest::EventBinding;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_fanout::wakes::Listener;
use switchboard_postgres::Error;
use switchboard_postgres::outbox::{Cursor, Feed, Heads, Page, Stored, Waiting};
use switchboard_runtime::{Call, LoadedRelease, export};

/// A change of the shards that this consumer has on this node.
pub(super) enum CursorUpdate {
    Claimed(Cursor),
    /// Another node claimed it, or the position epoch changed.
    Lost(i16),
}

pub(super) struct Reader {
    triggers: Arc<Triggers>,
    consumer: String,
    feed: Feed,
    cursors: BTreeMap<i16, CursorState>,
    updates: mpsc::Receiver<CursorUpdate>,
    heads: watch::Receiver<Heads>,
    listener: Listener,
    guard: ShutdownGuard,
    saved_at: Instant,
    read_at: Option<Instant>,
    postponed_read_at: Option<Instant>,
    failing: bool,
}

/// The state of one shard.
struct CursorState {
    cursor: Cursor,
    /// The cursor as it is in the database.
    saved: Cursor,
    /// Keys with postponed events, and the number of these events. Later events of such a key are postponed
    /// behind them.
    postponed: HashMap<String, i64>,
    /// A wake or the last page showed that there may be events above the known head.
    woken: bool,
    /// The shard has [`limits::RETRIES_MAX`] postponed events, so it is not read further.
    has_backpressure: bool,
}

/// The action after a step.
enum Next {
    /// Take the next step at once, because there may be more events.
    Go,
    /// Wait for a wake, a new head or an update, at most this long.
    Wait(Duration),
    /// Wait this long, also when there are new events: the handler holds them back, no call slot is free, or
    /// Postgres failed.
    Hold(Duration),
    /// Wait this long, so that reads keep the pace of the manifest.
    Pace(Duration),
    /// End: no release of this handler consumes events any more.
    End,
}

impl Reader {
    pub(super) fn new(
        triggers: Arc<Triggers>,
        consumer: String,
        heads: watch::Receiver<Heads>,
        updates: mpsc::Receiver<CursorUpdate>,
        guard: ShutdownGuard,
    ) -> Self {
        Self {
            listener: triggers.wakes.listen(),
            feed: triggers.postgres.feed(),
            triggers,
            consumer,
            cursors: BTreeMap::new(),
            updates,
            heads,
            guard,
            saved_at: Instant::now(),
            read_at: None,
            postponed_read_at: None,
            failing: false,
        }
    }

    pub(super) async fn run(mut self) {
        while !self.guard.has_begun() {
            while let Ok(update) = self.updates.try_recv() {
                self.take(update);
            }
            let next = match self.step().await {
                Ok(next) => {
                    self.failing = false;
                    self.note(self.held_by(&next));
                    next
                }
                Err(error) => {
                    self.triggers.postgres.note(&error);
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!(consumer = %self.consumer, %error, "cannot read or settle events; trying again");
                    }
                    self.note(Some(format!("cannot read or settle events: {error}")));
                    Next::Hold(limits::OUTBOX_RETRY_AFTER)
                }
            };
            let (listening, most) = match next {
                Next::Go => continue,
                Next::Wait(most) => (true, most),
                Next::Hold(time) | Next::Pace(time) => (false, time),
                Next::End => break,
            };
            tokio::select! {
                () = self.guard.begun() => {}
                update = self.updates.recv() => match update {
                    Some(update) => self.take(update),
                    None => break,
                },
                woken = self.listener.woken(), if listening => self.wake(&woken),
                _ = self.heads.changed(), if listening => {}
                () = tokio::time::sleep(most) => {}
            }
        }
        self.release_shards().await;
    }

    fn take(&mut self, update: CursorUpdate) {
        match update {
            CursorUpdate::Claimed(cursor) => {
                let state = CursorState {
                    saved: cursor.clone(),
                    cursor,
                    postponed: HashMap::new(),
                    woken: true,
                    has_backpressure: false,
                };
                self.cursors.insert(state.cursor.shard, state);
                self.postponed_read_at = None;
            }
            CursorUpdate::Lost(shard) => {
                self.cursors.remove(&shard);
            }
        }
        self.update_owned_shards();
    }

    /// Reports for readiness how far the cursors are, and what holds them up.
    fn note(&self, held_by: Option<String>) {
        let cursors = self.cursors.values().map(|state| (state.cursor.shard, state.cursor.high()));
        self.triggers.progress.step(&self.consumer, cursors, held_by, Instant::now());
    }

    fn held_by(&self, next: &Next) -> Option<String> {
        if self.cursors.values().any(|state| state.has_backpressure) {
            return Some(format!("{} events of one shard wait for a retry", limits::RETRIES_MAX));
        }
        matches!(next, Next::Hold(_))
            .then(|| "the handler holds the events back, or has no free call slot".to_owned())
    }

    fn update_owned_shards(&self) {
        self.listener.set_owned(&self.cursors.keys().map(|shard| *shard as u32).collect::<Vec<_>>());
    }

    fn wake(&mut self, shards: &[u32]) {
        for state in self.cursors.values_mut() {
            state.woken |= shards.contains(&(state.cursor.shard as u32));
        }
    }

    async fn step(&mut self) -> Result<Next, Error> {
        let Some((release, binding)) = self.triggers.consumer(&self.consumer) else {
            return Ok(Next::End);
        };
        if let Some(hold) = self.retry(&release, &binding).await? {
            return Ok(Next::Hold(hold));
        }
        let pace = Duration::from_millis(u64::from(binding.pace_ms));
        let heads = *self.heads.borrow_and_update();
        self.cursors.values_mut().for_each(|state| state.update_backpressure(&self.consumer));
        let behind: Vec<&Cursor> = self
            .cursors
            .values()
            .filter(|state| state.may_have_more(&heads) && !state.has_backpressure)
            .map(|state| &state.cursor)
            .collect();
        if behind.is_empty() {
            return self.rest().await;
        }
        if let Some(rest) = self.read_at.and_then(|at| pace.checked_sub(at.elapsed())) {
            return Ok(Next::Pace(rest));
        }
        let most = (binding.batch as usize).div_ceil(behind.len());
        let read_at = Instant::now();
        let pages = self.feed.read(&behind, &heads, most).await?;
        // A consumer that is far behind reads without a pace.
        self.read_at = pages.iter().all(|page| page.events.len() < most).then_some(read_at);
        let something = pages.iter().any(|page| !page.events.is_empty());
        let next = if something {
            self.handle(&release, &binding, pages).await?
        } else {
            self.pass(pages);
            let through = self.cursors.values().all(|state| !state.may_have_more(&heads));
            // The missing events belong to a transaction that runs, or was rolled back.
            if through { Next::Go } else { Next::Wait(limits::OUTBOX_TICK) }
        };
        self.save_sometimes().await?;
        Ok(next)
    }

    /// Decides how long to wait when there is nothing to read.
    async fn rest(&mut self) -> Result<Next, Error> {
        self.save_sometimes().await?;
        let all_saved = self.cursors.values().all(|state| state.cursor == state.saved);
        let none_postponed = self.cursors.values().all(|state| state.postponed.is_empty());
        Ok(match self.postponed_read_at {
            // Postponed events of one key are delivered one at a time. The next one may be due already.
            None if !self.cursors.is_empty() => Next::Go,
            _ if !none_postponed => Next::Wait(limits::OUTBOX_TICK),
            _ if all_saved => Next::Wait(limits::CONSUMER_IDLE_WAIT),
            _ => Next::Wait(limits::CURSOR_SAVE_EVERY),
        })
    }

    /// Moves the cursors over pages without events, because holes may have closed.
    fn pass(&mut self, pages: Vec<Page>) {
        for page in pages {
            if let Some(state) = self.cursors.get_mut(&page.after.shard) {
                state.woken = !page.events.is_empty();
                state.cursor = page.after;
            }
        }
    }

    /// Delivers the events of the pages, settles them, and moves the cursors.
    async fn handle(
        &mut self,
        release: &Arc<LoadedRelease>,
        binding: &EventBinding,
        pages: Vec<Page>,
    ) -> Result<Next, Error> {
        let events: Vec<&Stored> = pages.iter().flat_map(|page| &page.events).collect();
        let bound = |event: &Stored| binding.types.iter().any(|pattern| pattern.matches(&event.event_type));
        let (waiting, fresh): (Vec<_>, Vec<_>) = events
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, event)| bound(event))
            .partition(|(_, event)| self.is_behind_postponed(event));
        let batch = fresh.iter().map(|(_, event)| delivery_of(event, 0)).collect();
        let delivered = self.deliver(release, binding, batch).await;

        // The events before the first one that was not delivered.
        let handled = fresh.get(delivered.outcomes.len()).map_or(events.len(), |(at, _)| *at);
        let outcomes: Vec<_> =
            fresh.iter().zip(&delivered.outcomes).map(|((_, event), outcome)| (*event, 0, outcome)).collect();
        self.settle(release, &outcomes).await?;
        let behind: Vec<_> = waiting
            .iter()
            .filter(|(at, _)| *at < handled)
            .map(|(_, event)| (*event, 0, Duration::ZERO))
            .collect();
        self.postpone(&behind).await?;
        metrics::counter!("switchboard_outbox_events_total", "consumer" => self.consumer.clone())
            .increment(handled as u64);

        let mut left = handled;
        for page in pages {
            let count = left.min(page.events.len());
            left -= count;
            let Some(state) = self.cursors.get_mut(&page.after.shard) else { continue };
            // The shard may have more events, or the rest of this page.
            state.woken = !page.events.is_empty();
            if count == page.events.len() {
                state.cursor = page.after;
            } else {
                state.cursor.pass(&page.events[..count]);
            }
        }
        Ok(delivered.hold.map_or(Next::Go, Next::Hold))
    }

    /// Delivers postponed events that are due. Returns the time to hold, if the handler asks for one.
    async fn retry(
        &mut self,
        release: &Arc<LoadedRelease>,
        binding: &EventBinding,
    ) -> Result<Option<Duration>, Error> {
        let now = Instant::now();
        let none_postponed = self.cursors.values().all(|state| state.postponed.is_empty());
        // While there are none, only an operator adds some.
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

    async fn deliver(
        &self,
        release: &Arc<LoadedRelease>,
        binding: &EventBinding,
        batch: Vec<Event>,
    ) -> Delivered {
        if batch.is_empty() {
            return Delivered::default();
        }
        let call = |batch: Arc<export::Events>| {
            let (triggers, release) = (self.triggers.clone(), release.clone());
            async move {
                let cause = triggers.tracer.waker(batch.events.iter().map(|event| event.shard));
                let call = Call { cause, ..Call::new(None) };
                triggers.runtime.call::<export::Event>(&release, call, batch).await
            }
        };
        deliver(batch, binding.attempts, call).await
    }

    /// Stores the outcomes of delivered events. `attempts` counts the attempts before this one.
    async fn settle(
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

    async fn postpone(&mut self, events: &[(&Stored, i32, Duration)]) -> Result<(), Error> {
        self.triggers.postgres.outbox().postpone(&self.consumer, events).await?;
        for (event, ..) in events {
            if let Some(state) = self.cursors.get_mut(&event.shard) {
                *state.postponed.entry(event.key.clone()).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Returns true when earlier events with the same key are postponed.
    fn is_behind_postponed(&self, event: &Stored) -> bool {
        self.cursors.get(&event.shard).is_some_and(|state| state.postponed.contains_key(&event.key))
    }

    async fn save_sometimes(&mut self) -> Result<(), Error> {
        if self.saved_at.elapsed() < limits::CURSOR_SAVE_EVERY { Ok(()) } else { self.save().await }
    }

    /// Saves every cursor that moved. A shard that another node has claimed meanwhile is removed here.
    async fn save(&mut self) -> Result<(), Error> {
        let moved: Vec<&Cursor> =
            self.cursors.values().filter(|p| p.cursor != p.saved).map(|p| &p.cursor).collect();
        if moved.is_empty() {
            return Ok(());
        }
        let shards: Vec<i16> = moved.iter().map(|cursor| cursor.shard).collect();
        let ours = self.triggers.postgres.outbox().save(&self.consumer, &moved).await?;
        self.saved_at = Instant::now();
        self.cursors.retain(|shard, _| ours.contains(shard) || !shards.contains(shard));
        for shard in ours {
            if let Some(state) = self.cursors.get_mut(&shard) {
                state.saved = state.cursor.clone();
            }
        }
        self.update_owned_shards();
        Ok(())
    }

    async fn release_shards(mut self) {
        if self.save().await.is_err() {
            return;
        }
        for state in self.cursors.values() {
            if let Err(error) = self.triggers.postgres.outbox().release(&state.cursor).await {
                warn!(consumer = %self.consumer, shard = state.cursor.shard, %error, "cannot release a shard; another node can claim it when the lease expires");
            }
        }
    }
}

impl CursorState {
    fn may_have_more(&self, heads: &Heads) -> bool {
        self.woken || !self.cursor.is_through(heads[self.cursor.shard as usize])
    }

    fn update_backpressure(&mut self, consumer: &str) {
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

fn delivery_of(stored: &Stored, attempts: i32) -> Event {
    Event {
        id: stored.id.to_string(),
        position: stored.position as u64,
        shard: stored.shard as u32,
        event_type: stored.event_type.clone(),
        key: stored.key.clone(),
        payload: stored.payload.clone(),
        at_ms: stored.created_ms as u64,
        attempt: attempts as u32 + 1,
    }
}
