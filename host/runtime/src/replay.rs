//! Runs calls whose host calls are answered by a recording or by a test, and records them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::export::{Export, with_export};
use super::recording::{recording_of, taken};
use super::release::LoadedRelease;
use super::{Call, Error, Runtime};
use crate::interfaces::Terms;
use crate::interfaces::call::{Function, Script, Source};
use switchboard_core::limits;
use switchboard_recording::{self as recording, Exchange, Recorder, Recording};

impl Runtime {
    /// Replays a recorded call on any release, with that release's settings and the recorded answers. The
    /// result is a new recording, which can be compared with the first.
    pub async fn replay(
        &self,
        release: &Arc<LoadedRelease>,
        recording: &Recording,
    ) -> Result<Recording, Error> {
        if !recording.is_whole() {
            return Err(Error::of_release(format!(
                "the recording lacks {} host calls that exceeded its bound; it can be read but not replayed",
                recording.left_out
            )));
        }
        // Recorded answers do not depend on the caller. A guest that sees principal and connection has them
        // in its input.
        let call = Call { id: recording.call.as_str().into(), ..Call::new(None) };
        let exchanges = recording.exchanges.clone();
        let source = |terms: &Terms| Source::Replay(Script::new(with_values_of(terms, exchanges)));
        let (input, bytes_max) = (recording.input.clone(), limits::RECORDING_BYTES_MAX * 2);
        self.play_with(release, call, &recording.trigger, input, source, bytes_max).await
    }

    /// Runs and records a call with any source of answers. It records up to `bytes_max` bytes of host calls.
    /// The outcome of the call is in the recording.
    ///
    /// # Errors
    /// When `input` is not an input of `trigger`.
    pub async fn play(
        &self,
        release: &Arc<LoadedRelease>,
        call: Call,
        trigger: &str,
        input: Value,
        source: Source,
        bytes_max: u64,
    ) -> Result<Recording, Error> {
        self.play_with(release, call, trigger, input, |_| source, bytes_max).await
    }

    /// The same with a source that depends on the terms of the call.
    async fn play_with(
        &self,
        release: &Arc<LoadedRelease>,
        call: Call,
        trigger: &str,
        mut input: Value,
        source: impl FnOnce(&Terms) -> Source,
        bytes_max: u64,
    ) -> Result<Recording, Error> {
        let terms = release.terms();
        let source = source(&terms);
        terms.secrets.reveal(&mut input);
        let wrong =
            |why: String| Error::of_release(format!("the input does not fit the trigger `{trigger}`: {why}"));
        with_export!(trigger, E => {
            let input = recording::value_from(input).map_err(|error| wrong(error.to_string()))?;
            Ok(self.play_as::<E>(release, terms, call, input, source, bytes_max).await)
        }, Err(wrong("there is no such trigger".to_owned())))
    }

    async fn play_as<E: Export>(
        &self,
        release: &Arc<LoadedRelease>,
        terms: Arc<Terms>,
        call: Call,
        input: E::Input,
        source: Source,
        bytes_max: u64,
    ) -> Recording {
        let (id, input) = (call.id.clone(), Arc::new(input));
        let recorder = Some(Recorder::up_to(bytes_max));
        let (result, state) =
            self.run::<E>(release, terms.clone(), call, source, recorder, input.clone()).await;
        let taken = state.and_then(taken).map_or_else(Default::default, |(_, taken)| taken);
        recording_of::<E>(&terms, &id, &input, taken, &result)
    }
}

/// Replaces recorded settings and secrets by those of these terms. The answers of backends stay as recorded.
fn with_values_of(terms: &Terms, mut exchanges: Vec<Exchange>) -> Vec<Exchange> {
    let (config, secrets) = (Function::ConfigGet.name(), Function::SecretsGet.name());
    for Exchange { function, args, answer, .. } in &mut exchanges {
        match (args["key"].as_str(), args["name"].as_str(), answer) {
            (Some(key), _, answer) if function == config => *answer = Some(json!(terms.settings.get(key))),
            (_, Some(name), answer) if function == secrets => *answer = Some(json!(terms.secret(name))),
            (_, _, Some(answer)) => terms.secrets.reveal(answer),
            (_, _, None) => {}
        }
    }
    exchanges
}
