//! The owner of the background tasks on connections: batches of the group commit, cancellations and resets.
//! Each task is short and bounded by its own deadline. The owner counts the tasks, reports their panics and
//! awaits their end.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::{JoinError, JoinSet};

#[derive(Clone, Default)]
pub(super) struct Work(Arc<Mutex<JoinSet<()>>>);

impl Work {
    /// Spawns a task. Outside a tokio runtime, at the very end of the process, the task is dropped instead,
    /// which closes its connection.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut running = self.0.lock();
        while let Some(ended) = running.try_join_next() {
            report(ended);
        }
        running.spawn_on(work, &runtime);
    }

    /// Resolves when every task spawned so far has ended.
    pub(crate) async fn ended(&self) {
        let mut running = std::mem::take(&mut *self.0.lock());
        while let Some(ended) = running.join_next().await {
            report(ended);
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(
            "a background task on a Postgres connection panicked; its connection is closed: {error}"
        );
    }
}
