//! Observer of the calls of one release: the canary guard records the first call that fails, and the shadow
//! runner records a sample. The runtime asks the observer before a call and notifies it after the call. It
//! does not know the purpose.

use arc_swap::ArcSwapOption;

use switchboard_recording::Recording;

/// Receives calls of one release. The methods run on the call's task, so they must not block.
pub trait CallObserver: Send + Sync + 'static {
    /// Decides whether the runtime records the call that begins. `call` is its id.
    fn wants(&self, call: &str) -> bool;

    /// Notifies that a call ended with an error, or without an answer.
    fn failed(&self);

    /// Takes the recording of a call that the observer wanted.
    fn recorded(&self, recording: Recording, failed: bool);
}

/// A release's place for at most one observer. While it is empty, it costs a call one atomic load.
#[derive(Default)]
pub struct ObserverSlot(ArcSwapOption<Box<dyn CallObserver>>);

impl ObserverSlot {
    /// Replaces the observer. `None` removes it.
    pub fn set(&self, observer: Option<Box<dyn CallObserver>>) {
        self.0.store(observer.map(std::sync::Arc::new));
    }

    /// Passes the observer to `ask`. Returns `None` when there is no observer.
    pub fn with<T>(&self, ask: impl FnOnce(&dyn CallObserver) -> T) -> Option<T> {
        self.0.load().as_ref().map(|observer| ask(&***observer))
    }
}
