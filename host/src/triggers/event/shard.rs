//! One shard for one consumer, while its lease holds: read, deliver, settle, move on. The cursor is saved now and then;
//! what was handled since comes once more after a crash.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{error, warn};
use uuid::Uuid;

use super::super::{Triggers, told};
use super::consumer;
use super::delivery::{Delivered, Fate, deliver};
use crate::contract::event::Event;
use crate::limits;
use crate::manifest::EventBinding;
use crate::postgres::outbox::{self, Cursor, Heads, Held, Stored, Waiting};
use crate::runtime::{Call, Release};
use crate::shutdown::Guard;

const TICK: Duration = Duration::from_millis(limits::OUTBOX_TICK_MS);
const SAVE_EVERY: Duration = Duration::from_millis(limits::CURSOR_SAVE_MS);
/// An operator's replay is noticed within this.
const LOOK_ASIDE_EVERY: Duration = Duration::from_secs(1);
/// Wait after a failure of Postgres.
const BACK_OFF: Duration = Duration::from_millis(200);

pub(super) struct Shard {
    triggers: Arc<Triggers>,
    cursor: Cursor,
    /// As in the database.
    saved: Cursor,
    saved_at: Instant,
    heads: watch::Receiver<Heads>,
    wake: Arc<Notify>,
    stopped: watch::Receiver<bool>,
    guard: Guard,
    /// Keys with events put aside, and how many: later events of such a key are put behind them.
    aside: HashMap<String, i64>,
    looked_aside_at: Option<Instant>,
    /// Something said that there may be more than the heads tell.
    woken: bool,
    failing: bool,
}

/// What to do after a step.
enum Next {
    /// There may be more at once.
    Go,
    /// Until something happens, at most so long.
    Wait(Duration),
    /// Until this moment, whatever happens.
    Hold(Duration),
    /// The shard is somebody else's, or nobody's.
    End,
}

