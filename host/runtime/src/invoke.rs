//! One call: a store, an instance, the export, and a classification of how it ended. A failure is logged
//! here, once, because everything about it is known here. The trigger decides what the caller gets.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tracing::{Instrument, warn};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use super::answer;
use super::callers::Caller;
use super::failure::{Failure, Kind};
use super::release::{Exports, LoadedRelease};
use super::stats::Ending;
use crate::interfaces::call::Stop;
use crate::interfaces::{CallState, MemoryRefused};
use switchboard_contract::types::{Principal, Problem};
use switchboard_contract::{connection, event, frame, http, schedule};
use switchboard_telemetry::spans;

/// The input of a call: its trigger, with the arguments of the export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Input {
    Http(http::Request),
    Frame(frame::Request),
    Opened(connection::Opened),
    Closed(connection::Closed),
    Touched { node: String, touches: Vec<connection::Touch> },
    Missed(connection::Gap),
    Schedule(schedule::Tick),
    Event { events: Vec<event::Event> },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Output {
    Http(Result<http::Response, Problem>),
    Frame(Result<Option<frame::Reply>, Problem>),
    Opened(Result<Vec<switchboard_contract::types::Push>, Problem>),
    Closed(()),
    Touched(()),
    Missed(Result<connection::Page, Problem>),
    Schedule(Result<(), String>),
    Event(Vec<event::Verdict>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Http,
    Frame,
    Opened,
    Closed,
    Touched,
    Missed,
    Schedule,
    Event,
}

impl Trigger {
    pub const ALL: [Self; 8] = [
        Self::Http,
        Self::Frame,
        Self::Opened,
        Self::Closed,
        Self::Touched,
        Self::Missed,
        Self::Schedule,
        Self::Event,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Frame => "frame",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Touched => "touched",
            Self::Missed => "missed",
            Self::Schedule => "schedule",
            Self::Event => "event",
        }
    }
}

impl Input {
    pub fn trigger(&self) -> Trigger {
        match self {
            Self::Http(_) => Trigger::Http,
            Self::Frame(_) => Trigger::Frame,
            Self::Opened(_) => Trigger::Opened,
            Self::Closed(_) => Trigger::Closed,
            Self::Touched { .. } => Trigger::Touched,
            Self::Missed(_) => Trigger::Missed,
            Self::Schedule(_) => Trigger::Schedule,
            Self::Event { .. } => Trigger::Event,
        }
    }
}

impl Input {
    /// Returns the caller, for the log of calls.
    pub fn caller<'a>(&'a self, principal: Option<&'a Principal>) -> Caller<'a> {
        match (principal, self) {
            (Some(principal), _) => Caller::User(&principal.user_id),
            (None, Self::Http(_) | Self::Frame(_)) => Caller::Anonymous,
            (None, Self::Event { events }) => {
                events.first().map_or(Caller::Itself, |event| Caller::Event(&event.id))
            }
            (None, _) => Caller::Itself,
        }
    }

    /// Whether a long call may go on in the background. Not where a handler reads events: such calls are few,
    /// one for each shard and consumer, and deliveries to clients wait for them.
    pub fn may_wait(&self) -> bool {
        !matches!(self, Self::Event { .. })
    }

    /// Returns the caller's span, if an HTTP request names one in `traceparent`.
    pub fn traced_by(&self) -> Option<spans::Context> {
        match self {
            Self::Http(request) if spans::is_on() => {
                let header = request.headers.iter().find(|(name, _)| name == "traceparent");
                header.and_then(|(_, value)| spans::of_header(value))
            }
            _ => None,
        }
    }
}

/// Returns the attributes that the spans of a traced call and of its host calls share.
pub(super) fn span_attributes(release: &LoadedRelease, state: &CallState) -> Vec<(&'static str, String)> {
    vec![
        ("handler.name", release.name().to_owned()),
        ("handler.release", release.terms.release_short.clone()),
        ("call", state.id.to_string()),
    ]
}

/// Records the span of a traced call. The spans of its host calls are its children.
pub(super) fn record_span(
    release: &LoadedRelease,
    trigger: Trigger,
    result: &Result<Output, Failure>,
    state: &CallState,
    begun: Instant,
    (span, cause): (spans::Context, Option<spans::Context>),
) {
    let kind = match trigger {
        Trigger::Http | Trigger::Frame => spans::Kind::Server,
        Trigger::Event => spans::Kind::Consumer,
        _ => spans::Kind::Internal,
    };
    let outcome = result.as_ref().err().map_or("returned", |failure| failure.kind.as_str());
    let mut attributes = span_attributes(release, state);
    attributes.extend([
        ("trigger", trigger.as_str().to_owned()),
        ("outcome", outcome.to_owned()),
        ("cpu_us", state.middleware.clock.spent().as_micros().to_string()),
    ]);
    let name = format!("{} {}", trigger.as_str(), release.name());
    span.record(spans::cause(cause), name, kind, begun, attributes, ending(result).is_bad());
}

