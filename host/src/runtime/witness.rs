//! Who looks at some calls of a release while they happen: the judge of a canary, who wants the first one that fails, and a
//! shadow, who wants a sample. The runtime asks before a call and tells after it; what it is for, it does not know.

use arc_swap::ArcSwapOption;

use crate::trace::Trace;

pub trait Witness: Send + Sync + 'static {
    /// Whether the call that begins is to be recorded.
    fn wants(&self, call: &str) -> bool;

    /// A call ended without an answer by the handler's fault, or with an error.
    fn failed(&self);

    /// What a recorded call was.
    fn recorded(&self, trace: Trace, failed: bool);
}

/// A release's place for one. Empty, it costs a call one load.
#[derive(Default)]
pub struct Witnessed(ArcSwapOption<Box<dyn Witness>>);

impl Witnessed {
    /// Instead of the one before.
    pub fn by(&self, witness: Option<Box<dyn Witness>>) {
        self.0.store(witness.map(std::sync::Arc::new));
    }

    /// None where nobody looks.
    pub fn with<T>(&self, ask: impl FnOnce(&dyn Witness) -> T) -> Option<T> {
        self.0.load().as_ref().map(|witness| ask(&***witness))
    }
}
