//! Records the first failed call of a canary. It is not known in advance which call will fail, so every call
//! of the canary is recorded until one has failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use switchboard_recording::{Recording, redact_secrets};
use switchboard_runtime::CallObserver;

/// Holds the recording until the report of the withdrawal is written.
#[derive(Clone, Default)]
pub struct FirstFailure(Arc<Inner>);

#[derive(Default)]
struct Inner {
    begun: AtomicBool,
    recording: OnceLock<String>,
}

/// The observer of a canary's calls.
pub(super) struct FirstFailureObserver {
    pub first: FirstFailure,
    /// Notified at every failed call.
    pub canary_failed: Arc<Notify>,
}

impl FirstFailure {
    pub fn recording(&self) -> Option<&str> {
        self.0.recording.get().map(String::as_str)
    }
}

impl CallObserver for FirstFailureObserver {
    fn wants(&self, _call: &str) -> bool {
        !self.first.0.begun.load(Ordering::Relaxed)
    }

    fn failed(&self) {
        self.canary_failed.notify_one();
    }

    fn recorded(&self, recording: Recording, failed: bool) {
        if failed && !self.first.0.begun.swap(true, Ordering::Relaxed) {
            let _ = self.first.0.recording.set(recording.write(redact_secrets));
        }
    }
}
