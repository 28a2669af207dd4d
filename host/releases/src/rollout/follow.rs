//! How one node follows the fleet: it asks for the generation, loads what is new, swaps its pointer and says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{info, warn};

use super::super::first::Watch;
use super::super::outcome::Refused;
use super::super::registry::{Bindings, Canary, Entry, Lives, Trial};
use super::super::repository::{Error, Heartbeat, Report, Running, Share};
use super::{Load, Rollout};
use crate::ids::Digest;
use crate::limits;
use crate::shutdown::ShutdownGuard;

/// What the last turn of following left.
#[derive(Default)]
pub(super) struct Turn {
    /// Everything up to here has been dealt with; none before the first turn, for an empty fleet is at 0.
    generation: Option<i64>,
    /// Handlers whose wanted release does not load here, by name.
    failed: BTreeMap<String, Failed>,
    /// Postgres has not taken these yet; the newest of each handler.
    unreported: BTreeMap<String, Report>,
}

struct Failed {
    generation: i64,
    again_at: Instant,
    wait: Duration,
    error: String,
}

/// What the fleet runs and this node does not. Apart from `Turn`, which is locked while a release is compiled.
#[derive(Default)]
pub(super) struct Lacking(Mutex<Option<BTreeMap<String, Lack>>>);

struct Lack {
    digest: Digest,
    since: Instant,
    /// None: it is being loaded.
    error: Option<String>,
}

impl Lacking {
    /// Takes over what the fleet is to run, beside what runs here and why the rest does not.
    fn look<R>(&self, wanted: &[Running], current: &Bindings<R>, turn: &Turn)
    where
        R: Lives,
    {
        let mut lacking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = lacking.take().unwrap_or_default();
        let runs = |running: &Running| {
            current.by_name(&running.name).is_some_and(|entry| entry.digest == running.digest)
        };
        let lacks = wanted.iter().filter(|running| !runs(running)).map(|running| {
            let known = before.remove(&running.name).filter(|lack| lack.digest == running.digest);
            let since = known.map_or_else(Instant::now, |lack| lack.since);
            let failed = turn.failed.get(&running.name);
            let failed = failed.filter(|failed| failed.generation == running.generation);
            let error = failed.map(|failed| failed.error.clone());
            (running.name.clone(), Lack { digest: running.digest, since, error })
        });
        *lacking = Some(lacks.collect());
    }

    fn said(&self) -> Vec<String> {
        let lacking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lacking) = &*lacking else {
            return vec!["what the fleet runs has not been read from Postgres yet".to_owned()];
        };
        let said = lacking.iter().filter_map(|(name, lack)| {
            let release = lack.digest.short();
            match &lack.error {
                Some(error) => Some(format!("`{name}` does not run its release {release} here: {error}")),
                None if lack.since.elapsed() > limits::DEPLOY_WAITS => Some(format!(
                    "`{name}` does not run its release {release} here yet: it is still being loaded"
                )),
                None => None,
            }
        });
        said.collect()
    }
}

/// A handler's releases, loaded.
struct Ready<R> {
    running: Running,
    release: Arc<R>,
    canary: Option<Trial<R>>,
    shadow: Option<Trial<R>>,
    /// What of it is not there, and why.
    lacks: Option<String>,
}

impl<R: Lives> Ready<R> {
    fn entry(self) -> Entry<R> {
        let Running { name, digest, generation, .. } = self.running;
        let mut entry = Entry::new(name, digest, generation, self.release);
        entry.canary = self.canary.map(Canary::new);
        entry.shadow = self.shadow;
        entry
    }
}

impl<L: Load> Rollout<L> {
    /// Until the process ends.
    pub async fn follow(&self, guard: ShutdownGuard) {
        tokio::join!(
            self.listen(guard.clone()),
            self.look(guard.clone()),
            self.guard(guard.clone()),
            self.shadow(guard.clone()),
            self.retry_files(guard.clone()),
            self.beat(guard),
        );
    }

