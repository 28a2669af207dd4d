//! Which release answers which request: one immutable routing table behind one atomic pointer. Swapping a
//! release replaces the pointer and nothing else. A call that took its release before the swap finishes on
//! it.
//!
//! This module loads and stores nothing: `rollout` sets routing tables, and `triggers` look releases up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::first::FirstFailure;
use super::selection::{CallOrigin, Selection};
use switchboard_core::hash::fnv1a;
use switchboard_core::ids::{Address, Digest};
use switchboard_core::limits;
use switchboard_core::manifest::{
    EventBinding, FrameBinding, HookBinding, HttpBinding, Manifest, OnFailure, Pattern, ScheduleBinding,
    TimerBinding,
};
use switchboard_runtime::{CallLog, Callees, HasManifest, LoadedRelease};

/// The pointer to the routing table, shared by everything that calls handlers.
pub struct Registry<R = LoadedRelease> {
    current: ArcSwap<RoutingTable<R>>,
    changes: watch::Sender<u64>,
}

impl<R: HasManifest> Registry<R> {
    /// A routing table without handlers.
    pub fn new() -> Self {
        Self { current: ArcSwap::from_pointee(RoutingTable::empty()), changes: watch::Sender::new(0) }
    }

    /// Returns the current table. Hold it for one decision only, because it keeps old releases alive.
    pub fn current(&self) -> Arc<RoutingTable<R>> {
        self.current.load_full()
    }

    /// Replaces the table: new calls see `next` from here on. Subscribers of `changes` are notified
    /// afterwards.
    pub fn swap(&self, next: RoutingTable<R>) {
        self.current.store(Arc::new(next));
        self.changes.send_modify(|count| *count += 1);
    }

    /// A counter that rises with every swap, for code that depends on the schedules and consumers.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl<R: HasManifest> Default for Registry<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// The releases of one handler.
pub struct Entry<R = LoadedRelease> {
    pub name: String,
    /// The digest of `running`, as log lines and metrics name it.
    pub digest: Digest,
    /// The generation rises with every switch in the fleet, so that two nodes can tell which entry is newer.
    pub generation: i64,
    pub running: Arc<R>,
    /// Shared with the entry that follows it, while the canary stays the same.
    pub canary: Option<Arc<Canary<R>>>,
    /// Gets a copy of some calls of `running`. Its answers are not used.
    pub shadow: Option<Candidate<R>>,
}

/// A canary or a shadow, with its percentage. It binds at least what the running release binds.
pub struct Candidate<R = LoadedRelease> {
    pub digest: Digest,
    pub release: Arc<R>,
    pub percent: u8,
}

impl<R> Candidate<R> {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.release, &other.release) && self.percent == other.percent
    }
}

/// A candidate that answers some of the users.
pub struct Canary<R = LoadedRelease> {
    pub candidate: Candidate<R>,
    /// Whom it answers beside its percentage of the users.
    selection: Selection,
    /// The calls of the canary since it began.
    pub canary_calls: Arc<CallLog>,
    /// The calls of the running release since the canary began.
    pub running_calls: Arc<CallLog>,
    pub begun_at: Instant,
    pub first_failure: FirstFailure,
    /// True when this node found the canary worse: it gets no calls here while it is withdrawn in the fleet.
    given_up: AtomicBool,
}

impl<R> Canary<R> {
    fn new(candidate: Candidate<R>, selection: Selection) -> Self {
        Self {
            candidate,
            selection,
            canary_calls: Arc::default(),
            running_calls: Arc::default(),
            begun_at: Instant::now(),
            first_failure: FirstFailure::default(),
            given_up: AtomicBool::new(false),
        }
    }

    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

impl<R> Entry<R> {
    pub fn new(name: impl Into<String>, digest: Digest, generation: i64, running: Arc<R>) -> Self {
        Self { name: name.into(), digest, generation, running, canary: None, shadow: None }
    }

    /// Makes a release the canary. If it is the canary of `before` already, for the same users and beside the
    /// same running release, it continues with its calls and its judgement.
    pub fn set_canary(&mut self, candidate: Candidate<R>, selection: Selection, before: Option<&Self>) {
        let same = before
            .filter(|before| Arc::ptr_eq(&before.running, &self.running))
            .and_then(|before| before.canary.as_ref())
            .filter(|canary| canary.candidate.is_same(&candidate) && canary.selection == selection);
        let canary = same.map_or_else(|| Arc::new(Canary::new(candidate, selection)), Arc::clone);
        self.canary = Some(canary);
    }

