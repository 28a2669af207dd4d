//! Recordings of calls. The runtime makes them, and writes them into `recording_dir` when an operator has set
//! it.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tracing::warn;

use super::export::Export;
use super::failure::Failure;
use crate::interfaces::{CallState, Terms};
use switchboard_core::config::{RecordedCalls, RecordingSettings};
use switchboard_core::limits;
use switchboard_recording::{self as recording, Exchange, Outcome, Recording, redact_bodies, redact_secrets};

type Taken = (Vec<Exchange>, u32);

/// Writes recordings, one file for each call: `{recording_dir}/{handler}/{trigger}-{call}.trace`.
pub(super) struct Recordings {
    settings: RecordingSettings,
    seen: AtomicU32,
    kept: AtomicU32,
}

impl Recordings {
    pub(crate) fn new(settings: RecordingSettings) -> Self {
        Self { settings, seen: AtomicU32::new(0), kept: AtomicU32::new(0) }
    }

    /// Decides at the begin of a call whether to record it, because a later failure cannot be known yet.
    pub(crate) fn begin(&self) -> bool {
        self.seen.fetch_add(1, Relaxed).is_multiple_of(self.settings.one_in)
            && self.kept.load(Relaxed) < limits::RECORDINGS_MAX
    }

    /// Writes a recording. If that fails, it is logged; the call has its answer already.
    pub(crate) async fn keep(&self, recording: &Recording, failed: bool) {
        if !failed && self.settings.calls == RecordedCalls::Failed {
            return;
        }
        match self.kept.fetch_add(1, Relaxed) {
            kept if kept < limits::RECORDINGS_MAX => {}
            limits::RECORDINGS_MAX => {
                return warn!("wrote {} recordings; this process writes no more", limits::RECORDINGS_MAX);
            }
            _ => return,
        }
        if let Err(error) = self.write(recording).await {
            warn!(directory = %self.settings.directory.display(), "cannot write a recording, so this call is not recorded: {error}");
        }
    }

    async fn write(&self, recording: &Recording) -> io::Result<()> {
        let directory = self.settings.directory.join(&recording.handler);
        tokio::fs::create_dir_all(&directory).await?;
        // The id of a live call is a UUID of the host, and not the client's `x-request-id`. The filter makes
        // sure that a file name never leaves the directory, whatever id a caller of this crate passes.
        let name: String = recording
            .call
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
            .take(64)
            .collect();
        let path = directory.join(format!("{}-{name}.trace", recording.trigger));
        let redact = if self.settings.bodies { redact_secrets } else { redact_bodies };
        tokio::fs::write(path, recording.write(redact)).await
    }
}

/// Takes the recorded host calls out of the state, if the call was recorded.
pub(super) fn taken(mut state: CallState) -> Option<(CallState, Taken)> {
    let taken = state.middleware.take_recorder()?.finish();
    Some((state, taken))
}

/// Makes the recording of a call that ran under these terms. It contains no secret setting.
pub(super) fn recording_of<E: Export>(
    terms: &Terms,
    call: &str,
    input: &E::Input,
    (exchanges, left_out): Taken,
    result: &Result<E::Output, Failure>,
) -> Recording {
    let mut recording = Recording {
        handler: terms.handler.clone(),
        release: Some(terms.release),
        call: call.to_owned(),
        trigger: E::NAME.to_owned(),
        scenario: None,
        input: recording::value_of(input),
        exchanges,
        left_out,
        outcome: match result {
            Ok(output) => Outcome::Returned(recording::value_of(output)),
            Err(failure) => {
                Outcome::Failed { kind: failure.kind.as_str().to_owned(), detail: failure.detail.clone() }
            }
        },
    };
    // This is the only place that makes a recording of a call, so no recording contains a secret setting.
    terms.secrets.conceal_new_recording(&mut recording);
    recording
}