    /// One sentence for each handler whose release, as the fleet runs it, does not run here. A canary or a shadow that does
    /// not load is none: everybody gets the running release.
    pub fn releases_missing(&self) -> Vec<String> {
        self.lacking.said()
    }

    /// Makes this node run what the fleet is to run, as far as it can.
    pub(super) async fn converge(&self) -> Result<(), Error> {
        let mut turn = self.turn.lock().await;
        let generation = in_time("say the fleet's generation", self.repository.generation()).await?;
        if turn.generation == Some(generation) && turn.unreported.is_empty() && !turn.has_due(Instant::now())
        {
            return Ok(());
        }
        let wanted = in_time("say what runs", self.repository.running()).await?;
        let retired = in_time("say what is retired", self.repository.retired()).await?;
        turn.failed.retain(|name, _| wanted.iter().any(|running| running.name == *name));
        self.lacking.look(&wanted, &self.registry.current(), &turn);
        let mut ready = Vec::new();
        for running in self.news(&turn, &wanted) {
            match self.known(running.digest).await {
                Ok(release) => ready.push(self.beside(running, release).await?),
                // Postgres went away between two questions: no verdict on the release.
                Err(Refused::Backend(error)) => return Err(error),
                Err(reason) => self.refuses(&mut turn, &running, reason.to_string()),
            }
        }
        self.swap(&mut turn, &wanted, ready);
        let seen = turn.generation;
        // What is in `wanted` was brought back between the two questions.
        let gone = retired.iter().filter(|gone| wanted.iter().all(|running| running.name != gone.name));
        for gone in gone.filter(|gone| seen.is_none_or(|seen| seen < gone.generation)) {
            self.loaded().forget(&gone.name);
            let (name, generation) = (gone.name.clone(), gone.generation);
            turn.unreported.insert(name.clone(), Report { name, generation, digest: None, error: None });
        }
        self.lacking.look(&wanted, &self.registry.current(), &turn);
        turn.generation = Some(generation);
        while let Some((name, report)) = turn.unreported.pop_first() {
            if let Err(error) = self.repository.report(self.node, &report).await {
                turn.unreported.insert(name, report);
                return Err(error);
            }
        }
        Ok(())
    }

    /// With its trials. One that does not load here leaves the running release alone, and is reported.
    async fn beside(&self, running: Running, release: Arc<L::Release>) -> Result<Ready<L::Release>, Error> {
        let (mut canary, mut shadow, mut lacks) = (None, None, None);
        for (share, what, place) in
            [(running.canary, "canary", &mut canary), (running.shadow, "shadow", &mut shadow)]
        {
            let Some(Share { digest, percent }) = share else { continue };
            match self.known(digest).await {
                Ok(release) => *place = Some(Trial { digest, release, percent }),
                Err(Refused::Backend(error)) => return Err(error),
                Err(reason) => {
                    lacks = Some(format!("its {what} {} does not run here: {reason}", digest.short()));
                }
            }
        }
        Ok(Ready { running, release, canary, shadow, lacks })
    }

    /// What is wanted and does not run here, the oldest switch first; without what failed lately.
    fn news(&self, turn: &Turn, wanted: &[Running]) -> Vec<Running> {
        let (current, now) = (self.registry.current(), Instant::now());
        let mut news: Vec<_> = wanted
            .iter()
            .filter(|running| {
                let here = current.by_name(&running.name).map_or(0, |entry| entry.generation);
                let failed = turn.failed.get(&running.name);
                match failed.filter(|failed| failed.generation == running.generation) {
                    Some(failed) => failed.again_at <= now,
                    None => here != running.generation,
                }
            })
            .cloned()
            .collect();
        news.sort_by_key(|running| running.generation);
        news
    }