    /// Whether both entries have the same loaded releases in the same roles. Then only their inputs differ.
    pub fn has_releases_of(&self, other: &Self) -> bool {
        let same_canary = match (&self.canary, &other.canary) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let same_shadow = match (&self.shadow, &other.shadow) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_same(other),
            _ => false,
        };
        Arc::ptr_eq(&self.running, &other.running) && same_canary && same_shadow
    }

    /// Returns the loaded release with this digest, if the entry has it in any role.
    pub fn release(&self, digest: Digest) -> Option<&Arc<R>> {
        if self.digest == digest {
            return Some(&self.running);
        }
        let canary = self.canary.as_ref().map(|canary| &canary.candidate);
        let mut candidates = canary.into_iter().chain(&self.shadow);
        candidates.find(|candidate| candidate.digest == digest).map(|candidate| &candidate.release)
    }

    /// Picks the release for a user, or for the subject of a call without a user. A subject always gets the
    /// same release while the percentage stays, and a canary keeps its users when the percentage rises.
    pub fn pick(&self, subject: &str) -> &Arc<R> {
        self.pick_for(&CallOrigin::of(subject))
    }

    /// The same for a caller of whom more is known than the user. Callers whom the canary selects get it,
    /// whatever the percentage.
    pub fn pick_for(&self, origin: &CallOrigin<'_>) -> &Arc<R> {
        let is_of = |canary: &Canary<R>| {
            percentile(&self.name, origin.subject) < canary.candidate.percent
                || canary.selection.selects(origin)
        };
        match &self.canary {
            Some(canary) if !canary.is_given_up() && is_of(canary) => &canary.candidate.release,
            _ => &self.running,
        }
    }
}

/// True when a call is in the sample of a shadow. It depends on the call's id and not on its user, so that
/// over time every user is in the sample.
pub(super) fn sampled(handler: &str, call: &str, percent: u8) -> bool {
    percentile(handler, call) < percent
}

/// The hundredth that a user is in, the same on every node and in every version. The handler's name is part
/// of the hash; otherwise every canary would get the same users.
fn percentile(handler: &str, user: &str) -> u8 {
    let hash = fnv1a(handler.bytes().chain(*b"/").chain(user.bytes()));
    // The low bits of FNV are weak for short texts; the high half is not.
    u8::try_from((hash >> 32) % 100).unwrap_or(0)
}

/// The routing table: which handler answers what. Immutable.
pub struct RoutingTable<R = LoadedRelease> {
    handlers: BTreeMap<String, Arc<Entry<R>>>,
    /// One router for each method, because one path may belong to two handlers, one for GET and one for POST.
    http: BTreeMap<String, matchit::Router<HttpTarget<R>>>,
    frames: HashMap<String, FrameTarget<R>>,
    opened: Vec<Arc<Entry<R>>>,
    closed: Vec<Arc<Entry<R>>>,
    touched: Vec<Arc<Entry<R>>>,
    missed: Vec<(Pattern, Arc<Entry<R>>)>,
    schedules: Vec<Schedule<R>>,
    consumers: Vec<Consumer<R>>,
    /// The hooks of each action that has some, in the order of their calls.
    hooks: HashMap<String, Vec<Hook<R>>>,
    timers: Vec<TimerTarget<R>>,
}

struct HttpTarget<R> {
    entry: Arc<Entry<R>>,
    pattern: String,
    public: bool,
    action: Option<String>,
}

struct FrameTarget<R> {
    entry: Arc<Entry<R>>,
    canonical: String,
}

/// The target of a request.
pub enum Found<'a, R = LoadedRelease> {
    Route(Route<'a, R>),
    /// The path is bound, but only for these methods.
    MethodNotAllowed {
        allow: Vec<&'a str>,
    },
    Nothing,
}

pub struct Route<'a, R = LoadedRelease> {
    pub entry: &'a Arc<Entry<R>>,
    /// The path as the manifest writes it.
    pub pattern: &'a str,
    pub public: bool,
    /// The action that the route does. None: it has no hooks.
    pub action: Option<&'a str>,
    /// The parameters as they are in the path: still percent-encoded.
    pub params: Vec<(&'a str, &'a str)>,
}