/// Classifies how a call ended, for the statistics.
pub(super) fn ending(result: &Result<Output, Failure>) -> Ending {
    const ERROR: u16 = 500;
    let fine = match result {
        Err(failure) => return Ending::Failed(failure.kind),
        Ok(Output::Http(Ok(response))) => response.status < ERROR,
        Ok(
            Output::Http(Err(problem))
            | Output::Frame(Err(problem))
            | Output::Opened(Err(problem))
            | Output::Missed(Err(problem)),
        ) => problem.status < ERROR,
        Ok(Output::Schedule(run)) => run.is_ok(),
        Ok(Output::Event(verdicts)) => {
            !verdicts.iter().any(|verdict| matches!(verdict, event::Verdict::Reject(_)))
        }
        Ok(_) => true,
    };
    if fine { Ending::Answered } else { Ending::Error }
}

/// Runs a call in its store. The state comes back after every call, also after one that failed. The future
/// owns all that it uses, so that it can move to another thread while it runs.
pub(super) async fn run(
    release: Arc<LoadedRelease>,
    mut store: Store<CallState>,
    input: Arc<Input>,
) -> (Result<Output, Failure>, CallState) {
    let deadline = store.data().deadline;
    let span = tracing::debug_span!(
        "call",
        handler.name = release.name(),
        handler.release = release.terms.release_short,
        call = &*store.data().id,
        trigger = input.trigger().as_str(),
    );
    // The time-out covers the whole call, because epochs do not interrupt a guest that waits for a host call.
    // Dropping the future ends the guest's fiber and the host call in which it was.
    let ended =
        tokio::time::timeout_at(deadline, enter(&mut store, &release.exports, &input).instrument(span)).await;
    // The rest needs no turn, and it may wait for Postgres.
    store.data().middleware.clock.give_up_turn();
    // The guest's stack is gone. `into_data` below drops its store.
    let result = match ended {
        Ok(Ok(mut output)) => match answer::settle(&mut output) {
            Ok(()) => Ok(output),
            Err(broken) => Err(Failure::new(Kind::Answer, broken)),
        },
        Ok(Err(error)) => Err(classify(&error, store.data())),
        Err(_) => Err(Failure::new(
            Kind::Deadline,
            format!("no answer after {} ms", release.terms.limits.deadline_ms),
        )),
    };
    // The detail may contain texts of the guest, and so secret settings.
    let result = result.map_err(|failure| Failure {
        detail: release.terms.secrets.conceal_text(&failure.detail).into_owned(),
        ..failure
    });
    (result, store.into_data())
}

/// Makes a fresh instance, and calls the export for this input.
async fn enter(store: &mut Store<CallState>, exports: &Exports, input: &Input) -> wasmtime::Result<Output> {
    store.data().middleware.clock.enter_guest(Instant::now());
    macro_rules! instance {
        ($export:ident, $interface:ident) => {
            match &exports.$export {
                Some(pre) => pre.instantiate_async(&mut *store).await?,
                None => return Err(NotExported(stringify!($export)).into()),
            }
        };
    }
    Ok(match input {
        Input::Http(request) => {
            let guest = instance!(http, http);
            Output::Http(guest.switchboard_host_http().call_handle(store, request).await?)
        }
        Input::Frame(request) => {
            let guest = instance!(frame, frame);
            Output::Frame(guest.switchboard_host_frame().call_handle(store, request).await?)
        }
        Input::Opened(opened) => {
            let guest = instance!(connection, connection);
            Output::Opened(guest.switchboard_host_connection().call_open(store, opened).await?)
        }
        Input::Closed(closed) => {
            let guest = instance!(connection, connection);
            Output::Closed(guest.switchboard_host_connection().call_close(store, closed).await?)
        }
        Input::Touched { node, touches } => {
            let guest = instance!(connection, connection);
            Output::Touched(guest.switchboard_host_connection().call_touched(store, node, touches).await?)
        }
        Input::Missed(gap) => {
            let guest = instance!(connection, connection);
            Output::Missed(guest.switchboard_host_connection().call_missed(store, gap).await?)
        }
        Input::Schedule(tick) => {
            let guest = instance!(schedule, schedule);
            Output::Schedule(guest.switchboard_host_schedule().call_run(store, tick).await?)
        }
        Input::Event { events } => {
            let guest = instance!(event, event);
            Output::Event(guest.switchboard_host_event().call_handle(store, events).await?)
        }
    })
}

