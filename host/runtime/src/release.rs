//! A loaded release: it is linked, checked against its manifest, and warmed. A `LoadedRelease` has only
//! granted imports, it exports what its manifest binds, and one instance of it fits a slot of the pool.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use wasmtime::component::{Component, InstancePre};

use super::Error;
use super::budget::Claims;
use super::engine::EngineEnv;
use super::file::ReleaseFile;
use super::inputs::Inputs;
use super::observer::ObserverSlot;
use super::stats::ReleaseStats;
use crate::interfaces::call::HostCallStats;
use crate::interfaces::{CallState, Terms};
use switchboard_contract::{
    BeforeHandlerPre, CallHandlerPre, ConnectionBatchHandlerPre, ConnectionHandlerPre, EventHandlerPre,
    FrameHandlerPre, HttpHandlerPre, ScheduleHandlerPre, TimerHandlerPre,
};
use switchboard_core::ids::Digest;
use switchboard_core::limits;
use switchboard_core::manifest::{Bindings, FetchRules, Grants, Manifest};
use switchboard_core::quota::Claim;
use switchboard_recording::Secrets;
use switchboard_redis::Script;
use switchboard_telemetry::histogram::Counts;

pub(super) const CONTRACT: &str = "switchboard:host/";
/// The loaded code of a release. Running calls hold a reference; dropping the last one frees the code.
pub struct LoadedRelease {
    pub digest: Digest,
    pub manifest: Manifest,
    /// Replaced by `apply`. A call takes them once, at its begin, so it sees one set of settings.
    terms: ArcSwap<Terms>,
    pub(super) exports: Exports,
    /// The call slots of the handler's `concurrency`. They belong to the loaded release, so a new release
    /// starts with all of them free.
    pub(super) slots: Arc<Semaphore>,
    /// Its claim on the node's call slots: its fair share, and what it may borrow.
    pub(super) calls: Claim,
    pub stats: ReleaseStats,
    pub observer: ObserverSlot,
    _counted: Counted,
}

/// The exports of a release. `None`: the manifest does not bind the trigger.
pub struct Exports {
    pub http: Option<HttpHandlerPre<CallState>>,
    pub frame: Option<FrameHandlerPre<CallState>>,
    pub connection: Option<ConnectionHandlerPre<CallState>>,
    pub connection_batch: Option<ConnectionBatchHandlerPre<CallState>>,
    pub schedule: Option<ScheduleHandlerPre<CallState>>,
    pub event: Option<EventHandlerPre<CallState>>,
    pub before: Option<BeforeHandlerPre<CallState>>,
    pub call: Option<CallHandlerPre<CallState>>,
    pub timer: Option<TimerHandlerPre<CallState>>,
}

impl LoadedRelease {
    /// Links a component, and checks it against its manifest. `Runtime::load` also tries an instance.
    pub(super) fn link(
        env: &EngineEnv,
        claims: Claims,
        component: &Component,
        file: &ReleaseFile,
        inputs: &Inputs,
    ) -> Result<Self, Error> {
        let manifest = file.manifest.clone();
        fits(component, &manifest)?;
        let ty = component.component_type();
        imports_are_granted(ty.imports(&env.engine).map(|(name, _)| name), &manifest.grants)?;
        let linked = env
            .linker
            .instantiate_pre(component)
            .map_err(|error| Error::of_release(format!("the release does not fit this host: {error:#}")))?;
        let exports = Exports::of(env, component, &linked, &manifest.on)?;

        let settings = inputs.effective(&manifest)?;
        let scripts = manifest.scripts.iter();
        let scripts =
            scripts.map(|(name, text)| (name.clone(), Script::new(name, text, &manifest.grants.redis)));
        let fetch = fetch_rules(&manifest, &settings)?;
        let terms = Terms {
            handler: manifest.name.clone(),
            release: file.digest,
            release_short: file.digest.short(),
            grants: manifest.grants.clone(),
            limits: manifest.limits.clone(),
            secrets: Secrets::new(&settings, &manifest.public_settings, &inputs.secrets),
            secret_values: inputs.secrets.clone(),
            settings,
            scripts: Arc::new(scripts.collect()),
            fetch,
            host_call_stats: HostCallStats::new(),
            memory: claims.memory,
            fetches: claims.fetches,
            fetch_bodies: claims.fetch_bodies,
            turns: claims.turns,
        };
        Ok(Self {
            digest: file.digest,
            slots: Arc::new(Semaphore::new(manifest.limits.concurrency as usize)),
            calls: claims.calls,
            stats: ReleaseStats::default(),
            observer: ObserverSlot::default(),
            _counted: Counted::new(),
            terms: ArcSwap::from_pointee(terms),
            exports,
            manifest,
        })
    }

    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Gives the release other inputs: calls that begin from now on use them, and calls in flight finish with
    /// theirs. Code, statistics, call slots and observers stay. The caller must not apply the inputs of one
    /// release in two tasks at once, because older ones could then replace newer ones. If the future is
    /// dropped, the release keeps the inputs that it has.
    ///
    /// # Errors
    /// The inputs do not fit the release. It keeps those that it has.
    pub async fn apply(self: &Arc<Self>, inputs: Inputs) -> Result<(), Error> {
        // The search for large secrets takes up to seconds to prepare. The threads of the sockets go on.
        let release = self.clone();
        let made = spawn_blocking(move || release.terms_with(inputs)).await;
        let terms = made.map_err(|_| Error::of_host("the task that prepares the inputs has panicked"))??;
        self.terms.store(Arc::new(terms));
        Ok(())
    }

