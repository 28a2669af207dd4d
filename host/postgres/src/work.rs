//! The owner of what runs beside the calls: flights, cancellations, resets. Each is short and bounded by its own deadline;
//! here they are counted, their panics reported, and their end awaited.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{JoinError, JoinSet};

#[derive(Clone, Default)]
pub(super) struct Work(Arc<Mutex<JoinSet<()>>>);

impl Work {
    /// Outside a runtime, at the very end of the process, the work is dropped, which closes its connection.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = running.try_join_next() {
            report(ended);
        }
        running.spawn_on(work, &runtime);
    }

    /// Resolves when everything spawned so far has ended.
    pub async fn ended(&self) {
        let mut running = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = running.join_next().await {
            report(ended);
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("work on a Postgres connection panicked: {error}");
    }
}
