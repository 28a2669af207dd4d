//! How the process ends: one signal, many guards. Spawned work holds a guard; the end waits for all of them, up to a bound.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Held by the owner of the process. `begin` tells everyone; `finished` waits until every guard is dropped.
pub struct Shutdown {
    begun: watch::Sender<bool>,
    guards: mpsc::Sender<()>,
    last_guard: mpsc::Receiver<()>,
}

/// Held by spawned work, cloned for its children. Dropping it says: ended.
#[derive(Clone)]
pub struct Guard {
    begun: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
}

/// Held by who only wants to know. The end does not wait for it.
#[derive(Clone)]
pub struct Onlooker {
    begun: watch::Receiver<bool>,
}

impl Shutdown {
    pub fn new() -> Self {
        let (guards, last_guard) = mpsc::channel(1);
        Self { begun: watch::Sender::new(false), guards, last_guard }
    }

    pub fn guard(&self) -> Guard {
        Guard { begun: self.begun.subscribe(), _alive: self.guards.clone() }
    }

    pub fn onlooker(&self) -> Onlooker {
        Onlooker { begun: self.begun.subscribe() }
    }

    pub fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// False when guards were still held after `patience`.
    pub async fn finished(mut self, patience: Duration) -> bool {
        drop(self.guards);
        tokio::time::timeout(patience, self.last_guard.recv()).await.is_ok()
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Onlooker {
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }
}

impl Guard {
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Resolves when the process begins to end. Cancel safe.
    pub async fn begun(&mut self) {
        // An error means that the owner is gone, which is an end too.
        let _ = self.begun.wait_for(|begun| *begun).await;
    }
}