    fn terms_with(&self, inputs: Inputs) -> Result<Terms, Error> {
        let settings = inputs.effective(&self.manifest)?;
        let fetch = fetch_rules(&self.manifest, &settings)?;
        let secrets = Secrets::new(&settings, &self.manifest.public_settings, &inputs.secrets);
        let secret_values = inputs.secrets;
        Ok(Terms { settings, secret_values, secrets, fetch, ..(*self.terms()).clone() })
    }

    /// Returns the terms for a call that begins now.
    pub(super) fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    /// Returns the same terms for a call of another handler. They conceal its secrets too.
    pub(super) fn terms_concealing(&self, callers: &Secrets) -> Arc<Terms> {
        let terms = self.terms();
        Arc::new(Terms { secrets: terms.secrets.with(callers), ..(*terms).clone() })
    }

    /// Returns the counts of its host calls, for each function.
    pub fn host_calls(&self) -> Vec<(&'static str, Counts)> {
        self.terms().host_call_stats.counts().collect()
    }

    /// Returns the secrets that a call that begins now reads with `secrets.get`.
    pub fn secret_values(&self) -> BTreeMap<String, Vec<u8>> {
        self.terms().secret_values.clone()
    }

    /// Returns the settings that a call that begins now reads with `config.get`.
    pub fn settings(&self) -> BTreeMap<String, String> {
        self.terms().settings.clone()
    }

    /// Returns its grants to fetch, with its settings.
    pub fn fetch_rules(&self) -> FetchRules {
        self.terms().fetch.clone()
    }
}

/// Puts the effective settings into the grants to fetch.
fn fetch_rules(manifest: &Manifest, settings: &BTreeMap<String, String>) -> Result<FetchRules, Error> {
    FetchRules::expand(&manifest.grants.fetch, settings).map_err(|error| Error::of_release(error.to_string()))
}

/// Returns the number of loaded releases in this process, including those that only running calls still hold.
pub fn releases_loaded() -> usize {
    LOADED.load(Relaxed)
}

static LOADED: AtomicUsize = AtomicUsize::new(0);

/// Counts one loaded release until it is dropped.
struct Counted;

impl Counted {
    fn new() -> Self {
        LOADED.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LOADED.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for LoadedRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.manifest.name, self.digest.short())
    }
}

impl Exports {
    fn of(
        env: &EngineEnv,
        component: &Component,
        linked: &InstancePre<CallState>,
        on: &Bindings,
    ) -> Result<Self, Error> {
        let ty = component.component_type();
        let exported: Vec<_> =
            ty.exports(&env.engine).map(|(name, _)| unversioned(name).to_owned()).collect();
        let bound = |interface: &str, is_bound: bool| {
            let name = format!("{CONTRACT}{interface}");
            let binding = match interface {
                "connection-batch" => "on.connection` with `\"batch\"".to_owned(),
                interface => format!("on.{interface}"),
            };
            match (is_bound, exported.contains(&name)) {
                (true, false) => Err(Error::of_release(format!(
                    "the manifest binds `{binding}`, but the component does not export `{name}`{}",
                    if exported.is_empty() {
                        String::new()
                    } else {
                        format!(" (it exports {})", quoted(&exported))
                    }
                ))),
                (false, true) => Err(Error::of_release(format!(
                    "the component exports `{name}`, but the manifest binds nothing in `{binding}`"
                ))),
                (is_bound, _) => Ok(is_bound),
            }
        };
        let wrong = |interface: &str, error: wasmtime::Error| {
            Error::of_release(format!("the export `{CONTRACT}{interface}` has another version: {error:#}"))
        };
        Ok(Self {
            http: bound("http", !on.http.is_empty())?
                .then(|| HttpHandlerPre::new(linked.clone()).map_err(|error| wrong("http", error)))
                .transpose()?,
            frame: bound("frame", !on.frame.is_empty())?
                .then(|| FrameHandlerPre::new(linked.clone()).map_err(|error| wrong("frame", error)))
                .transpose()?,
            connection: bound("connection", on.connection.binds_single())?
                .then(|| {
                    ConnectionHandlerPre::new(linked.clone()).map_err(|error| wrong("connection", error))
                })
                .transpose()?,
            connection_batch: bound("connection-batch", on.connection.binds_batches())?
                .then(|| {
                    ConnectionBatchHandlerPre::new(linked.clone())
                        .map_err(|error| wrong("connection-batch", error))
                })
                .transpose()?,
            schedule: bound("schedule", !on.schedule.is_empty())?
                .then(|| ScheduleHandlerPre::new(linked.clone()).map_err(|error| wrong("schedule", error)))
                .transpose()?,
            event: bound("event", on.event.is_some())?
                .then(|| EventHandlerPre::new(linked.clone()).map_err(|error| wrong("event", error)))
                .transpose()?,
            before: bound("before", !on.before.is_empty())?
                .then(|| BeforeHandlerPre::new(linked.clone()).map_err(|error| wrong("before", error)))
                .transpose()?,
            call: bound("call", !on.call.is_empty())?
                .then(|| CallHandlerPre::new(linked.clone()).map_err(|error| wrong("call", error)))
                .transpose()?,
            timer: bound("timer", on.timer.is_some())?
                .then(|| TimerHandlerPre::new(linked.clone()).map_err(|error| wrong("timer", error)))
                .transpose()?,
        })
    }
}