pub struct FrameRoute<'a, R = LoadedRelease> {
    pub entry: &'a Arc<Entry<R>>,
    pub canonical: &'a str,
    /// The name that the client used, if it is not the canonical one.
    pub alias: Option<&'a str>,
}

pub struct Schedule<R = LoadedRelease> {
    pub entry: Arc<Entry<R>>,
    pub binding: ScheduleBinding,
}

/// A consumer of the outbox. Its cursor has the handler's name.
pub struct Consumer<R = LoadedRelease> {
    pub entry: Arc<Entry<R>>,
    pub binding: EventBinding,
}

/// A handler that decides about an action before its handler gets it.
pub struct Hook<R = LoadedRelease> {
    pub entry: Arc<Entry<R>>,
    pub order: i32,
    pub on_failure: OnFailure,
}

/// A handler whose timers fire.
pub struct TimerTarget<R = LoadedRelease> {
    pub entry: Arc<Entry<R>>,
    pub binding: TimerBinding,
}

/// Why two releases cannot run together. The message is for the operator who deploys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Conflict(String);

impl<R: HasManifest> RoutingTable<R> {
    pub fn empty() -> Self {
        Self {
            handlers: BTreeMap::new(),
            http: BTreeMap::new(),
            frames: HashMap::new(),
            opened: Vec::new(),
            closed: Vec::new(),
            touched: Vec::new(),
            missed: Vec::new(),
            schedules: Vec::new(),
            consumers: Vec::new(),
            hooks: HashMap::new(),
            timers: Vec::new(),
        }
    }

    /// Builds a table. Refused when two entries, or one entry twice, bind the same thing.
    pub fn of(entries: impl IntoIterator<Item = Arc<Entry<R>>>) -> Result<Self, Conflict> {
        let mut table = Self::empty();
        for entry in entries {
            table.add(entry)?;
        }
        for list in [&mut table.opened, &mut table.closed, &mut table.touched] {
            // Sorted by name. Otherwise a redeploy would change the order in which connection handlers run.
            list.sort_by(|a, b| a.name.cmp(&b.name));
        }
        for hooks in table.hooks.values_mut() {
            hooks.sort_by(|a, b| (a.order, &a.entry.name).cmp(&(b.order, &b.entry.name)));
        }
        Ok(table)
    }

    /// Returns the same table with one handler's entry added or replaced.
    pub fn with(&self, entry: Arc<Entry<R>>) -> Result<Self, Conflict> {
        let others = self.handlers.values().filter(|other| other.name != entry.name).cloned();
        Self::of(others.chain([entry.clone()]))
    }

    pub fn http<'a>(&'a self, method: &str, path: &'a str) -> Found<'a, R> {
        if let Some(found) = self.http.get(method).and_then(|router| router.at(path).ok()) {
            return Found::Route(Route {
                entry: &found.value.entry,
                pattern: &found.value.pattern,
                public: found.value.public,
                action: found.value.action.as_deref(),
                params: found.params.iter().collect(),
            });
        }
        let others = self.http.iter().filter(|(_, router)| router.at(path).is_ok());
        let allow: Vec<_> = others.map(|(method, _)| method.as_str()).collect();
        if allow.is_empty() { Found::Nothing } else { Found::MethodNotAllowed { allow } }
    }

    pub fn frame<'a>(&'a self, frame_type: &'a str) -> Option<FrameRoute<'a, R>> {
        let target = self.frames.get(frame_type)?;
        Some(FrameRoute {
            entry: &target.entry,
            canonical: &target.canonical,
            alias: (target.canonical != frame_type).then_some(frame_type),
        })
    }

    pub fn opened(&self) -> &[Arc<Entry<R>>] {
        &self.opened
    }

    pub fn closed(&self) -> &[Arc<Entry<R>>] {
        &self.closed
    }

    pub fn touched(&self) -> &[Arc<Entry<R>>] {
        &self.touched
    }

    /// Returns the handler that can read what an address has published.
    pub fn missed(&self, address: &Address) -> Option<&Arc<Entry<R>>> {
        self.missed.iter().find(|(pattern, _)| pattern.matches(address.as_str())).map(|(_, entry)| entry)
    }

    pub fn schedules(&self) -> &[Schedule<R>] {
        &self.schedules
    }

