//! The shards that one consumer has on this node: read, deliver, settle, move on. All of them in one go, because what a
//! batch costs hardly depends on its size. Cursors are saved now and then; what was handled since comes once more after a
//! crash.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, warn};
use uuid::Uuid;

use super::super::{Triggers, told};
use super::consumer;
use super::delivery::{Delivered, Fate, deliver};
use switchboard_contract::event::Event;
use switchboard_core::limits;
use switchboard_core::manifest::EventBinding;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_fanout::wakes::Listener;
use switchboard_postgres::outbox::{self, Cursor, Feed, Heads, Page, Stored, Waiting};
use switchboard_runtime::{Call, LoadedRelease};
use switchboard_telemetry::spans;

const TICK: Duration = Duration::from_millis(limits::OUTBOX_TICK_MS);
const SAVE_EVERY: Duration = Duration::from_millis(limits::CURSOR_SAVE_MS);
/// An operator's replay is noticed within this.
const LOOK_ASIDE_EVERY: Duration = Duration::from_secs(1);
/// Wait after a failure of Postgres.
const BACK_OFF: Duration = Duration::from_millis(200);

/// What the keeper of the leases tells.
pub(super) enum Lease {
    Claimed(Cursor),
    /// Another node has it.
    Lost(i16),
}

pub(super) struct Reader {
    triggers: Arc<Triggers>,
    consumer: String,
    feed: Feed,
    places: BTreeMap<i16, Place>,
    leases: mpsc::Receiver<Lease>,
    heads: watch::Receiver<Heads>,
    ear: Listener,
    guard: ShutdownGuard,
    saved_at: Instant,
    read_at: Option<Instant>,
    looked_aside_at: Option<Instant>,
    failing: bool,
}

/// How far it is in one shard.
struct Place {
    cursor: Cursor,
    /// As in the database.
    saved: Cursor,
    /// Keys with events put aside, and how many: later events of such a key are put behind them.
    aside: HashMap<String, i64>,
    /// Something said that there may be more than the heads tell.
    woken: bool,
    /// So many events wait for a retry that no more may join them.
    choked: bool,
}

/// What a step fails of.
enum Trouble {
    Read(outbox::Error),
    Said(sqlx::Error),
}

/// What to do after a step.
enum Next {
    /// There may be more at once.
    Go,
    /// Until something happens, at most so long.
    Wait(Duration),
    /// Until this moment, whatever happens: the handler wants the events later, or nothing can be done now.
    Hold(Duration),
    /// Until this moment: the next read comes at the pace that the manifest sets.
    Pace(Duration),
    /// Nothing consumes any more.
    End,
}

impl Reader {
    pub(super) fn new(
        triggers: Arc<Triggers>,
        consumer: String,
        heads: watch::Receiver<Heads>,
        leases: mpsc::Receiver<Lease>,
        guard: ShutdownGuard,
    ) -> Self {
        Self {
            ear: triggers.wakes.listen(),
            feed: triggers.postgres.feed(),
            triggers,
            consumer,
            places: BTreeMap::new(),
            leases,
            heads,
            guard,
            saved_at: Instant::now(),
            read_at: None,
            looked_aside_at: None,
            failing: false,
        }
    }

    pub(super) async fn run(mut self) {
        while !self.guard.has_begun() {
            while let Ok(lease) = self.leases.try_recv() {
                self.take(lease);
            }
            let next = match self.step().await {
                Ok(next) => {
                    self.failing = false;
                    self.note(self.held_by(&next));
                    next
                }
                Err(error) => {
                    if let Trouble::Said(error) = &error {
                        self.triggers.postgres.note(error);
                    }
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!(consumer = %self.consumer, %error, "the outbox cannot be read");
                    }
                    self.note(Some(format!("the outbox cannot be read: {error}")));
                    Next::Hold(BACK_OFF)
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
                lease = self.leases.recv() => match lease {
                    Some(lease) => self.take(lease),
                    None => break,
                },
                woken = self.ear.woken(), if listening => self.wake(&woken),
                _ = self.heads.changed(), if listening => {}
                () = tokio::time::sleep(most) => {}
            }
        }
        self.give_back().await;
    }