/// Makes an instance of every export, without a call. This checks types and start functions before the
/// release gets traffic.
pub(super) async fn warm(store: &mut Store<CallState>, exports: &Exports) -> wasmtime::Result<()> {
    store.data().middleware.clock.enter_guest(Instant::now());
    if let Some(pre) = &exports.http {
        pre.instantiate_async(&mut *store).await?;
    }
    if let Some(pre) = &exports.frame {
        pre.instantiate_async(&mut *store).await?;
    }
    if let Some(pre) = &exports.connection {
        pre.instantiate_async(&mut *store).await?;
    }
    if let Some(pre) = &exports.schedule {
        pre.instantiate_async(&mut *store).await?;
    }
    if let Some(pre) = &exports.event {
        pre.instantiate_async(&mut *store).await?;
    }
    Ok(())
}

/// Logs a failed call: its release, caller, trigger, failure and last host calls. The line has no argument
/// and no answer.
pub(super) fn log_failure(release: &LoadedRelease, trigger: Trigger, failure: &Failure, state: &CallState) {
    let mut last = String::new();
    for digest in state.middleware.last() {
        let _ = write!(last, "{}{digest}", if last.is_empty() { "" } else { "; " });
    }
    warn!(
        handler.name = release.name(),
        handler.release = release.terms.release_short,
        call = &*state.id,
        user = state.principal.as_ref().map(|principal| principal.user_id.as_str()),
        connection = state.connection.map(tracing::field::display),
        trigger = trigger.as_str(),
        failure = failure.kind.as_str(),
        blame = failure.blame().as_str(),
        cpu_us = state.middleware.clock.spent().as_micros() as u64,
        host_calls = state.middleware.calls(),
        lines_dropped = state.lines_dropped(),
        last_host_calls = last,
        "{} failed a call; the caller gets a problem and no answer: {failure}",
        release.name(),
    );
}

#[derive(Debug)]
struct NotExported(&'static str);

impl std::fmt::Display for NotExported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the release is not bound to `on.{}`", self.0)
    }
}

impl std::error::Error for NotExported {}

pub(super) fn classify(error: &wasmtime::Error, state: &CallState) -> Failure {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        let kind = match stop {
            Stop::HostCalls { .. } => Kind::HostCalls,
            Stop::HostBytes { .. } => Kind::HostBytes,
            Stop::Cpu { .. } => Kind::Cpu,
            Stop::Broke(_) | Stop::Fault(_) => Kind::Trap,
            Stop::Diverged { .. } => Kind::Diverged,
            Stop::Deadline { .. } => Kind::Deadline,
        };
        // A live call that waits at its deadline has no backtrace, so a replayed one gets none either.
        let place = if kind == Kind::Deadline { String::new() } else { place(error) };
        return Failure::new(kind, format!("{stop}{place}"));
    }
    if let Some(limit) = error.downcast_ref::<PoolConcurrencyLimitError>() {
        return Failure::new(Kind::Busy, limit.to_string());
    }
    if let Some(missing) = error.downcast_ref::<NotExported>() {
        return Failure::new(Kind::NotExported, missing.to_string());
    }
    match state.memory.refused {
        Some(MemoryRefused::ByManifest) => {
            let most = state.terms.limits.memory_mib;
            return Failure::new(Kind::Memory, format!("wanted more than {most} MiB{}", place(error)));
        }
        Some(MemoryRefused::ByNode) => {
            let had = state.memory.bytes() / 1024;
            let detail = format!(
                "the node had no memory left for this release when a call of {had} KiB wanted more \
                 (`guest_memory_mib`){}",
                place(error)
            );
            return Failure::new(Kind::NodeMemory, detail);
        }
        None => {}
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return Failure::new(Kind::Trap, format!("{trap}{}", place(error)));
    }
    if error.downcast_ref::<WasmBacktrace>().is_some() {
        // A host function of WASI, or the canonical ABI, rejected its arguments.
        return Failure::new(Kind::Trap, format!("{}{}", error.root_cause(), place(error)));
    }
    // Lowering or lifting failed outside of any frame: the answer has a shape that the contract forbids.
    Failure::new(Kind::Trap, format!("{error:#}"))
}

/// Returns the guest's stack, the innermost function first, by the names that the build kept.
fn place(error: &wasmtime::Error) -> String {
    const FRAMES: usize = 8;
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let mut place = String::new();
    for frame in backtrace.frames().iter().take(FRAMES) {
        place.push_str(if place.is_empty() { ", in " } else { " < " });
        match frame.func_name() {
            Some(name) => {
                let _ = write!(place, "{:#}", rustc_demangle::demangle(name));
            }
            None => {
                let _ = write!(place, "function {}", frame.func_index());
            }
        }
    }
    place
}
