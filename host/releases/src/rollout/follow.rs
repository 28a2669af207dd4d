//! How one node follows the fleet: when the generation has risen, it loads the new releases, swaps its
//! routing table and reports the result.

mod missing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::super::first::FirstFailureObserver;
use super::super::registry::{Candidate, Entry, RoutingTable};
use super::super::repository::{Hint, Report, RepositoryError, Running, TrafficShare, of_postgres};
use super::fleet::{Fleet, in_time};
use super::shadows::Shadows;
use crate::Error;
use missing::MissingReleases;
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_postgres::poll::Poll;
use switchboard_runtime::{Load, Observable};

/// The state that is kept between two passes.
#[derive(Default)]
struct FollowState {
    /// The last generation that was handled. None before the first pass, because an empty fleet has
    /// generation 0.
    generation: Option<i64>,
    /// Handlers of which this node lacks something, by name.
    failed: BTreeMap<String, Failed>,
    /// Reports that are not stored in Postgres yet: the newest one of each handler.
    unreported: BTreeMap<String, Report>,
}

struct Failed {
    generation: i64,
    again_at: Instant,
    wait: Duration,
    lack: Lack,
}

/// A part of a handler's state in the fleet that this node lacks.
#[derive(Clone)]
struct Lack {
    why: String,
    /// True when the running release runs here, but with former inputs. Otherwise it does not load, or it
    /// runs as it should and a candidate lacks something.
    has_former_inputs: bool,
}

impl Lack {
    fn of_release(why: impl ToString) -> Self {
        Self { why: why.to_string(), has_former_inputs: false }
    }
}

/// The loaded releases of a handler.
struct LoadedHandler<R> {
    running: Running,
    release: Arc<R>,
    canary: Option<Candidate<R>>,
    shadow: Option<Candidate<R>>,
    /// Which release has former inputs, or which canary or shadow is missing, and why.
    lack: Option<Lack>,
}

impl<R: Observable> LoadedHandler<R> {
    /// `before` is the present entry of the handler.
    fn entry(self, before: Option<&Entry<R>>) -> Entry<R> {
        let Running { name, digest, generation, selection, .. } = self.running;
        let mut entry = Entry::new(name, digest, generation, self.release);
        if let Some(canary) = self.canary {
            entry.set_canary(canary, selection, before);
        }
        entry.shadow = self.shadow;
        entry
    }
}

/// Makes this node follow the fleet.
pub(super) struct Follower<L: Load> {
    fleet: Arc<Fleet<L>>,
    poll: Poll,
    /// The number of open connections, for the heartbeat.
    connections: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Locked from reading what the fleet runs until this node runs it: two passes at once would undo each
    /// other.
    state: tokio::sync::Mutex<FollowState>,
    /// Notified when the fleet may have switched.
    pub(crate) hint: Arc<Notify>,
    /// Notified when a call of a canary failed.
    pub(crate) canary_failed: Arc<Notify>,
    shadows: Arc<Shadows<L::Release>>,
    missing: MissingReleases,
}

