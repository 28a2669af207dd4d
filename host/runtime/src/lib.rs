//! The sandbox: it loads release files, and runs calls into them. A call gets a fresh instance with its share
//! of time, memory and backends, and ends within its bounds, whatever the guest does. This crate knows no
//! HTTP and no sockets.

mod answer;
mod background;
mod budget;
mod call_log;
mod compile;
mod ending;
mod engine;
mod error;
pub mod export;
mod failure;
mod file;
mod inputs;
mod interfaces;
mod invoke;
mod load;
mod nested;
mod observer;
mod recording;
mod release;
mod replay;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod ticker;
mod trigger;
mod watched;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;
use uuid::Uuid;

use crate::interfaces::call::{Middleware, Script};
use crate::interfaces::turns::Turns;
use crate::interfaces::{CallState, Terms};
use background::BackgroundThreads;
use budget::Budget;
use compile::Artifacts;
use engine::EngineEnv;
use nested::Others;
use recording::Recordings;
use switchboard_core::Blamed;
use switchboard_core::config::{Config, RecordingSettings};
use switchboard_core::ids::{ConnectionId, RequestId};
use switchboard_core::limits;
use switchboard_postgres::Rank;
use switchboard_recording::{Recorder, Secrets};
use switchboard_telemetry::{Tracer, spans};
use watched::EndedCall;

pub use crate::interfaces::Backends;
pub use crate::interfaces::call::{Function, InjectedFault, Responder, Response, Source};
pub use call_log::{CallLog, Caller, LoggedCall};
pub use compile::{Compiler, SUBCOMMAND, child as compile_as_child};
pub use ending::Ending;
pub use error::Error;
pub use export::Export;
pub use failure::{Failure, Kind};
pub use file::ReleaseFile;
pub use inputs::Inputs;
pub use load::{HasManifest, Load, Observable};
pub use nested::Callees;
pub use observer::{CallObserver, ObserverSlot};
pub use release::{LoadedRelease, releases_loaded};
pub use stats::{ReleaseStats, Used};
pub use trigger::Trigger;

/// The identity of a call. Its caller is in its input.
pub struct Call {
    /// A UUID, for logs, spans and recordings.
    pub id: Arc<str>,
    /// The request of a client or an operator that caused the call, for logs and spans.
    pub request: Option<RequestId>,
    /// The span that caused the call. Otherwise the input may name one.
    pub cause: Option<spans::Context>,
    /// Only calls about a connection have one. During a frame call, `channels.subscribe` gates it.
    pub connection: Option<ConnectionId>,
    /// Set for a call that may overlap with other calls of its connection: its place among them.
    pub rank: Option<Rank>,
    /// The latest end of the call, if it is a part of something else: of an action with hooks, or of a call
    /// of another handler. The call also ends at its own `deadline_ms`.
    pub deadline: Option<tokio::time::Instant>,
    /// The number of calls between handlers above it. A trigger starts calls of depth 0.
    pub depth: u8,
    /// The secrets of the handlers above it. They may be in its input, so logs and recordings of this call
    /// conceal them too.
    pub secrets_of_callers: Option<Secrets>,
}

impl Call {
    /// A call with a new id and without a request.
    pub fn new(connection: Option<ConnectionId>) -> Self {
        Self {
            id: Uuid::now_v7().to_string().into(),
            request: None,
            cause: None,
            connection,
            rank: None,
            deadline: None,
            depth: 0,
            secrets_of_callers: None,
        }
    }
}

/// The part of the configuration that a runtime needs.
#[derive(Clone, Debug)]
pub struct Options {
    pub compiler: Compiler,
    pub data_dir: PathBuf,
    /// The secret from which the key of the artifact cache is derived.
    pub secret: String,
    pub recordings: Option<RecordingSettings>,
    /// The memory of all calls together, beyond [`limits::MEMORY_FREE_BYTES`] for each.
    pub guest_memory_mib: u32,
    pub tracer: Tracer,
}

/// The sandbox of one process.
pub struct Runtime {
    env: EngineEnv,
    artifacts: Artifacts,
    budget: Budget,
    background: BackgroundThreads,
    recordings: Option<Recordings>,
    backends: Arc<Backends>,
    others: Arc<Others>,
    tracer: Tracer,
}

