//! One call: a store, an instance, the export, and a classification of how it ended. A failure is logged
//! here, once, because everything about it is known here. The trigger decides what the caller gets.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use tracing::{Instrument, warn};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use super::call_log::Caller;
use super::ending::Ending;
use super::export::{Export, NotExported};
use super::failure::{Failure, Kind};
use super::release::{Exports, LoadedRelease};
use crate::interfaces::stop::Stop;
use crate::interfaces::{CallState, MemoryRefused};
use switchboard_core::Blamed;
use switchboard_telemetry::spans;

/// Returns the attributes that the spans of a traced call and of its host calls share.
pub(super) fn span_attributes(state: &CallState) -> Vec<(&'static str, String)> {
    let mut attributes = vec![
        ("handler.name", state.terms.handler.clone()),
        ("handler.release", state.terms.release_short.clone()),
        ("call", state.id.to_string()),
    ];
    attributes.extend(state.request.as_ref().map(|request| ("request_id", request.to_string())));
    attributes
}

/// Records the span of a traced call. The spans of its host calls are its children.
pub(super) fn record_span<E: Export>(
    release: &LoadedRelease,
    result: &Result<E::Output, Failure>,
    state: &CallState,
    begun: Instant,
    span: &spans::ActiveSpan,
) {
    let outcome = result.as_ref().err().map_or("returned", |failure| failure.kind.as_str());
    let mut attributes = span_attributes(state);
    attributes.extend([
        ("trigger", E::NAME.to_owned()),
        ("outcome", outcome.to_owned()),
        ("cpu_us", state.middleware.clock.spent().as_micros().to_string()),
    ]);
    let name = format!("{} {}", E::NAME, release.name());
    span.end(name, E::SPAN_KIND, begun, attributes, ending::<E>(result).is_bad());
}

/// Classifies how a call ended, for the statistics.
pub(super) fn ending<E: Export>(result: &Result<E::Output, Failure>) -> Ending {
    match result {
        Err(failure) => Ending::Failed(failure.kind),
        Ok(output) if E::is_error(output) => Ending::Error,
        Ok(_) => Ending::Answered,
    }
}

/// Runs a call in its store. The state comes back after every call, also after one that failed. The future
/// owns all that it uses, so that it can move to another thread while it runs.
pub(super) async fn run<E: Export>(
    release: Arc<LoadedRelease>,
    mut store: Store<CallState>,
    input: Arc<E::Input>,
) -> (Result<E::Output, Failure>, CallState) {
    let deadline = store.data().deadline;
    let span = tracing::debug_span!(
        "call",
        handler.name = release.name(),
        handler.release = store.data().terms.release_short,
        call = &*store.data().id,
        request_id = store.data().request.as_deref(),
        trigger = E::NAME,
    );
    // The time-out covers the whole call, because epochs do not interrupt a guest that waits for a host call.
    // Dropping the future ends the guest's fiber and the host call in which it was.
    store.data().middleware.clock.enter_guest(Instant::now());
    let call = E::call(&mut store, &release.exports, &input).instrument(span);
    let ended = tokio::time::timeout_at(deadline, call).await;
    // The rest needs no turn, and it may wait for Postgres.
    store.data().middleware.clock.give_up_turn();
    // The guest's stack is gone. `into_data` below drops its store.
    let result = match ended {
        Ok(Ok(mut output)) => {
            let secrets = &store.data().terms.secrets;
            E::conceal(&mut output, |text| {
                if let Cow::Owned(concealed) = secrets.conceal_text(text) {
                    *text = concealed;
                }
            });
            match E::settle(&mut output) {
                Ok(()) => Ok(output),
                Err(broken) => Err(Failure::new(Kind::Answer, broken)),
            }
        }
        Ok(Err(error)) => Err(classify(&error, store.data())),
        Err(_) => {
            Err(Failure::new(Kind::Deadline, format!("no answer after {} ms", store.data().deadline_ms)))
        }
    };
    // The detail may contain texts of the guest, and so secrets.
    let result = result.map_err(|failure| Failure {
        detail: store.data().terms.secrets.conceal_text(&failure.detail).into_owned(),
        ..failure
    });
    (result, store.into_data())
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
    if let Some(pre) = &exports.connection_batch {
        pre.instantiate_async(&mut *store).await?;
    }
    if let Some(pre) = &exports.schedule {
        pre.instantiate_async(&mut *store).await?;
    }
    if let Some(pre) = &exports.event {
        pre.instantiate_async(&mut *store).await?;
    }
    if let Some(pre) = &exports.before {
        pre.instantiate_async(&mut *store).await?;
    }
    if let Some(pre) = &exports.call {
        pre.instantiate_async(&mut *store).await?;
    }
    if let Some(pre) = &exports.timer {
        pre.instantiate_async(&mut *store).await?;
    }
    Ok(())
}

/// Logs a failed call: its release, caller, trigger, failure and last host calls. The line has no argument
/// and no answer.
pub(super) fn log_failure<E: Export>(
    release: &LoadedRelease,
    caller: Caller<'_>,
    failure: &Failure,
    state: &CallState,
) {
    let user = match caller {
        Caller::User(user) => Some(user),
        Caller::Anonymous | Caller::Event(_) | Caller::Timer(_) | Caller::Batch | Caller::Host => None,
    };
    let mut last = String::new();
    for digest in state.middleware.last() {
        let _ = write!(last, "{}{digest}", if last.is_empty() { "" } else { "; " });
    }
    warn!(
        handler.name = release.name(),
        handler.release = state.terms.release_short,
        call = &*state.id,
        request_id = state.request.as_deref(),
        user,
        connection = state.connection.map(tracing::field::display),
        trigger = E::NAME,
        failure = failure.kind.as_str(),
        blame = failure.blame().as_str(),
        cpu_us = state.middleware.clock.spent().as_micros() as u64,
        host_calls = state.middleware.calls(),
        lines_dropped = state.lines_dropped(),
        last_host_calls = last,
        "{} failed a call; {}: {failure}",
        release.name(),
        E::WITHOUT_ANSWER,
    );
}

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
    let report = state.last_report().map_or_else(String::new, |report| format!("{report}; "));
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return Failure::new(Kind::Trap, format!("{report}{trap}{}", place(error)));
    }
    if error.downcast_ref::<WasmBacktrace>().is_some() {
        // A host function of WASI, or the canonical ABI, rejected its arguments.
        return Failure::new(Kind::Trap, format!("{report}{}{}", error.root_cause(), place(error)));
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
