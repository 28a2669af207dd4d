//! Which release answers to what: one immutable snapshot behind one atomic pointer. Swapping a release replaces the
//! pointer and nothing else; a call that took its release before goes on with it.
//!
//! It loads nothing and stores nothing: `rollout` puts snapshots in, `triggers` look things up.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::first::FirstFailure;
use crate::ids::{Address, Digest};
use crate::limits;
use crate::manifest::{EventBinding, FrameBinding, HttpBinding, Manifest, Pattern, ScheduleBinding};
use crate::runtime::{CallLog, LoadedRelease, ObserverSlot, ReleaseStats};
use crate::telemetry::histogram::Counts;

/// What a snapshot needs to know of a release.
pub trait Declares {
    fn manifest(&self) -> &Manifest;
}

impl Declares for LoadedRelease {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// What runs can be watched while it does.
pub trait Lives: Declares {
    fn stats(&self) -> &ReleaseStats;
    fn observer(&self) -> &ObserverSlot;

    /// Function by function; none where nothing is called.
    fn host_calls(&self) -> Vec<(&'static str, Counts)> {
        Vec::new()
    }
}

impl Lives for LoadedRelease {
    fn stats(&self) -> &ReleaseStats {
        &self.stats
    }

    fn observer(&self) -> &ObserverSlot {
        &self.observer
    }

    fn host_calls(&self) -> Vec<(&'static str, Counts)> {
        LoadedRelease::host_calls(self).collect()
    }
}

/// What a release declares can be compared before it is loaded.
impl Declares for Manifest {
    fn manifest(&self) -> &Manifest {
        self
    }
}

/// The pointer. Shared by everyone who calls handlers.
pub struct Registry<R = LoadedRelease> {
    current: ArcSwap<Bindings<R>>,
    changes: watch::Sender<u64>,
}

impl<R: Declares> Registry<R> {
    /// Without handlers: every lookup finds nothing.
    pub fn new() -> Self {
        Self { current: ArcSwap::from_pointee(Bindings::empty()), changes: watch::Sender::new(0) }
    }

    /// Hold it for one decision only; whoever keeps it keeps old releases alive.
    pub fn current(&self) -> Arc<Bindings<R>> {
        self.current.load_full()
    }