    /// One swap for all that is ready. What is kept in place of a release that did not load may be in the way of the
    /// others: then one by one, so that as much as possible moves.
    fn swap(&self, turn: &mut Turn, wanted: &[Running], ready: Vec<Ready<L::Release>>) {
        let current = self.registry.current();
        let mut entries: BTreeMap<String, Arc<Entry<L::Release>>> = current
            .handlers()
            .filter(|entry| wanted.iter().any(|running| running.name == entry.name))
            .map(|entry| (entry.name.clone(), entry.clone()))
            .collect();
        let gone: Vec<_> =
            current.handlers().filter(|entry| !entries.contains_key(&entry.name)).cloned().collect();
        if ready.is_empty() && gone.is_empty() {
            return;
        }
        // First and by itself: it cannot be in the way of anything, and what comes may bind what it bound.
        if !gone.is_empty()
            && let Ok(next) = Bindings::of(entries.values().cloned())
        {
            gone.iter().for_each(|entry| self.unwatch(entry));
            self.registry.swap(next);
            for entry in gone {
                info!(handler.name = %entry.name, handler.was = entry.digest.short(), "{} is retired", entry.name);
            }
        }
        if ready.is_empty() {
            return;
        }
        let fresh: Vec<_> = ready
            .into_iter()
            .map(|ready| {
                let (running, lacks) = (ready.running.clone(), ready.lacks.clone());
                let entry = Arc::new(ready.entry());
                entries.insert(running.name.clone(), entry.clone());
                (running, lacks, entry)
            })
            .collect();
        if let Ok(next) = Bindings::of(entries.into_values()) {
            fresh.iter().for_each(|(.., entry)| self.witnesses(current.by_name(&entry.name), entry));
            self.registry.swap(next);
            for (running, lacks, _) in fresh {
                self.took(turn, &running, lacks, &current);
            }
            return;
        }
        for (running, lacks, entry) in fresh {
            match self.registry.current().with(entry.clone()) {
                Ok(next) => {
                    self.witnesses(current.by_name(&entry.name), &entry);
                    self.registry.swap(next);
                    self.took(turn, &running, lacks, &current);
                }
                Err(conflict) => self.refuses(turn, &running, conflict.to_string()),
            }
        }
    }

    /// Before the first call: whoever looks at calls of what stood here goes, whoever looks at calls of `after` comes.
    fn witnesses(&self, before: Option<&Arc<Entry<L::Release>>>, after: &Entry<L::Release>) {
        if let Some(before) = before {
            self.unwatch(before);
        }
        if let Some(canary) = &after.canary {
            let watch = Watch { first: canary.first_failure.clone(), alarm: self.alarm.clone() };
            canary.trial.release.observer().set(Some(Box::new(watch)));
            canary.trial.release.stats().keep_calls(Some(canary.calls.clone()));
            after.running.stats().keep_calls(Some(canary.calls_beside.clone()));
        }
        if let Some(Trial { digest, release, percent }) = &after.shadow {
            let sample = self.shadows.sample(&after.name, release.clone(), *digest, *percent);
            after.running.observer().set(Some(Box::new(sample)));
        }
    }

    fn unwatch(&self, entry: &Entry<L::Release>) {
        entry.running.observer().set(None);
        entry.running.stats().keep_calls(None);
        if let Some(canary) = &entry.canary {
            canary.trial.release.observer().set(None);
            canary.trial.release.stats().keep_calls(None);
        }
    }

    fn took(&self, turn: &mut Turn, running: &Running, lacks: Option<String>, before: &Bindings<L::Release>) {
        let Running { name, digest, generation, .. } = running;
        if let Some(lacks) = lacks {
            return self.refuses(turn, running, lacks);
        }
        let (release, was) = (digest.short(), before.by_name(name).map(|entry| entry.digest.short()));
        metrics::counter!("switchboard_swaps_total", "handler" => name.clone()).increment(1);
        let beside = |share: Option<Share>, what| {
            share.map_or_else(String::new, |share| {
                format!(", {what} {} at {} %", share.digest.short(), share.percent)
            })
        };
        let (canary, shadow) = (beside(running.canary, "canary"), beside(running.shadow, "shadow"));
        info!(handler.name = %name, handler.release = %release, handler.was = was, generation, "{name} runs {release}{canary}{shadow}");
        turn.failed.remove(name);
        let report =
            Report { name: name.clone(), generation: *generation, digest: Some(*digest), error: None };
        turn.unreported.insert(name.clone(), report);
    }

