//! The first call of a canary that goes wrong: recorded as it happens, since nobody knows before that it will. Every call of
//! the canary is, until one has failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::runtime::CallObserver;
use crate::trace::{Trace, redact_secrets};

/// Where it is kept until somebody writes a report.
#[derive(Clone, Default)]
pub struct FirstFailure(Arc<Inner>);

#[derive(Default)]
struct Inner {
    begun: AtomicBool,
    trace: OnceLock<String>,
}

/// The canary's observer.
pub(super) struct Watch {
    pub first: FirstFailure,
    /// Told at every failing call.
    pub alarm: Arc<Notify>,
}

impl FirstFailure {
    pub fn trace(&self) -> Option<&str> {
        self.0.trace.get().map(String::as_str)
    }
}

impl CallObserver for Watch {
    fn wants(&self, _call: &str) -> bool {
        !self.first.0.begun.load(Ordering::Relaxed)
    }

    fn failed(&self) {
        self.alarm.notify_one();
    }

    fn recorded(&self, trace: Trace, failed: bool) {
        if failed && !self.first.0.begun.swap(true, Ordering::Relaxed) {
            let _ = self.first.0.trace.set(trace.write(redact_secrets));
        }
    }
}