impl Shard {
    pub(super) fn new(
        triggers: Arc<Triggers>,
        cursor: Cursor,
        heads: watch::Receiver<Heads>,
        wake: Arc<Notify>,
        stopped: watch::Receiver<bool>,
        guard: Guard,
    ) -> Self {
        Self {
            triggers,
            saved: cursor.clone(),
            cursor,
            saved_at: Instant::now(),
            heads,
            wake,
            stopped,
            guard,
            aside: HashMap::new(),
            looked_aside_at: None,
            woken: true,
            failing: false,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            if *self.stopped.borrow() || self.guard.has_begun() {
                break;
            }
            let next = match self.step().await {
                Ok(next) => {
                    self.failing = false;
                    next
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!(consumer = %self.cursor.consumer, shard = self.cursor.shard, %error, "the outbox cannot be read");
                    }
                    Next::Hold(BACK_OFF)
                }
            };
            match next {
                Next::Go => {}
                Next::Wait(most) => tokio::select! {
                    () = self.guard.begun() => {}
                    _ = self.stopped.changed() => {}
                    () = self.wake.notified() => self.woken = true,
                    _ = self.heads.changed() => {}
                    () = tokio::time::sleep(most) => {}
                },
                Next::Hold(time) => tokio::select! {
                    () = self.guard.begun() => {}
                    _ = self.stopped.changed() => {}
                    () = tokio::time::sleep(time) => {}
                },
                Next::End => return,
            }
        }
        if self.save().await.is_ok()
            && let Err(error) = outbox::release(self.triggers.postgres.host(), &self.cursor).await
        {
            // The lease runs out by itself.
            warn!(consumer = %self.cursor.consumer, shard = self.cursor.shard, %error, "cannot give a shard back");
        }
    }

    async fn step(&mut self) -> sqlx::Result<Next> {
        let Some((release, binding)) = consumer::find(&self.triggers, &self.cursor.consumer) else {
            return Ok(Next::End);
        };
        if let Some(hold) = self.retry(&release, &binding).await? {
            return Ok(Next::Hold(hold));
        }
        if self.aside.values().sum::<i64>() >= limits::RETRIES_MAX {
            error!(consumer = %self.cursor.consumer, shard = self.cursor.shard, "too many events wait for a retry, the shard stands");
            return Ok(Next::Hold(LOOK_ASIDE_EVERY));
        }
        let head = self.heads.borrow_and_update()[self.cursor.shard as usize];
        if !self.woken && self.cursor.is_through(head) {
            return Ok(match self.save_sometimes().await? {
                // Events wait behind each other, one of a key at a time: the next may be due already.
                Held::Ours if self.looked_aside_at.is_none() => Next::Go,
                Held::Ours if !self.aside.is_empty() => Next::Wait(TICK),
                Held::Ours if self.cursor == self.saved => Next::Wait(LOOK_ASIDE_EVERY),
                Held::Ours => Next::Wait(SAVE_EVERY),
                Held::Lost => Next::End,
            });
        }
        self.woken = false;
        let most = binding.batch as usize;
        let (events, after) = outbox::read(self.triggers.postgres.host(), &self.cursor, head, most).await?;
        if events.is_empty() {
            self.cursor = after;
            // A writer that is not done, or was rolled back.
            return Ok(if self.cursor.is_through(head) { Next::Go } else { Next::Wait(TICK) });
        }
        self.woken = true;
        let next = self.handle(&release, &binding, events, after).await?;
        if self.save_sometimes().await? == Held::Lost {
            return Ok(Next::End);
        }
        Ok(next)
    }

    /// A batch from the cursor on.
    async fn handle(
        &mut self,
        release: &Arc<Release>,
        binding: &EventBinding,
        events: Vec<Stored>,
        after: Cursor,
    ) -> sqlx::Result<Next> {
        let bound = |event: &Stored| binding.types.iter().any(|pattern| pattern.matches(&event.event_type));
        let (behind, fresh): (Vec<_>, Vec<_>) = events
            .iter()
            .enumerate()
            .filter(|(_, event)| bound(event))
            .partition(|(_, event)| self.aside.contains_key(&event.key));
        let batch = fresh.iter().map(|(_, event)| self.event(event, 0)).collect();
        let delivered = self.deliver(release, binding, batch).await;

        // Up to the first event that nobody looked at.
        let handled = fresh.get(delivered.fates.len()).map_or(events.len(), |(at, _)| *at);
        let fates: Vec<_> = fresh
            .iter()
            .map(|(_, event)| (*event, 0))
            .zip(&delivered.fates)
            .map(|((e, n), fate)| (e, n, fate))
            .collect();
        self.settle(&fates).await?;
        let behind: Vec<_> = behind
            .iter()
            .filter(|(at, _)| *at < handled)
            .map(|(_, event)| (*event, 0, Duration::ZERO))
            .collect();
        self.put_aside(&behind).await?;

        if handled == events.len() {
            self.cursor = after;
        } else {
            self.cursor.pass(&events[..handled]);
        }
        metrics::counter!("switchboard_outbox_events_total", "consumer" => self.cursor.consumer.clone())
            .increment(handled as u64);
        Ok(delivered.hold.map_or(Next::Go, Next::Hold))
    }

    /// What was put aside and is due. Returns how long to hold, where the handler asks for it.
    async fn retry(
        &mut self,
        release: &Arc<Release>,
        binding: &EventBinding,
    ) -> sqlx::Result<Option<Duration>> {
        let now = Instant::now();
        let often = if self.aside.is_empty() { LOOK_ASIDE_EVERY } else { TICK };
        if self.looked_aside_at.is_some_and(|at| now < at + often) {
            return Ok(None);
        }
        let (pool, consumer, shard) =
            (self.triggers.postgres.host(), &self.cursor.consumer, self.cursor.shard);
        self.aside = outbox::waiting_keys(pool, consumer, shard).await?.into_iter().collect();
        self.looked_aside_at = Some(now);
        if self.aside.is_empty() {
            return Ok(None);
        }
        let due: Vec<Waiting> = outbox::due(pool, consumer, shard, binding.batch as usize).await?;
        let batch = due.iter().map(|waiting| self.event(&waiting.event, waiting.attempts)).collect();
        let delivered = self.deliver(release, binding, batch).await;
        let fates: Vec<_> = due
            .iter()
            .zip(&delivered.fates)
            .map(|(waiting, fate)| (&waiting.event, waiting.attempts, fate))
            .collect();
        self.settle(&fates).await?;
        if fates.iter().any(|(.., fate)| **fate == Fate::Done) {
            // The next of the same key may go at once.
            self.looked_aside_at = None;
        }
        Ok(delivered.hold)
    }

    async fn deliver(&self, release: &Arc<Release>, binding: &EventBinding, batch: Vec<Event>) -> Delivered {
        if batch.is_empty() {
            return Delivered::default();
        }
        let call = |events| {
            let (triggers, release) = (self.triggers.clone(), release.clone());
            async move {
                let call = Call { id: Uuid::now_v7().to_string(), principal: None, connection: None };
                let call_id = call.id.clone();
                let answer = triggers.runtime.event(&release, call, events).await;
                if let Err(failure) = &answer
                    && !failure.had_no_effect()
                {
                    told(&release, &call_id, failure);
                }
                answer
            }
        };
        deliver(batch, binding.attempts, call).await
    }

    /// Writes down what became of events that were delivered once more than `attempts` says.
    async fn settle(&mut self, fates: &[(&Stored, i32, &Fate)]) -> sqlx::Result<()> {
        let (pool, consumer, shard) =
            (self.triggers.postgres.host(), self.cursor.consumer.clone(), self.cursor.shard);
        let mut aside = Vec::new();
        let mut gone = Vec::new();
        for (event, attempts, fate) in fates {
            match fate {
                Fate::Done if self.aside.contains_key(&event.key) => gone.push(event.position),
                Fate::Done => {}
                Fate::Retry { after, error } => {
                    warn!(%consumer, event.id = %event.id, attempts = attempts + 1, "an event is delivered again later: {error}");
                    aside.push((*event, attempts + 1, *after));
                }
                Fate::Park { error } => {
                    error!(%consumer, event.id = %event.id, attempts = attempts + 1, "an event is parked: {error}");
                    metrics::counter!("switchboard_outbox_parked_total", "consumer" => consumer.clone())
                        .increment(1);
                    outbox::park(pool, &consumer, shard, event, attempts + 1, error).await?;
                }
            }
        }
        if !gone.is_empty() {
            outbox::settle(pool, &consumer, shard, &gone).await?;
        }
        self.put_aside(&aside).await
    }

    async fn put_aside(&mut self, events: &[(&Stored, i32, Duration)]) -> sqlx::Result<()> {
        let pool = self.triggers.postgres.host();
        outbox::postpone(pool, &self.cursor.consumer, self.cursor.shard, events).await?;
        for (event, ..) in events {
            *self.aside.entry(event.key.clone()).or_default() += 1;
        }
        Ok(())
    }

    async fn save_sometimes(&mut self) -> sqlx::Result<Held> {
        if self.cursor == self.saved || self.saved_at.elapsed() < SAVE_EVERY {
            return Ok(Held::Ours);
        }
        self.save().await
    }

    async fn save(&mut self) -> sqlx::Result<Held> {
        if self.cursor == self.saved {
            return Ok(Held::Ours);
        }
        let held = outbox::save(self.triggers.postgres.host(), &self.cursor).await?;
        self.saved_at = Instant::now();
        self.saved = self.cursor.clone();
        Ok(held)
    }

    fn event(&self, stored: &Stored, attempts: i32) -> Event {
        Event {
            id: stored.id.to_string(),
            position: stored.position as u64,
            shard: self.cursor.shard as u32,
            event_type: stored.event_type.clone(),
            key: stored.key.clone(),
            payload: stored.payload.clone(),
            at_ms: stored.created_ms as u64,
            attempt: attempts as u32 + 1,
        }
    }
}