    pub fn consumers(&self) -> &[Consumer<R>] {
        &self.consumers
    }

    /// Returns the hooks of an action, in the order of their calls.
    pub fn hooks(&self, action: &str) -> &[Hook<R>] {
        self.hooks.get(action).map_or(&[], Vec::as_slice)
    }

    pub fn timers(&self) -> &[TimerTarget<R>] {
        &self.timers
    }

    pub fn by_name(&self, name: &str) -> Option<&Arc<Entry<R>>> {
        self.handlers.get(name)
    }

    pub fn handlers(&self) -> impl Iterator<Item = &Arc<Entry<R>>> {
        self.handlers.values()
    }

    fn add(&mut self, entry: Arc<Entry<R>>) -> Result<(), Conflict> {
        let release = entry.running.clone();
        let manifest = release.manifest();
        if manifest.name != entry.name {
            return Err(Conflict(format!("`{}` is not a release of `{}`", manifest.name, entry.name)));
        }
        if self.handlers.len() >= limits::HANDLERS_MAX {
            return Err(Conflict(format!("a fleet has at most {} handlers", limits::HANDLERS_MAX)));
        }
        for binding in &manifest.on.http {
            self.add_route(&entry, binding)?;
        }
        for binding in &manifest.on.frame {
            for name in std::iter::once(&binding.frame_type).chain(&binding.aliases) {
                self.add_frame(&entry, name, binding)?;
            }
        }
        let connection = &manifest.on.connection;
        for pattern in &connection.missed {
            self.add_missed(&entry, pattern)?;
        }
        for (bound, list) in [
            (connection.opened.is_bound(), &mut self.opened),
            (connection.closed.is_bound(), &mut self.closed),
            (connection.touched, &mut self.touched),
        ] {
            if bound {
                list.push(entry.clone());
            }
        }
        for binding in &manifest.on.schedule {
            let of_this = |schedule: &&Schedule<R>| schedule.entry.name == entry.name;
            if self.schedules.iter().filter(of_this).any(|other| other.binding.name == binding.name) {
                return Err(Conflict(format!("`{}` has two schedules `{}`", entry.name, binding.name)));
            }
            self.schedules.push(Schedule { entry: entry.clone(), binding: binding.clone() });
        }
        if let Some(binding) = &manifest.on.event {
            self.consumers.push(Consumer { entry: entry.clone(), binding: binding.clone() });
        }
        for binding in &manifest.on.before {
            let hooks = self.hooks.entry(binding.action.clone()).or_default();
            let most = limits::HOOKS_PER_ACTION_MAX;
            if hooks.len() >= most {
                let (action, name) = (&binding.action, &entry.name);
                return Err(Conflict(format!(
                    "`{action}` has {most} hooks, the maximum; retire one of them before you deploy `{name}`"
                )));
            }
            let (order, on_failure) = (binding.order, binding.on_failure);
            hooks.push(Hook { entry: entry.clone(), order, on_failure });
        }
        if let Some(binding) = &manifest.on.timer {
            self.timers.push(TimerTarget { entry: entry.clone(), binding: binding.clone() });
        }
        match self.handlers.insert(entry.name.clone(), entry) {
            None => Ok(()),
            Some(twice) => Err(Conflict(format!("`{}` appears twice", twice.name))),
        }
    }

    fn add_route(&mut self, entry: &Arc<Entry<R>>, binding: &HttpBinding) -> Result<(), Conflict> {
        let HttpBinding { method, path, public, action } = binding;
        if GATEWAY_PATHS.contains(&path.as_str()) {
            return Err(Conflict(format!("`{path}` is answered by the host itself")));
        }
        let router = self.http.entry(method.clone()).or_default();
        let (pattern, action) = (path.clone(), action.clone());
        let target = HttpTarget { entry: entry.clone(), pattern, public: *public, action };
        router.insert(path, target).map_err(|error| match error {
            matchit::InsertError::Conflict { with } => {
                let owner = router.at(&with).map_or("another handler", |found| &found.value.entry.name);
                Conflict(format!(
                    "`{method} {path}` of `{}` is already bound by `{owner}` as `{with}`",
                    entry.name
                ))
            }
            malformed => Conflict(format!("`{path}` of `{}` is not a route: {malformed}", entry.name)),
        })
    }