/// Checks that one instance fits a slot of the pool, and that its first memory is within `memory_mib`.
pub(super) fn fits(component: &Component, manifest: &Manifest) -> Result<(), Error> {
    let Some(needs) = component.resources_required() else {
        return Err(Error::of_release("the component imports core modules, which this host does not have"));
    };
    let rule = |holds: bool, what: String| if holds { Ok(()) } else { Err(Error::of_release(what)) };
    rule(
        needs.num_memories <= limits::MEMORIES_PER_INSTANCE_MAX,
        format!(
            "the component has {} memories; the maximum is {}",
            needs.num_memories,
            limits::MEMORIES_PER_INSTANCE_MAX
        ),
    )?;
    rule(
        needs.num_tables <= limits::TABLES_PER_INSTANCE_MAX,
        format!(
            "the component has {} tables; the maximum is {}",
            needs.num_tables,
            limits::TABLES_PER_INSTANCE_MAX
        ),
    )?;
    let elements = needs.max_initial_table_size.unwrap_or(0);
    rule(
        elements <= limits::TABLE_ELEMENTS_MAX as u64,
        format!("a table begins with {elements} elements; the maximum is {}", limits::TABLE_ELEMENTS_MAX),
    )?;
    // wasmtime counts in pages.
    let initial = needs.max_initial_memory_size.unwrap_or(0).saturating_mul(limits::MEMORY_UNIT_BYTES as u64);
    let most = u64::from(manifest.limits.memory_mib) * 1024 * 1024;
    rule(
        initial <= most,
        format!("the memory begins with {initial} bytes; `limits.memory_mib` allows {most}"),
    )
}

/// Checks that the manifest grants every import. Building a component removes unused imports, so each import
/// is in use.
pub(super) fn imports_are_granted<'a>(
    imports: impl Iterator<Item = &'a str>,
    grants: &Grants,
) -> Result<(), Error> {
    const FREE: [&str; 5] = ["types", "clock", "random", "log", "config"];
    for name in imports {
        if name.starts_with("wasi:") {
            // WASI needs no grant. Linking finds the parts of WASI that this host does not have.
            continue;
        }
        let unknown = || Error::of_release(format!("the component imports unknown `{name}`"));
        let interface = unversioned(name).strip_prefix(CONTRACT).ok_or_else(unknown)?;
        let (granted, grant) = match interface {
            free if FREE.contains(&free) => continue,
            "postgres" => (grants.postgres.is_some(), "grants.postgres"),
            "redis" => (!grants.redis.is_empty(), "grants.redis"),
            "wake" => (!grants.wake.is_empty(), "grants.wake"),
            "fetch" => (!grants.fetch.is_empty(), "grants.fetch"),
            "secrets" => (!grants.secrets.is_empty(), "grants.secrets"),
            "calls" => (!grants.calls.is_empty(), "grants.calls"),
            "timers" => (grants.timers, "grants.timers"),
            "channels" => (
                !grants.publish.is_empty() || !grants.subscribe.is_empty() || grants.disconnect,
                "grants.publish, grants.subscribe or grants.disconnect",
            ),
            _ => return Err(unknown()),
        };
        if !granted {
            return Err(Error::of_release(format!(
                "the component imports `{CONTRACT}{interface}`, but the manifest does not grant it (`{grant}`)"
            )));
        }
    }
    Ok(())
}

pub(super) fn unversioned(name: &str) -> &str {
    name.split_once('@').map_or(name, |(name, _)| name)
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
