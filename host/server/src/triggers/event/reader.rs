//! Reads the shards that one consumer has on this node: read, deliver, settle, move the cursors. It reads all
//! shards in one step, because the cost of a batch hardly depends on its size. The node reads each event once
//! for all consumers (`postgres::outbox::NodeFeed`).
//!
//! Cursors are saved while there are no events, or when a save is due. Delivery goes on during a save until
//! the next one is due, and stops after a save that failed. After a crash, events that were handled since the
//! last save are delivered once more.

mod saves;
mod settling;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::warn;

use super::super::state::Triggers;
use super::delivery::{Delivered, deliver};
use saves::{Saved, Saving, Unsaved, end_of};
use switchboard_contract::event::Event;
use switchboard_core::limits;
use switchboard_core::manifest::EventBinding;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_fanout::wakes::Listener;
use switchboard_postgres::Error;
use switchboard_postgres::outbox::{ConsumerFeed, Cursor, Heads, News, Page, Pages, Stored};
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
    feed: ConsumerFeed,
    cursors: BTreeMap<i16, CursorState>,
    updates: mpsc::Receiver<CursorUpdate>,
    heads: watch::Receiver<Heads>,
    retry_requests: watch::Receiver<()>,
    listener: Listener,
    guard: ShutdownGuard,
    unsaved: Option<Unsaved>,
    saving: Option<Saving>,
    /// The result of a save that ended while the reader waited.
    saved: Option<Saved>,
    /// The last save failed. Nothing is delivered before another one succeeds, because other nodes may have
    /// the shards.
    has_save_failed: bool,
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
            feed: triggers.postgres.node_feed().consumer(),
            retry_requests: triggers.poll.retry_requests(),
            triggers,
            consumer,
            cursors: BTreeMap::new(),
            updates,
            heads,
            guard,
            unsaved: None,
            saving: None,
            saved: None,
            has_save_failed: false,
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
                    if matches!(next, Next::Hold(_)) {
                        self.begin_save();
                    }
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
                _ = self.listener.woken(), if listening => {}
                _ = self.heads.changed(), if listening => {}
                _ = self.retry_requests.changed(), if listening => self.postponed_read_at = None,
                saved = end_of(&mut self.saving), if listening => self.saved = Some(saved),
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

    async fn step(&mut self) -> Result<Next, Error> {
        if let Some(saved) = self.saved.take() {
            self.take_saved(saved)?;
        } else if self.saving.as_ref().is_some_and(|saving| saving.task.is_finished()) {
            self.end_save().await?;
        }
        if self.is_save_due() {
            self.end_save().await?;
            self.begin_save();
            if self.has_save_failed {
                self.end_save().await?;
            }
        }
        let Some((release, binding)) = self.triggers.consumer(&self.consumer) else {
            return Ok(Next::End);
        };
        if let Some(hold) = self.retry(&release, &binding).await? {
            return Ok(Next::Hold(hold));
        }
        let pace = Duration::from_millis(u64::from(binding.pace_ms));
        if let Some(rest) = self.read_at.and_then(|at| pace.checked_sub(at.elapsed())) {
            return Ok(Next::Pace(rest));
        }
        let news = News { heads: *self.heads.borrow_and_update(), wakes: self.triggers.wakes.counts() };
        self.cursors.values_mut().for_each(|state| state.update_backpressure(&self.consumer));
        let readable = self.cursors.values().filter(|state| !state.has_backpressure);
        let readable: Vec<&Cursor> = readable.map(|state| &state.cursor).collect();
        let most = binding.batch as usize;
        let read_at = Instant::now();
        let Pages { pages, is_through } = self.feed.next(&readable, &news, most).await?;
        if pages.is_empty() {
            return self.rest(is_through);
        }
        let events: usize = pages.iter().map(|page| page.events.len()).sum();
        // A consumer that is far behind reads without a pace.
        self.read_at = (0 < events && events < most).then_some(read_at);
        let next = if events > 0 {
            self.handle(&release, &binding, pages).await?
        } else {
            self.pass(pages);
            Next::Go
        };
        if self.is_save_due() {
            self.begin_save();
        }
        Ok(next)
    }

    /// Decides how long to wait when there is nothing to read.
    fn rest(&mut self, is_through: bool) -> Result<Next, Error> {
        let now = Instant::now();
        if self.unsaved.as_ref().is_some_and(|unsaved| now >= unsaved.due_at()) {
            self.begin_save();
        }
        let none_postponed = self.cursors.values().all(|state| state.postponed.is_empty());
        Ok(match (self.postponed_read_at, &self.unsaved) {
            // Postponed events of one key are delivered one at a time. The next one may be due already.
            (None, _) if !self.cursors.is_empty() => Next::Go,
            // The missing events belong to a transaction that runs, or was rolled back.
            _ if !none_postponed || !is_through => Next::Wait(limits::OUTBOX_TICK),
            (_, Some(unsaved)) if self.saving.is_none() => {
                Next::Wait(unsaved.due_at().saturating_duration_since(now))
            }
            _ => Next::Wait(limits::CONSUMER_IDLE_WAIT),
        })
    }

    /// Moves the cursors over pages without events, because holes may have closed.
    fn pass(&mut self, pages: Vec<Page>) {
        for page in pages {
            if let Some(state) = self.cursors.get_mut(&page.after.shard) {
                state.cursor = page.after;
            }
        }
        self.note_unsaved(0);
    }

    /// Delivers the events of the pages, settles them, and moves the cursors.
    async fn handle(
        &mut self,
        release: &Arc<LoadedRelease>,
        binding: &EventBinding,
        pages: Vec<Page>,
    ) -> Result<Next, Error> {
        let events: Vec<&Stored> = pages.iter().flat_map(|page| &page.events).map(AsRef::as_ref).collect();
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
            if count == page.events.len() {
                state.cursor = page.after;
            } else {
                state.cursor.pass(&page.events[..count]);
            }
        }
        self.note_unsaved(handled);
        Ok(delivered.hold.map_or(Next::Go, Next::Hold))
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

    /// Returns true when earlier events with the same key are postponed.
    fn is_behind_postponed(&self, event: &Stored) -> bool {
        self.cursors.get(&event.shard).is_some_and(|state| state.postponed.contains_key(&event.key))
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