    fn add_frame(
        &mut self,
        entry: &Arc<Entry<R>>,
        name: &str,
        binding: &FrameBinding,
    ) -> Result<(), Conflict> {
        let target = FrameTarget { entry: entry.clone(), canonical: binding.frame_type.clone() };
        match self.frames.insert(name.to_owned(), target) {
            None => Ok(()),
            Some(other) => Err(Conflict(format!(
                "frame type `{name}` of `{}` is already bound by `{}`",
                entry.name, other.entry.name
            ))),
        }
    }

    fn add_missed(&mut self, entry: &Arc<Entry<R>>, pattern: &Pattern) -> Result<(), Conflict> {
        if let Some((theirs, other)) = self.missed.iter().find(|(theirs, _)| theirs.overlaps(pattern)) {
            return Err(Conflict(format!(
                "missed pattern `{}` of `{}` overlaps `{}` of `{}`",
                pattern.as_str(),
                entry.name,
                theirs.as_str(),
                other.name
            )));
        }
        self.missed.push((pattern.clone(), entry.clone()));
        Ok(())
    }
}

/// Checks that a candidate binds whatever the running release binds. What it binds beyond that counts after
/// its promotion.
pub fn covers(running: &Manifest, candidate: &Manifest) -> Result<(), Conflict> {
    let missing_binding = |what: String| {
        Err(Conflict(format!("the release does not bind {what}, which the running release binds")))
    };
    for binding in &running.on.http {
        let HttpBinding { method, path, public, action } = binding;
        let is_same =
            |other: &&HttpBinding| (&other.method, &other.path, other.public) == (method, path, *public);
        let Some(same) = candidate.on.http.iter().find(is_same) else {
            return missing_binding(format!("`{method} {path}`"));
        };
        // A canary may add an action; its hooks are called after the promotion.
        if let Some(action) = action.as_ref().filter(|action| same.action.as_ref() != Some(*action)) {
            return missing_binding(format!("`{method} {path}` with the action `{action}`"));
        }
    }
    for binding in &running.on.frame {
        let same = candidate.on.frame.iter().find(|other| other.frame_type == binding.frame_type);
        let names = |of: &FrameBinding| binding.aliases.iter().all(|alias| of.aliases.contains(alias));
        if !same.is_some_and(names) {
            return missing_binding(format!("frame type `{}` with its aliases", binding.frame_type));
        }
    }
    let (bound_now, bound_by_candidate) = (&running.on.connection, &candidate.on.connection);
    for (bound, also, name) in [
        // The canary may bind them in batches and the running release one by one, or the other way round.
        (bound_now.opened.is_bound(), bound_by_candidate.opened.is_bound(), "opened"),
        (bound_now.closed.is_bound(), bound_by_candidate.closed.is_bound(), "closed"),
        (bound_now.touched, bound_by_candidate.touched, "touched"),
        (!bound_now.missed.is_empty(), !bound_by_candidate.missed.is_empty(), "missed"),
    ] {
        if bound && !also {
            return missing_binding(format!("`on.connection` {name}"));
        }
    }
    for binding in &running.on.schedule {
        if !candidate.on.schedule.iter().any(|other| other.name == binding.name) {
            return missing_binding(format!("schedule `{}`", binding.name));
        }
    }
    if running.on.event.is_some() && candidate.on.event.is_none() {
        return missing_binding("`on.event`".to_owned());
    }
    for HookBinding { action, .. } in &running.on.before {
        if !candidate.on.before.iter().any(|other| other.action == *action) {
            return missing_binding(format!("the hook before `{action}`"));
        }
    }
    if let Some(method) = running.on.call.iter().find(|method| !candidate.on.call.contains(method)) {
        return missing_binding(format!("method `{method}` of `on.call`"));
    }
    if running.on.timer.is_some() && candidate.on.timer.is_none() {
        return missing_binding("`on.timer`".to_owned());
    }
    Ok(())
}

impl Callees for Registry<LoadedRelease> {
    fn pick(&self, handler: &str, subject: &str) -> Option<Arc<LoadedRelease>> {
        self.current().by_name(handler).map(|entry| entry.pick(subject).clone())
    }
}

/// Paths that the gateway answers before it looks for a route.
const GATEWAY_PATHS: [&str; 2] = ["/ws", "/api/v1/ws-tickets"];

#[cfg(test)]
mod tests;