impl Runtime {
    /// Makes a runtime that compiles with this program as the child.
    pub fn new(config: &Config, backends: Backends, tracer: Tracer) -> Result<Self, Error> {
        let secret = config.secret().map_err(|error| Error::of_host(error.to_string()))?.to_owned();
        // The running program, also after another version has replaced its file: the artifacts of that one
        // would not load.
        let program = match PathBuf::from("/proc/self/exe") {
            running if running.exists() => running,
            _ => std::env::current_exe()
                .map_err(|error| Error::of_host(format!("cannot find the path of this program: {error}")))?,
        };
        let options = Options {
            compiler: Compiler::Child(program),
            data_dir: config.data_dir.clone(),
            secret,
            recordings: config.recordings(),
            guest_memory_mib: config.guest_memory_mib,
            tracer,
        };
        Self::with(options, backends)
    }

    pub fn with(options: Options, backends: Backends) -> Result<Self, Error> {
        let broken = |error: wasmtime::Error| Error::of_host(format!("the sandbox cannot start: {error:#}"));
        Ok(Self {
            env: EngineEnv::new().map_err(broken)?,
            artifacts: Artifacts::new(options.compiler, options.data_dir, &options.secret).map_err(broken)?,
            budget: Budget::new(options.guest_memory_mib),
            background: BackgroundThreads::new(Turns::count()),
            recordings: options.recordings.map(Recordings::new),
            backends: Arc::new(backends),
            others: Arc::default(),
            tracer: options.tracer,
        })
    }

    /// Lets handlers call each other. Before it, and in a process with a single handler, such calls are
    /// `unavailable`.
    pub fn connect_handlers(self: &Arc<Self>, callees: Arc<dyn Callees>) {
        self.others.connect(self, callees);
    }

    /// Loads a release, so that it is ready for traffic.
    pub async fn load(&self, file: &ReleaseFile, inputs: &Inputs) -> Result<Arc<LoadedRelease>, Error> {
        let component = self.artifacts.load(&self.env.engine, file).await?;
        // Makes the initial memory image of every instance here, and not in the first call.
        component.initialize_copy_on_write_image().map_err(|error| {
            Error::of_host(format!("cannot prepare the memory of the release: {error:#}"))
        })?;
        let release = LoadedRelease::link(&self.env, self.budget.claims(), &component, file, inputs)?;
        self.warm(&release).await?;
        Ok(Arc::new(release))
    }

    /// Checks, for a deploy, that Redis compiles the scripts of a release, because a script that is not Lua
    /// would fail in every call. If Redis does not answer within a second for all of them, the check passes.
    pub async fn check_scripts(&self, release: &LoadedRelease) -> Result<(), Error> {
        let Some(redis) = &self.backends.redis else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + limits::REDIS_ANSWER_WAIT;
        for script in release.terms().scripts.values() {
            if let Some(error) = redis.compile_error(script, deadline).await {
                let name = &script.name;
                return Err(Error::of_release(format!("the script `{name}` does not compile: {error}")));
            }
        }
        Ok(())
    }

    async fn warm(&self, release: &LoadedRelease) -> Result<(), Error> {
        // A replay without answers, so a host call of a start function ends the instance.
        let state = self.state(release.terms(), warming(), Source::Replay(Script::new(Vec::new())), None);
        let mut store = store::build(&self.env, state);
        let deadline = store.data().deadline;
        let failure =
            match tokio::time::timeout_at(deadline, invoke::warm(&mut store, &release.exports)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => invoke::classify(&error, store.data()),
                Err(_) => Failure::new(Kind::Deadline, "no instance in time"),
            };
        // A pool without a free slot is the host's fault, and not the release's.
        Err(Error::new(failure.blame(), format!("the release cannot be instantiated: {failure}")))
    }

    /// Calls an export of a release. The call is recorded if an operator or the release's observer wants it.
    /// A caller that may repeat the call passes an `Arc` of the input.
    ///
    /// # Errors
    /// A [`Failure`] when the call ended without an answer.
    pub async fn call<E: Export>(
        &self,
        release: &Arc<LoadedRelease>,
        call: Call,
        input: impl Into<Arc<E::Input>>,
    ) -> Result<E::Output, Failure> {
        let is_observed = release.observer.with(|observer| observer.wants(&call.id)).unwrap_or(false);
        let keeps = self.recordings.as_ref().filter(|recordings| recordings.begin());
        let recorder = (keeps.is_some() || is_observed).then(Recorder::default);
        let input = input.into();
        let terms = match &call.secrets_of_callers {
            None => release.terms(),
            Some(callers) => release.terms_concealing(callers),
        };
        let (result, state) =
            self.run::<E>(release, terms, call, Source::Live, recorder, input.clone()).await;
        let failed = invoke::ending::<E>(&result).is_bad();
        if let Some((state, taken)) = state.and_then(recording::taken) {
            let recording = recording::recording_of::<E>(&state.terms, &state.id, &input, taken, &result);
            if let Some(recordings) = keeps {
                recordings.keep(&recording, failed).await;
            }
            if is_observed {
                release.observer.with(|observer| observer.recorded(recording, failed));
            }
        }
        if failed {
            release.observer.with(|observer| observer.failed());
        }
        result
    }