    fn take(&mut self, lease: Lease) {
        match lease {
            Lease::Claimed(cursor) => {
                let place = Place {
                    saved: cursor.clone(),
                    cursor,
                    aside: HashMap::new(),
                    woken: true,
                    choked: false,
                };
                self.places.insert(place.cursor.shard, place);
                self.looked_aside_at = None;
            }
            Lease::Lost(shard) => {
                self.places.remove(&shard);
            }
        }
        self.tell_what_is_owned();
    }

    /// For readiness: how far the cursors are, and what holds them up.
    fn note(&self, held_by: Option<String>) {
        let cursors = self.places.values().map(|place| (place.cursor.shard, place.cursor.high()));
        self.triggers.progress.step(&self.consumer, cursors, held_by, Instant::now());
    }

    fn held_by(&self, next: &Next) -> Option<String> {
        if self.places.values().any(|place| place.choked) {
            return Some(format!("{} of its events wait for a retry in one shard", limits::RETRIES_MAX));
        }
        matches!(next, Next::Hold(_))
            .then(|| "its handler holds the events back, or has no free slot".to_owned())
    }

    fn tell_what_is_owned(&self) {
        self.ear.set_owned(&self.places.keys().map(|shard| *shard as u32).collect::<Vec<_>>());
    }

    fn wake(&mut self, shards: &[u32]) {
        for place in self.places.values_mut() {
            place.woken |= shards.contains(&(place.cursor.shard as u32));
        }
    }

    async fn step(&mut self) -> Result<Next, Trouble> {
        let Some((release, binding)) = consumer::find(&self.triggers, &self.consumer) else {
            return Ok(Next::End);
        };
        if let Some(hold) = self.retry(&release, &binding).await? {
            return Ok(Next::Hold(hold));
        }
        let pace = Duration::from_millis(u64::from(binding.pace_ms));
        let heads = *self.heads.borrow_and_update();
        self.places.values_mut().for_each(|place| place.see_whether_choked(&self.consumer));
        let behind: Vec<&Cursor> = self
            .places
            .values()
            .filter(|place| place.may_have_more(&heads) && !place.choked)
            .map(|place| &place.cursor)
            .collect();
        if behind.is_empty() {
            return Ok(self.rest().await?);
        }
        if let Some(rest) = self.read_at.and_then(|at| pace.checked_sub(at.elapsed())) {
            return Ok(Next::Pace(rest));
        }
        let most = (binding.batch as usize).div_ceil(behind.len());
        let read_at = Instant::now();
        let pages = self.feed.read(&behind, &heads, most).await?;
        // Who is far behind does not pace.
        self.read_at = pages.iter().all(|page| page.events.len() < most).then_some(read_at);
        let something = pages.iter().any(|page| !page.events.is_empty());
        let next = if something {
            self.handle(&release, &binding, pages).await?
        } else {
            self.pass(pages);
            let through = self.places.values().all(|place| !place.may_have_more(&heads));
            // A writer that is not done, or was rolled back.
            if through { Next::Go } else { Next::Wait(TICK) }
        };
        self.save_sometimes().await?;
        Ok(next)
    }

    /// Nothing to read.
    async fn rest(&mut self) -> sqlx::Result<Next> {
        self.save_sometimes().await?;
        let all_saved = self.places.values().all(|place| place.cursor == place.saved);
        let none_aside = self.places.values().all(|place| place.aside.is_empty());
        Ok(match self.looked_aside_at {
            // Events wait behind each other, one of a key at a time: the next may be due already.
            None if !self.places.is_empty() => Next::Go,
            _ if !none_aside => Next::Wait(TICK),
            _ if all_saved => Next::Wait(LOOK_ASIDE_EVERY),
            _ => Next::Wait(SAVE_EVERY),
        })
    }

    /// Pages without events still move cursors: holes close.
    fn pass(&mut self, pages: Vec<Page>) {
        for page in pages {
            if let Some(place) = self.places.get_mut(&page.after.shard) {
                place.woken = !page.events.is_empty();
                place.cursor = page.after;
            }
        }
    }