    /// From here on new calls see `next`. Whoever watches `changes` is told afterwards.
    pub fn swap(&self, next: Bindings<R>) {
        self.current.store(Arc::new(next));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Rises with every swap: for those whose work depends on which schedules and consumers there are.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl<R: Declares> Default for Registry<R> {
    fn default() -> Self {
        Self::new()
    }
}

/// What runs under a handler's name.
pub struct Entry<R = LoadedRelease> {
    pub name: String,
    /// Of `running`: what log lines and metrics call it.
    pub digest: Digest,
    /// Rises with every switch in the fleet, so that two nodes can tell whose entry is newer.
    pub generation: i64,
    pub running: Arc<R>,
    pub canary: Option<Canary<R>>,
    /// Sees what some calls of `running` saw, and answers nobody.
    pub shadow: Option<Trial<R>>,
}

/// A release beside the running one. It binds what that one binds.
pub struct Trial<R = LoadedRelease> {
    pub digest: Digest,
    pub release: Arc<R>,
    pub percent: u8,
}

/// A trial that answers some of the users.
pub struct Canary<R = LoadedRelease> {
    pub trial: Trial<R>,
    /// Its calls, and those of the running release beside it, since it began.
    pub calls: Arc<CallLog>,
    pub calls_beside: Arc<CallLog>,
    pub begun_at: Instant,
    pub first_failure: FirstFailure,
    /// This node found it bad: nobody gets it here while the fleet is being told.
    given_up: AtomicBool,
}

impl<R> Canary<R> {
    pub fn new(trial: Trial<R>) -> Self {
        Self {
            trial,
            calls: Arc::default(),
            calls_beside: Arc::default(),
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

    /// The release for a user, or for whatever a call is about where no user asked: always the same one while the
    /// percentage stands, and the canary's users stay the canary's when it rises.
    pub fn pick(&self, subject: &str) -> &Arc<R> {
        match &self.canary {
            Some(canary)
                if percentile(&self.name, subject) < canary.trial.percent && !canary.is_given_up() =>
            {
                &canary.trial.release
            }
            _ => &self.running,
        }
    }
}

/// Which hundredth of the calls a call's id is in. Not the one of its user: over a shadow's time everybody is in the sample.
pub(super) fn sampled(handler: &str, call: &str, percent: u8) -> bool {
    percentile(handler, call) < percent
}

/// FNV-1a, written out because it must be the same on every node and in every version; over the handler's name too, or
/// the same users would try every canary.
fn percentile(handler: &str, user: &str) -> u8 {
    let fold = |hash: u64, text: &str| {
        text.bytes().fold(hash, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
    };
    let hash = fold(fold(fold(0xcbf2_9ce4_8422_2325, handler), "/"), user);
    // The low bits of FNV are weak in short texts; the high half is not.
    u8::try_from((hash >> 32) % 100).unwrap_or(0)
}

/// One immutable answer to every "who answers this?".
pub struct Bindings<R = LoadedRelease> {
    handlers: BTreeMap<String, Arc<Entry<R>>>,
    /// One router a method: a path may belong to one handler for GET and to another for POST.
    http: BTreeMap<String, matchit::Router<HttpTarget<R>>>,
    frames: HashMap<String, FrameTarget<R>>,
    opened: Vec<Arc<Entry<R>>>,
    closed: Vec<Arc<Entry<R>>>,
    touched: Vec<Arc<Entry<R>>>,
    missed: Vec<(Pattern, Arc<Entry<R>>)>,
    schedules: Vec<Schedule<R>>,
    consumers: Vec<Consumer<R>>,
}

struct HttpTarget<R> {
    entry: Arc<Entry<R>>,
    pattern: String,
    public: bool,
}

struct FrameTarget<R> {
    entry: Arc<Entry<R>>,
    canonical: String,
}

/// Where a request goes.
pub enum Found<'a, R = LoadedRelease> {
    Route(Route<'a, R>),
    /// The path is bound, for these methods only.
    MethodNotAllowed {
        allow: Vec<&'a str>,
    },
    Nothing,
}

pub struct Route<'a, R = LoadedRelease> {
    pub entry: &'a Arc<Entry<R>>,
    /// As the manifest writes it.
    pub pattern: &'a str,
    pub public: bool,
    /// As they stand in the path: still percent-encoded.
    pub params: Vec<(&'a str, &'a str)>,
}

pub struct FrameRoute<'a, R = LoadedRelease> {
    pub entry: &'a Arc<Entry<R>>,
    pub canonical: &'a str,
    /// The name that the client used, where it is not the canonical one.
    pub alias: Option<&'a str>,
}

pub struct Schedule<R = LoadedRelease> {
    pub entry: Arc<Entry<R>>,
    pub binding: ScheduleBinding,
}

/// A consumer of the outbox; its cursor goes by the handler's name.
pub struct Consumer<R = LoadedRelease> {
    pub entry: Arc<Entry<R>>,
    pub binding: EventBinding,
}

/// Why releases cannot run together. The words are for whoever deploys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict(String);

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Conflict {}

impl<R: Declares> Bindings<R> {
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
        }
    }

    /// Refused when two of them, or one twice, bind the same thing.
    pub fn of(entries: impl IntoIterator<Item = Arc<Entry<R>>>) -> Result<Self, Conflict> {
        let mut bindings = Self::empty();
        for entry in entries {
            bindings.add(entry)?;
        }
        for list in [&mut bindings.opened, &mut bindings.closed, &mut bindings.touched] {
            // Not by when they were released, or a redeploy would change the order in which a client is greeted.
            list.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(bindings)
    }

    /// The same with one handler's entry put in or replaced.
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

    /// Who knows what an address has published.
    pub fn missed(&self, address: &Address) -> Option<&Arc<Entry<R>>> {
        self.missed.iter().find(|(pattern, _)| pattern.matches(address.as_str())).map(|(_, entry)| entry)
    }

    pub fn schedules(&self) -> &[Schedule<R>] {
        &self.schedules
    }

    pub fn consumers(&self) -> &[Consumer<R>] {
        &self.consumers
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
                self.add_frame(&entry, name, &binding.frame_type)?;
            }
        }
        let connection = &manifest.on.connection;
        for pattern in &connection.missed {
            self.add_missed(&entry, pattern)?;
        }
        for (bound, list) in [
            (connection.opened, &mut self.opened),
            (connection.closed, &mut self.closed),
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
        match self.handlers.insert(entry.name.clone(), entry) {
            None => Ok(()),
            Some(twice) => Err(Conflict(format!("`{}` appears twice", twice.name))),
        }
    }

    fn add_route(&mut self, entry: &Arc<Entry<R>>, binding: &HttpBinding) -> Result<(), Conflict> {
        let HttpBinding { method, path, public } = binding;
        if OF_THE_GATEWAY.contains(&path.as_str()) {
            return Err(Conflict(format!("`{path}` is answered by the host itself")));
        }
        let router = self.http.entry(method.clone()).or_default();
        let target = HttpTarget { entry: entry.clone(), pattern: path.clone(), public: *public };
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

    fn add_frame(&mut self, entry: &Arc<Entry<R>>, name: &str, canonical: &str) -> Result<(), Conflict> {
        let target = FrameTarget { entry: entry.clone(), canonical: canonical.to_owned() };
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

/// Whether one release can answer whatever another is bound to. It may bind more: that counts once it runs.
pub fn covers(running: &Manifest, trial: &Manifest) -> Result<(), Conflict> {
    let lacks =
        |what: String| Err(Conflict(format!("it does not bind {what}, which the running release does")));
    for binding in &running.on.http {
        if !trial.on.http.contains(binding) {
            return lacks(format!("`{} {}`", binding.method, binding.path));
        }
    }
    for binding in &running.on.frame {
        let same = trial.on.frame.iter().find(|other| other.frame_type == binding.frame_type);
        let names = |of: &FrameBinding| binding.aliases.iter().all(|alias| of.aliases.contains(alias));
        if !same.is_some_and(names) {
            return lacks(format!("frame type `{}` with its aliases", binding.frame_type));
        }
    }
    let (runs, tries) = (&running.on.connection, &trial.on.connection);
    for (bound, also, name) in [
        (runs.opened, tries.opened, "opened"),
        (runs.closed, tries.closed, "closed"),
        (runs.touched, tries.touched, "touched"),
        (!runs.missed.is_empty(), !tries.missed.is_empty(), "missed"),
    ] {
        if bound && !also {
            return lacks(format!("`on.connection` {name}"));
        }
    }
    for binding in &running.on.schedule {
        if !trial.on.schedule.iter().any(|other| other.name == binding.name) {
            return lacks(format!("schedule `{}`", binding.name));
        }
    }
    if running.on.event.is_some() && trial.on.event.is_none() {
        return lacks("`on.event`".to_owned());
    }
    Ok(())
}

/// Paths that the gateway answers before it asks for a route.
const OF_THE_GATEWAY: [&str; 2] = ["/ws", "/api/v1/ws-tickets"];

#[cfg(test)]
mod tests;