impl<L: Load> Follower<L> {
    pub(crate) fn new(
        fleet: Arc<Fleet<L>>,
        shadows: Arc<Shadows<L::Release>>,
        poll: Poll,
        connections: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            fleet,
            poll,
            connections: Box::new(connections),
            state: tokio::sync::Mutex::new(FollowState::default()),
            hint: Arc::new(Notify::new()),
            canary_failed: Arc::new(Notify::new()),
            shadows,
            missing: MissingReleases::default(),
        }
    }

    pub(crate) async fn join(&self) -> Result<(), RepositoryError> {
        self.poll.once((self.connections)()).await.map_err(|error| of_postgres("join the fleet", &error))?;
        self.converge().await
    }

    pub(crate) async fn run(&self, guard: ShutdownGuard) {
        tokio::join!(
            self.listen_for_hints(guard.clone()),
            self.follow(guard.clone()),
            self.poll_until_the_end(guard),
        );
    }

    pub(crate) fn releases_missing(&self) -> Vec<String> {
        self.missing.messages()
    }

    /// Makes this node run what the fleet should run, as far as it can.
    pub(crate) async fn converge(&self) -> Result<(), RepositoryError> {
        self.converge_from(&mut *self.state.lock().await).await
    }

    async fn converge_from(&self, state: &mut FollowState) -> Result<(), RepositoryError> {
        let generation = in_time("read the fleet's generation", self.fleet.repository.generation()).await?;
        if state.generation == Some(generation)
            && state.unreported.is_empty()
            && !state.has_due(Instant::now())
        {
            return Ok(());
        }
        let wanted = in_time("read the running releases", self.fleet.repository.running()).await?;
        let retired = in_time("read the retired handlers", self.fleet.repository.retired()).await?;
        state.failed.retain(|name, _| wanted.iter().any(|running| running.name == *name));
        self.missing.update(&wanted, &self.fleet.registry.current(), state);
        let mut ready = Vec::new();
        for running in self.pending(state, &wanted) {
            match self.fleet.load_to_follow(running.digest).await {
                Ok((release, former)) => ready.push(self.load_candidates(running, release, former).await?),
                // Postgres failed between two reads: this says nothing about the release.
                Err(Error::Backend(error)) => return Err(error),
                Err(reason) => self.record_failure(state, &running, Lack::of_release(reason)),
            }
        }
        self.swap(state, &wanted, ready);
        let seen = state.generation;
        // A handler in `wanted` was brought back between the two reads.
        let gone = retired.iter().filter(|gone| wanted.iter().all(|running| running.name != gone.name));
        for gone in gone.filter(|gone| seen.is_none_or(|seen| seen < gone.generation)) {
            self.fleet.forget(&gone.name);
            let (name, generation) = (gone.name.clone(), gone.generation);
            state.unreported.insert(name.clone(), Report { name, generation, digest: None, error: None });
        }
        self.missing.update(&wanted, &self.fleet.registry.current(), state);
        state.generation = Some(generation);
        while let Some((name, report)) = state.unreported.pop_first() {
            if let Err(error) = self.fleet.report(&report).await {
                state.unreported.insert(name, report);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Loads the canary and the shadow of a handler. When one does not load here, the running release still
    /// runs, and the failure is reported. `former` says why the running release has former inputs.
    async fn load_candidates(
        &self,
        running: Running,
        release: Arc<L::Release>,
        former: Option<Error>,
    ) -> Result<LoadedHandler<L::Release>, RepositoryError> {
        let has_former_inputs = former.is_some();
        let mut whys: Vec<String> = former.iter().map(Error::to_string).collect();
        let (mut canary, mut shadow) = (None, None);
        for (share, what, slot) in
            [(running.canary, "canary", &mut canary), (running.shadow, "shadow", &mut shadow)]
        {
            let Some(TrafficShare { digest, percent }) = share else { continue };
            let short = digest.short();
            match self.fleet.load_to_follow(digest).await {
                Ok((release, former)) => {
                    let why =
                        |reason: Error| format!("the {what} {short} keeps its former settings: {reason}");
                    whys.extend(former.map(why));
                    *slot = Some(Candidate { digest, release, percent });
                }
                Err(Error::Backend(error)) => return Err(error),
                Err(reason) => {
                    whys.push(format!("the {what} {short} does not run on this node: {reason}"));
                }
            }
        }
        let lack = (!whys.is_empty()).then(|| Lack { why: whys.join("; "), has_former_inputs });
        Ok(LoadedHandler { running, release, canary, shadow, lack })
    }

    /// Returns what should run and does not run here, the oldest switch first, without releases that failed
    /// lately.
    fn pending(&self, state: &FollowState, wanted: &[Running]) -> Vec<Running> {
        let (current, now) = (self.fleet.registry.current(), Instant::now());
        let mut pending: Vec<_> = wanted
            .iter()
            .filter(|running| {
                let here = current.by_name(&running.name).map_or(0, |entry| entry.generation);
                let failed = state.failed.get(&running.name);
                match failed.filter(|failed| failed.generation == running.generation) {
                    Some(failed) => failed.again_at <= now,
                    None => here != running.generation,
                }
            })
            .cloned()
            .collect();
        pending.sort_by_key(|running| running.generation);
        pending
    }

    /// Swaps all loaded releases at once. An old release that stays, because its successor did not load, may
    /// conflict with the others. Then they are swapped one by one, so that as many as possible change.
    fn swap(&self, state: &mut FollowState, wanted: &[Running], ready: Vec<LoadedHandler<L::Release>>) {
        let current = self.fleet.registry.current();
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
        // Retired handlers are removed first: this cannot conflict, and new releases may bind what they
        // bound.
        if !gone.is_empty()
            && let Ok(next) = RoutingTable::of(entries.values().cloned())
        {
            gone.iter().for_each(|entry| self.detach_observers(entry));
            self.fleet.registry.swap(next);
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
                let (running, lack) = (ready.running.clone(), ready.lack.clone());
                let before = current.by_name(&running.name).map(|entry| &**entry);
                let entry = Arc::new(ready.entry(before));
                entries.insert(running.name.clone(), entry.clone());
                (running, lack, entry)
            })
            .collect();
        if let Ok(next) = RoutingTable::of(entries.into_values()) {
            fresh.iter().for_each(|(.., entry)| self.attach_observers(current.by_name(&entry.name), entry));
            self.fleet.registry.swap(next);
            for (running, lack, entry) in fresh {
                self.record_success(state, &running, lack, &entry, &current);
            }
            return;
        }
        for (running, lack, entry) in fresh {
            match self.fleet.registry.current().with(entry.clone()) {
                Ok(next) => {
                    self.attach_observers(current.by_name(&entry.name), &entry);
                    self.fleet.registry.swap(next);
                    self.record_success(state, &running, lack, &entry, &current);
                }
                Err(conflict) => self.record_failure(state, &running, Lack::of_release(conflict)),
            }
        }
    }

    /// Removes the observers of the old releases' calls, and adds those of the new ones. Called before the
    /// first call of a new release.
    fn attach_observers(&self, before: Option<&Arc<Entry<L::Release>>>, after: &Entry<L::Release>) {
        if let Some(before) = before {
            if before.has_releases_of(after) {
                return;
            }
            self.detach_observers(before);
        }
        if let Some(canary) = &after.canary {
            let watch = FirstFailureObserver {
                first: canary.first_failure.clone(),
                canary_failed: self.canary_failed.clone(),
            };
            canary.candidate.release.observer().set(Some(Box::new(watch)));
            canary.candidate.release.stats().keep_calls(Some(canary.canary_calls.clone()));
            after.running.stats().keep_calls(Some(canary.running_calls.clone()));
        }
        if let Some(Candidate { digest, release, percent }) = &after.shadow {
            let sampler = self.shadows.sampler(&after.name, release.clone(), *digest, *percent);
            after.running.observer().set(Some(Box::new(sampler)));
        }
    }

    fn detach_observers(&self, entry: &Entry<L::Release>) {
        entry.running.observer().set(None);
        entry.running.stats().keep_calls(None);
        if let Some(canary) = &entry.canary {
            canary.candidate.release.observer().set(None);
            canary.candidate.release.stats().keep_calls(None);
        }
    }

    fn record_success(
        &self,
        state: &mut FollowState,
        running: &Running,
        lack: Option<Lack>,
        entry: &Entry<L::Release>,
        before: &RoutingTable<L::Release>,
    ) {
        let Running { name, digest, generation, .. } = running;
        if let Some(lack) = lack {
            return self.record_failure(state, running, lack);
        }
        let (release, before) = (digest.short(), before.by_name(name));
        let beside = |share: Option<TrafficShare>, what| {
            share.map_or_else(String::new, |share| {
                format!(", {what} {} at {} %", share.digest.short(), share.percent)
            })
        };
        let (mut canary, shadow) = (beside(running.canary, "canary"), beside(running.shadow, "shadow"));
        if !running.selection.is_empty() {
            canary += &format!(" and for {}", running.selection);
        }
        if before.is_some_and(|before| before.has_releases_of(entry)) {
            info!(handler.name = %name, handler.release = %release, generation, "{name} uses the settings of generation {generation}");
        } else {
            let was = before.map(|entry| entry.digest.short());
            metrics::counter!("switchboard_swaps_total", "handler" => name.clone()).increment(1);
            info!(handler.name = %name, handler.release = %release, handler.was = was, generation, "{name} runs {release}{canary}{shadow}");
        }
        state.failed.remove(name);
        let report =
            Report { name: name.clone(), generation: *generation, digest: Some(*digest), error: None };
        state.unreported.insert(name.clone(), report);
    }

    fn record_failure(&self, state: &mut FollowState, running: &Running, lack: Lack) {
        let Running { name, digest, generation, .. } = running;
        let kept = self.fleet.registry.current().by_name(name).map(|entry| entry.digest);
        let (release, error) = (digest.short(), &lack.why);
        metrics::counter!("switchboard_swaps_refused_total", "handler" => name.clone()).increment(1);
        match kept {
            Some(kept) if kept == *digest && lack.has_former_inputs => {
                warn!(handler.name = %name, handler.release = %release, generation, error, "{name} keeps its former settings on this node: {error}");
            }
            Some(kept) if kept == *digest => {
                warn!(handler.name = %name, handler.release = %release, generation, error, "{name} runs {release} on this node, but not all that the fleet runs: {error}");
            }
            kept => {
                let stays = kept.map_or_else(|| "no release".to_owned(), |digest| digest.short());
                warn!(handler.name = %name, handler.release = %release, generation, error, "release {release} of {name} was refused on this node: {error}; {stays} stays active");
            }
        }
        let wait = match state.failed.get(name) {
            Some(failed) if failed.generation == *generation => {
                (failed.wait * 2).min(limits::LOAD_AGAIN_AFTER_MAX)
            }
            _ => limits::LOAD_AGAIN_AFTER_MIN,
        };
        let report =
            Report { name: name.clone(), generation: *generation, digest: kept, error: Some(error.clone()) };
        state.unreported.insert(name.clone(), report);
        let failed = Failed { generation: *generation, again_at: Instant::now() + wait, wait, lack };
        state.failed.insert(name.clone(), failed);
    }

    /// Follows the polls and the hints.
    async fn follow(&self, mut guard: ShutdownGuard) {
        let mut polls = self.poll.results();
        let mut reachable = true;
        loop {
            let followed = tokio::select! {
                Ok(()) = polls.changed() => {
                    let polled = polls.borrow_and_update().clone();
                    match polled {
                        Some(Ok(snapshot)) => self.converge_to(snapshot.generation, snapshot.is_new_node).await,
                        Some(Err(error)) => Err(of_postgres("poll", &error)),
                        None => continue,
                    }
                }
                () = self.hint.notified() => self.converge().await,
                () = guard.begun() => return,
            };
            // Logged only when the state changes, not at every poll.
            match followed {
                Err(error) if reachable => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(%error, cause, "this node cannot follow the fleet because Postgres does not answer; its handlers keep running as they are");
                    reachable = false;
                }
                Ok(()) if !reachable => {
                    info!("this node follows the fleet again");
                    reachable = true;
                }
                _ => {}
            }
        }
    }

    /// Converges if a poll has shown another generation, or something is left to do. `is_new_node`: the node
    /// was silent for so long that Postgres deleted it with its reports.
    async fn converge_to(&self, generation: i64, is_new_node: bool) -> Result<(), RepositoryError> {
        let mut state = self.state.lock().await;
        if is_new_node {
            self.report_again(&mut state);
        }
        let has_work = !state.unreported.is_empty() || state.has_due(Instant::now());
        if state.generation == Some(generation) && !has_work {
            return Ok(());
        }
        self.converge_from(&mut state).await
    }

    /// Polls, which includes the heartbeats. It does not share a task with `follow`, because a node that
    /// compiles for a long time is not silent.
    async fn poll_until_the_end(&self, guard: ShutdownGuard) {
        self.poll.run(&self.connections, guard).await;
        let _ = in_time("remove a node", self.fleet.repository.leave(self.fleet.node)).await;
    }

    /// Reports all handlers, and those of which this node lacks something with the reason.
    fn report_again(&self, state: &mut FollowState) {
        let current = self.fleet.registry.current();
        for (name, failed) in &state.failed {
            let digest = current.by_name(name).map(|entry| entry.digest);
            let (generation, error) = (failed.generation, Some(failed.lack.why.clone()));
            let report = Report { name: name.clone(), generation, digest, error };
            state.unreported.entry(name.clone()).or_insert(report);
        }
        for entry in current.handlers() {
            let report = Report {
                name: entry.name.clone(),
                generation: entry.generation,
                digest: Some(entry.digest),
                error: None,
            };
            state.unreported.entry(entry.name.clone()).or_insert(report);
        }
    }

    /// Listens for hints. Without them, a poll finds the change a moment later.
    async fn listen_for_hints(&self, mut guard: ShutdownGuard) {
        loop {
            let hints = async {
                let mut hints = self.fleet.repository.hints(self.fleet.node).await?;
                self.poll.set_notified(true);
                // Hints of before were not received.
                self.poll.retry_was_requested();
                loop {
                    let hint = hints.next().await?;
                    if matches!(hint, Hint::Retry | Hint::Anything) {
                        self.poll.retry_was_requested();
                    }
                    if matches!(hint, Hint::Fleet | Hint::Anything) {
                        self.hint.notify_one();
                        self.poll.request();
                    }
                }
            };
            tokio::select! {
                ended = hints => {
                    let ended: Result<(), RepositoryError> = ended;
                    self.poll.set_notified(false);
                    tracing::debug!(error = ?ended.err(), "lost the hints of switches, connecting again");
                }
                () = guard.begun() => return,
            }
            tokio::select! {
                () = sleep_until(Instant::now() + limits::NOTIFICATIONS_AGAIN_AFTER) => {}
                () = guard.begun() => return,
            }
        }
    }
}

impl FollowState {
    fn has_due(&self, now: Instant) -> bool {
        self.failed.values().any(|failed| failed.again_at <= now)
    }
}