    /// Runs a call under these terms of the release. The state is `None` when the call got no slot.
    async fn run<E: Export>(
        &self,
        release: &Arc<LoadedRelease>,
        terms: Arc<Terms>,
        call: Call,
        source: Source,
        recorder: Option<Recorder>,
        input: Arc<E::Input>,
    ) -> (Result<E::Output, Failure>, Option<CallState>) {
        let begun = Instant::now();
        // A replay and a shadow are not calls of anybody.
        let is_live = matches!(source, Source::Live);
        let (Ok(of_release), Some(of_node)) =
            (release.slots.clone().try_acquire_owned(), release.calls.take(1))
        else {
            let busy = Failure::new(Kind::Busy, "every call slot that this release may use now is in use");
            // At debug level and otherwise only counted, because a line for each would add to the load.
            debug!(
                handler.name = release.name(),
                handler.release = terms.release_short,
                call = &*call.id,
                request_id = call.request.as_deref(),
                trigger = E::NAME,
                "call refused: {busy}",
            );
            let caller = E::caller(&input);
            let ending = Ending::Failed(busy.kind);
            release.stats.record(E::TRIGGER, caller, begun.elapsed(), ending, Used::default());
            if is_live && let Some(watches) = self.backends.watches() {
                let refused = EndedCall {
                    handler: release.name(),
                    release: &terms.release_short,
                    id: &call.id,
                    request: call.request.as_deref(),
                    trigger: E::NAME,
                    caller,
                    ending,
                    failure: Some(&busy),
                    took: begun.elapsed(),
                    cpu: Duration::ZERO,
                    host_calls: 0,
                };
                refused.show(watches);
            }
            return (Err(busy), None);
        };
        let span = match source {
            Source::Live if self.tracer.is_on() => self.tracer.begin(call.cause.or_else(|| E::cause(&input))),
            _ => None,
        };
        let mut state = self.state(terms, call, source, recorder);
        if !state.terms.grants.calls.is_empty() {
            state.principal = E::principal(&input).cloned();
        }
        if span.is_some() {
            state.middleware.span_attributes = invoke::span_attributes(&state);
        }
        state.middleware.span = span.clone();
        let store = store::build(&self.env, state);
        let clock = store.data().middleware.clock.clone();
        let (release_of_call, input_of_call) = (release.clone(), input.clone());
        let call = async move {
            let (result, mut state) = invoke::run::<E>(release_of_call, store, input_of_call).await;
            state.finish().await;
            // The instance is dropped by now, on the thread on which it ran.
            drop((of_release, of_node));
            (result, state)
        };
        let (result, state) =
            self.background.run(call, || clock.is_long() && E::MAY_MOVE_TO_BACKGROUND).await;
        let used = Used { cpu: state.middleware.clock.spent(), memory_bytes: state.memory.bytes() };
        let caller = E::caller(&input);
        let ending = invoke::ending::<E>(&result);
        release.stats.record(E::TRIGGER, caller, begun.elapsed(), ending, used);
        if is_live && let Some(watches) = self.backends.watches() {
            let ended = EndedCall {
                handler: release.name(),
                release: &state.terms.release_short,
                id: &state.id,
                request: state.request.as_deref(),
                trigger: E::NAME,
                caller,
                ending,
                failure: result.as_ref().err(),
                took: begun.elapsed(),
                cpu: state.middleware.clock.spent(),
                host_calls: state.middleware.calls(),
            };
            ended.show(watches);
        }
        if let Some(span) = &span {
            invoke::record_span::<E>(release, &result, &state, begun, span);
        }
        if let Err(failure) = &result {
            invoke::log_failure::<E>(release, caller, failure, &state);
        }
        (result, Some(state))
    }

    fn state(&self, terms: Arc<Terms>, call: Call, source: Source, recorder: Option<Recorder>) -> CallState {
        let middleware = Middleware::new(
            &terms.limits,
            terms.host_call_stats.clone(),
            terms.secrets.clone(),
            source,
            recorder,
        );
        CallState::new(terms, call, middleware, &self.backends, &self.others)
    }
}

fn warming() -> Call {
    Call { id: "warming".into(), ..Call::new(None) }
}
