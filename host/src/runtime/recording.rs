//! Calls as traces: written to `trace_dir` where an operator set one, and run again from them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use serde_json::Value;
use tracing::warn;

use super::failure::Failure;
use super::file::Refusal;
use super::invoke::{Input, Output, Trigger};
use super::release::Release;
use super::{Call, Runtime};
use crate::interfaces::CallState;
use crate::interfaces::call::{Script, Source};
use crate::limits;
use crate::trace::{self, Exchange, Outcome, Recorder, Trace, redact_secrets};

type Taken = (Vec<Exchange>, u32);

/// Where traces are kept, one file a call: `{trace_dir}/{handler}/{call}.trace`.
pub(super) struct Recordings {
    directory: PathBuf,
    begun: AtomicU32,
}

impl Recordings {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, begun: AtomicU32::new(0) }
    }

    /// None once there are enough.
    pub fn begin(&self) -> Option<Recorder> {
        let begun = self.begun.fetch_add(1, Relaxed);
        if begun == limits::TRACES_MAX {
            warn!("{begun} traces were recorded, no more are");
        }
        (begun < limits::TRACES_MAX).then(Recorder::default)
    }

    /// A trace that cannot be written is logged; the call it is of has its answer.
    pub async fn keep(&self, trace: &Trace) {
        if let Err(error) = self.write(trace).await {
            warn!(directory = %self.directory.display(), "cannot write a trace: {error}");
        }
    }

    async fn write(&self, trace: &Trace) -> io::Result<()> {
        let directory = self.directory.join(&trace.handler);
        tokio::fs::create_dir_all(&directory).await?;
        // A call's id may come from outside (`x-request-id`); a file's name may not.
        let name: String =
            trace.call.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).take(64).collect();
        let path = directory.join(format!("{}-{name}.trace", trace.trigger));
        tokio::fs::write(path, trace.write(redact_secrets)).await
    }
}

/// What the call recorded, if it did.
pub(super) fn taken(mut state: CallState) -> Option<(CallState, Taken)> {
    let taken = state.border.take_recorder()?.finish();
    Some((state, taken))
}

pub(super) fn trace(
    release: &Release,
    call: &str,
    input: &Input,
    (exchanges, left_out): Taken,
    result: &Result<Output, Failure>,
) -> Trace {
    Trace {
        handler: release.name().to_owned(),
        release: release.digest,
        call: call.to_owned(),
        trigger: input.trigger().as_str().to_owned(),
        input: trace::value_of(input),
        exchanges,
        left_out,
        outcome: match result {
            Ok(output) => Outcome::Returned(trace::value_of(output)),
            Err(failure) => {
                Outcome::Failed { kind: failure.kind.as_str().to_owned(), detail: failure.detail.clone() }
            }
        },
    }
}

pub(super) async fn replay(
    runtime: &Runtime,
    release: &Arc<Release>,
    trace: &Trace,
) -> Result<Trace, Refusal> {
    if !trace.is_whole() {
        return Err(Refusal::of_release(format!(
            "the trace lacks {} host calls that did not fit, it can only be read",
            trace.left_out
        )));
    }
    let input = input(&trace.trigger, trace.input.clone())
        .ok_or_else(|| Refusal::of_release(format!("the trace's input is not one of `{}`", trace.trigger)))?;
    // Answers do not depend on who asks; principal and connection are in the input where a guest sees them.
    let call = Call { id: trace.call.clone(), principal: None, connection: None };
    let source = Source::Replay(Script::new(trace.exchanges.clone()));
    let (result, state) = runtime.run(release, call, source, Some(Recorder::default()), &input).await;
    let taken = state.and_then(taken).map_or_else(Default::default, |(_, taken)| taken);
    Ok(self::trace(release, &trace.call, &input, taken, &result))
}

fn input(trigger: &str, value: Value) -> Option<Input> {
    let trigger = Trigger::ALL.into_iter().find(|known| known.as_str() == trigger)?;
    let input = match trigger {
        Trigger::Http => trace::value_from(value).map(Input::Http),
        Trigger::Frame => trace::value_from(value).map(Input::Frame),
        Trigger::Opened => trace::value_from(value).map(Input::Opened),
        Trigger::Closed => trace::value_from(value).map(Input::Closed),
        Trigger::Touched => trace::value_from(value)
            .map(|touched: Touched| Input::Touched { node: touched.node, touches: touched.touches }),
        Trigger::Missed => trace::value_from(value).map(Input::Missed),
        Trigger::Schedule => trace::value_from(value).map(Input::Schedule),
        Trigger::Event => {
            trace::value_from(value).map(|handed: Handed| Input::Event { events: handed.events })
        }
    };
    input.ok()
}

#[derive(serde::Deserialize)]
struct Touched {
    node: String,
    touches: Vec<crate::contract::connection::Touch>,
}

#[derive(serde::Deserialize)]
struct Handed {
    events: Vec<crate::contract::event::Event>,
}