    /// A batch from the cursors on.
    async fn handle(
        &mut self,
        release: &Arc<LoadedRelease>,
        binding: &EventBinding,
        pages: Vec<Page>,
    ) -> sqlx::Result<Next> {
        let events: Vec<&Stored> = pages.iter().flat_map(|page| &page.events).collect();
        let bound = |event: &Stored| binding.types.iter().any(|pattern| pattern.matches(&event.event_type));
        let (waiting, fresh): (Vec<_>, Vec<_>) = events
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, event)| bound(event))
            .partition(|(_, event)| self.waits(event));
        let batch = fresh.iter().map(|(_, event)| delivery_of(event, 0)).collect();
        let delivered = self.deliver(release, binding, batch).await;

        // Up to the first event that nobody looked at.
        let handled = fresh.get(delivered.fates.len()).map_or(events.len(), |(at, _)| *at);
        let fates: Vec<_> =
            fresh.iter().zip(&delivered.fates).map(|((_, event), fate)| (*event, 0, fate)).collect();
        self.settle(release, &fates).await?;
        let behind: Vec<_> = waiting
            .iter()
            .filter(|(at, _)| *at < handled)
            .map(|(_, event)| (*event, 0, Duration::ZERO))
            .collect();
        self.put_aside(&behind).await?;
        metrics::counter!("switchboard_outbox_events_total", "consumer" => self.consumer.clone())
            .increment(handled as u64);

        let mut left = handled;
        for page in pages {
            let count = left.min(page.events.len());
            left -= count;
            let Some(place) = self.places.get_mut(&page.after.shard) else { continue };
            // There may be more, or the rest of these.
            place.woken = !page.events.is_empty();
            if count == page.events.len() {
                place.cursor = page.after;
            } else {
                place.cursor.pass(&page.events[..count]);
            }
        }
        Ok(delivered.hold.map_or(Next::Go, Next::Hold))
    }

    /// What was put aside and is due. Returns how long to hold, where the handler asks for it.
    async fn retry(
        &mut self,
        release: &Arc<LoadedRelease>,
        binding: &EventBinding,
    ) -> sqlx::Result<Option<Duration>> {
        let now = Instant::now();
        let none_aside = self.places.values().all(|place| place.aside.is_empty());
        let often = if none_aside { LOOK_ASIDE_EVERY } else { TICK };
        if self.places.is_empty() || self.looked_aside_at.is_some_and(|at| now < at + often) {
            return Ok(None);
        }
        let pool = self.triggers.postgres.host();
        let shards: Vec<i16> = self.places.keys().copied().collect();
        let waiting = outbox::waiting_keys(pool, &self.consumer, &shards).await?;
        self.places.values_mut().for_each(|place| place.aside.clear());
        self.looked_aside_at = Some(now);
        if waiting.is_empty() {
            return Ok(None);
        }
        for (shard, key, count) in waiting {
            if let Some(place) = self.places.get_mut(&shard) {
                place.aside.insert(key, count);
            }
        }
        let due: Vec<Waiting> = outbox::due(pool, &self.consumer, &shards, binding.batch as usize).await?;
        let batch = due.iter().map(|waiting| delivery_of(&waiting.event, waiting.attempts)).collect();
        let delivered = self.deliver(release, binding, batch).await;
        let fates: Vec<_> = due
            .iter()
            .zip(&delivered.fates)
            .map(|(waiting, fate)| (&waiting.event, waiting.attempts, fate))
            .collect();
        self.settle(release, &fates).await?;
        if fates.iter().any(|(.., fate)| **fate == Fate::Done) {
            // The next of the same key may go at once.
            self.looked_aside_at = None;
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
        let call = |events: Vec<Event>| {
            let (triggers, release) = (self.triggers.clone(), release.clone());
            async move {
                let waker = spans::waker(events.iter().map(|event| event.shard));
                let call = Call { id: Uuid::now_v7().to_string(), principal: None, connection: None };
                let call_id = call.id.clone();
                let answer = spans::under(waker, triggers.runtime.event(&release, call, events)).await;
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
    async fn settle(&mut self, release: &LoadedRelease, fates: &[(&Stored, i32, &Fate)]) -> sqlx::Result<()> {
        let (pool, consumer) = (self.triggers.postgres.host(), &self.consumer);
        let mut aside = Vec::new();
        let mut gone = Vec::new();
        for (event, attempts, fate) in fates {
            match fate {
                Fate::Done if self.waits(event) => gone.push(*event),
                Fate::Done => {}
                Fate::Retry { after, error } => {
                    warn!(
                        %consumer,
                        handler.name = release.name(),
                        handler.release = %release.digest.short(),
                        event.id = %event.id,
                        attempts = attempts + 1,
                        "an event is delivered again later: {error}",
                    );
                    aside.push((*event, attempts + 1, *after));
                }
                Fate::Park { error } => {
                    error!(
                        %consumer,
                        handler.name = release.name(),
                        handler.release = %release.digest.short(),
                        event.id = %event.id,
                        attempts = attempts + 1,
                        "an event is parked: {error}",
                    );
                    metrics::counter!("switchboard_outbox_parked_total", "consumer" => consumer.clone())
                        .increment(1);
                    outbox::park(pool, consumer, event, attempts + 1, error).await?;
                }
            }
        }
        outbox::settle(pool, consumer, &gone).await?;
        self.put_aside(&aside).await
    }

    async fn put_aside(&mut self, events: &[(&Stored, i32, Duration)]) -> sqlx::Result<()> {
        outbox::postpone(self.triggers.postgres.host(), &self.consumer, events).await?;
        for (event, ..) in events {
            if let Some(place) = self.places.get_mut(&event.shard) {
                *place.aside.entry(event.key.clone()).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Earlier events of its key were put aside.
    fn waits(&self, event: &Stored) -> bool {
        self.places.get(&event.shard).is_some_and(|place| place.aside.contains_key(&event.key))
    }

    async fn save_sometimes(&mut self) -> sqlx::Result<()> {
        if self.saved_at.elapsed() < SAVE_EVERY { Ok(()) } else { self.save().await }
    }

    /// Every cursor that moved. A shard that another node has claimed meanwhile is given up.
    async fn save(&mut self) -> sqlx::Result<()> {
        let moved: Vec<&Cursor> =
            self.places.values().filter(|p| p.cursor != p.saved).map(|p| &p.cursor).collect();
        if moved.is_empty() {
            return Ok(());
        }
        let shards: Vec<i16> = moved.iter().map(|cursor| cursor.shard).collect();
        let ours = outbox::save(self.triggers.postgres.host(), &self.consumer, &moved).await?;
        self.saved_at = Instant::now();
        self.places.retain(|shard, _| ours.contains(shard) || !shards.contains(shard));
        for shard in ours {
            if let Some(place) = self.places.get_mut(&shard) {
                place.saved = place.cursor.clone();
            }
        }
        self.tell_what_is_owned();
        Ok(())
    }

    async fn give_back(mut self) {
        if self.save().await.is_err() {
            return;
        }
        for place in self.places.values() {
            if let Err(error) = outbox::release(self.triggers.postgres.host(), &place.cursor).await {
                // The lease runs out by itself.
                warn!(consumer = %self.consumer, shard = place.cursor.shard, %error, "cannot give a shard back");
            }
        }
    }
}

impl Place {
    fn may_have_more(&self, heads: &Heads) -> bool {
        self.woken || !self.cursor.is_through(heads[self.cursor.shard as usize])
    }

    fn see_whether_choked(&mut self, consumer: &str) {
        let was =
            std::mem::replace(&mut self.choked, self.aside.values().sum::<i64>() >= limits::RETRIES_MAX);
        if self.choked && !was {
            error!(consumer, shard = self.cursor.shard, "too many events wait for a retry, the shard stands");
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

impl From<outbox::Error> for Trouble {
    fn from(error: outbox::Error) -> Self {
        Self::Read(error)
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Said(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Said(error) => error.fmt(f),
        }
    }
}
