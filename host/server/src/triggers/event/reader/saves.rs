//! Saving the cursors of a reader.

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, warn};

use super::Reader;
use switchboard_core::limits;
use switchboard_postgres::outbox::Cursor;
use switchboard_postgres::{Error, in_time};

/// Events that were handled since the last save began.
pub(super) struct Unsaved {
    since: Instant,
    last: Instant,
    events: usize,
}

/// A save under way.
pub(super) struct Saving {
    cursors: Vec<Cursor>,
    pub(super) task: JoinHandle<Result<Vec<i16>, Error>>,
}

/// The result of a save: the saved cursors, and the shards that this node still held.
pub(super) type Saved = Result<(Vec<Cursor>, Vec<i16>), Error>;

impl Reader {
    pub(super) fn note_unsaved(&mut self, events: usize) {
        let now = Instant::now();
        let unsaved = self.unsaved.get_or_insert(Unsaved { since: now, last: now, events: 0 });
        unsaved.last = now;
        unsaved.events += events;
    }

    pub(super) fn is_save_due(&self) -> bool {
        let is_due = |unsaved: &Unsaved| self.has_save_failed || unsaved.is_due(Instant::now());
        self.unsaved.as_ref().is_some_and(is_due)
    }

    /// Begins to save every cursor that moved. While another save is under way, nothing happens.
    pub(super) fn begin_save(&mut self) {
        if self.saving.is_some() {
            return;
        }
        self.unsaved = None;
        let moved = self.cursors.values().filter(|state| state.cursor != state.saved);
        let cursors: Vec<Cursor> = moved.map(|state| state.cursor.clone()).collect();
        if cursors.is_empty() {
            return;
        }
        let (outbox, consumer, moved) =
            (self.triggers.postgres.outbox(), self.consumer.clone(), cursors.clone());
        let task = tokio::spawn(async move {
            let moved: Vec<&Cursor> = moved.iter().collect();
            in_time(limits::POSTGRES_HOST_WAIT, outbox.save(&consumer, &moved)).await
        });
        self.saving = Some(Saving { cursors, task });
    }

    /// Takes the result of a save. A shard that another node has claimed meanwhile is removed here.
    pub(super) fn take_saved(&mut self, saved: Saved) -> Result<(), Error> {
        self.has_save_failed = saved.is_err();
        // The cursors that were not saved are saved with the next ones.
        let (cursors, ours) = saved.inspect_err(|_| self.note_unsaved(0))?;
        for saved in cursors {
            let shard = saved.shard;
            // The shard may have been lost and claimed again since the save began.
            let state = self.cursors.get_mut(&shard).filter(|state| state.cursor.is_same_claim(&saved));
            match state {
                Some(state) if ours.contains(&shard) => state.saved = saved,
                Some(_) => drop(self.cursors.remove(&shard)),
                None => {}
            }
        }
        if self.unsaved.is_none() && self.cursors.values().any(|state| state.cursor != state.saved) {
            self.note_unsaved(0);
        }
        self.update_owned_shards();
        Ok(())
    }

    /// Waits for the end of the save under way, if there is one.
    pub(super) async fn end_save(&mut self) -> Result<(), Error> {
        match self.saving {
            Some(_) => {
                let saved = end_of(&mut self.saving).await;
                self.take_saved(saved)
            }
            None => Ok(()),
        }
    }

    async fn save_all(&mut self) -> Result<(), Error> {
        // Its cursors are saved again if it failed.
        let _ = self.end_save().await;
        self.begin_save();
        self.end_save().await
    }

    pub(super) async fn release_shards(mut self) {
        if self.save_all().await.is_err() {
            return;
        }
        for state in self.cursors.values() {
            let outbox = self.triggers.postgres.outbox();
            if let Err(error) = in_time(limits::POSTGRES_HOST_WAIT, outbox.release(&state.cursor)).await {
                warn!(consumer = %self.consumer, shard = state.cursor.shard, %error, "cannot release a shard; another node can claim it when the lease expires");
            }
        }
    }
}

/// Waits for the end of the save under way, for ever without one. Cancel safe.
pub(super) async fn end_of(saving: &mut Option<Saving>) -> Saved {
    let Some(Saving { task, .. }) = saving else { return std::future::pending().await };
    let ended = task.await;
    let cursors = saving.take().map(|saving| saving.cursors).unwrap_or_default();
    match ended {
        Ok(saved) => saved.map(|ours| (cursors, ours)),
        // A save that panicked has saved nothing that is known. The next save names the same cursors.
        Err(error) => {
            error!(%error, "saving the cursors of a consumer panicked; saving them again");
            Ok((Vec::new(), Vec::new()))
        }
    }
}

impl Unsaved {
    /// When the cursors are saved if no event comes before.
    pub(super) fn due_at(&self) -> Instant {
        (self.last + limits::CURSOR_SAVE_IDLE).min(self.since + limits::CURSOR_SAVE_EVERY)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.events >= limits::CURSOR_SAVE_EVENTS_MAX || now >= self.since + limits::CURSOR_SAVE_EVERY
    }
}
