//! Orderly end of the process: one signal, many guards. Spawned work holds a guard. The process waits until
//! all guards are dropped, up to a bound.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// The signal's sender, held by the owner of the process.
pub struct Shutdown {
    begun: watch::Sender<bool>,
    guards: mpsc::Sender<()>,
    last_guard: mpsc::Receiver<()>,
}

/// The signal's receiver, held by spawned work and cloned for its children. The process does not end before
/// it is dropped.
#[derive(Clone)]
pub struct ShutdownGuard {
    begun: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

/// A receiver of the signal for code that only reads it. The end of the process does not wait for it.
#[derive(Clone)]
pub struct ShutdownWatch {
    begun: watch::Receiver<bool>,
}

impl Shutdown {
    pub fn new() -> Self {
        let (guards, last_guard) = mpsc::channel(1);
        Self { begun: watch::Sender::new(false), guards, last_guard }
    }

    pub fn guard(&self) -> ShutdownGuard {
        ShutdownGuard { begun: self.begun.subscribe(), _alive: self.guards.clone() }
    }

    pub fn watch(&self) -> ShutdownWatch {
        ShutdownWatch { begun: self.begun.subscribe() }
    }

    /// Sends the signal to every guard and watch.
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Waits until every guard is dropped, at most `wait`. Returns false when guards were still held then.
    pub async fn finished(mut self, wait: Duration) -> bool {
        drop(self.guards);
        tokio::time::timeout(wait, self.last_guard.recv()).await.is_ok()
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl ShutdownWatch {
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }
}

impl ShutdownGuard {
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Resolves when the shutdown begins. Cancel safe.
    pub async fn begun(&mut self) {
        // An error means that the owner was dropped, which ends the process too.
        let _ = self.begun.wait_for(|begun| *begun).await;
    }
}