    fn refuses(&self, turn: &mut Turn, running: &Running, error: String) {
        let Running { name, digest, generation, .. } = running;
        let kept = self.registry.current().by_name(name).map(|entry| entry.digest);
        let release = digest.short();
        metrics::counter!("switchboard_swaps_refused_total", "handler" => name.clone()).increment(1);
        let stays = kept.map_or_else(|| "no release".to_owned(), |digest| digest.short());
        warn!(handler.name = %name, handler.release = %release, generation, error, "kept {name} at {stays}");
        let wait = match turn.failed.get(name) {
            Some(failed) if failed.generation == *generation => {
                (failed.wait * 2).min(limits::LOAD_AGAIN_AFTER_MAX)
            }
            _ => limits::LOAD_AGAIN_AFTER_MIN,
        };
        let again_at = Instant::now() + wait;
        let failed = Failed { generation: *generation, again_at, wait, error: error.clone() };
        turn.failed.insert(name.clone(), failed);
        let report = Report { name: name.clone(), generation: *generation, digest: kept, error: Some(error) };
        turn.unreported.insert(name.clone(), report);
    }

    async fn look(&self, mut guard: ShutdownGuard) {
        let mut tick = interval(limits::FOLLOW_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reachable = true;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.hint.notified() => {}
                () = guard.begun() => return,
            }
            // Said once at each turn for the worse or the better, not four times a second.
            match self.converge().await {
                Err(error) if reachable => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(%error, cause, "cannot follow the fleet; handlers go on as they are");
                    reachable = false;
                }
                Ok(()) if !reachable => {
                    info!("following the fleet again");
                    reachable = true;
                }
                _ => {}
            }
        }
    }

    /// Apart from `look`: a node that compiles for long is not a silent one.
    async fn beat(&self, mut guard: ShutdownGuard) {
        let mut tick = interval(limits::HEARTBEAT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = guard.begun() => break,
            }
            let said = in_time("note a heartbeat", self.repository.heartbeat(&self.heartbeat())).await;
            match said {
                Ok(false) => {}
                // Silent for so long that it was forgotten, with what it had reported.
                Ok(true) => self.report_again(&mut *self.turn.lock().await),
                Err(error) => tracing::debug!(%error, "no heartbeat; `look` says so aloud"),
            }
        }
        let _ = in_time("let a node leave", self.repository.leave(self.node)).await;
    }

    fn report_again(&self, turn: &mut Turn) {
        for entry in self.registry.current().handlers() {
            let report = Report {
                name: entry.name.clone(),
                generation: entry.generation,
                digest: Some(entry.digest),
                error: None,
            };
            turn.unreported.entry(entry.name.clone()).or_insert(report);
        }
    }

    /// Hints only: `look` comes around without them.
    async fn listen(&self, mut guard: ShutdownGuard) {
        loop {
            let hints = async {
                let mut hints = self.repository.hints(self.node).await?;
                loop {
                    hints.next().await?;
                    self.hint.notify_one();
                }
            };
            tokio::select! {
                ended = hints => {
                    let ended: Result<(), Error> = ended;
                    tracing::debug!(error = ?ended.err(), "no hints of switches, asking again");
                }
                () = guard.begun() => return,
            }
            tokio::select! {
                () = sleep_until(Instant::now() + limits::HINTS_AGAIN_AFTER) => {}
                () = guard.begun() => return,
            }
        }
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat { node: self.node, admin: self.admin, connections: (self.connections)() }
    }
}

impl Turn {
    fn has_due(&self, now: Instant) -> bool {
        self.failed.values().any(|failed| failed.again_at <= now)
    }
}

/// A server that hangs is no better than one that is gone.
async fn in_time<T>(
    attempt: &'static str,
    asked: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limits::FOLLOW_WAITS, asked).await.unwrap_or_else(|_| Err(Error::timed_out(attempt)))
}
