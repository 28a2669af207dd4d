//! Calls between handlers: the way from a host call to the release that answers it. `interfaces::calls`
//! checks the grants; the registry of the releases picks the release.

use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock, Weak};

use tokio::task::AbortHandle;
use tracing::Instrument;

use super::export::{Answered, Called};
use super::failure::{Failure, Kind};
use super::release::LoadedRelease;
use super::{Call, Runtime};
use switchboard_contract::call::Request;
use switchboard_contract::types::Problem;

/// Finds the release that answers a call of another handler.
pub trait Callees: Send + Sync + 'static {
    /// Picks the running release of a handler or its canary. A subject (a user) always gets the same one.
    fn pick(&self, handler: &str, subject: &str) -> Option<Arc<LoadedRelease>>;
}

/// The other handlers, as the calls of a runtime see them. Empty until [`Runtime::connect_handlers`].
#[derive(Default)]
pub(crate) struct Others(OnceLock<Connected>);

struct Connected {
    /// Weak, because the runtime itself holds this.
    runtime: Weak<Runtime>,
    callees: Arc<dyn Callees>,
}

impl Others {
    /// Connects once. A runtime serves one node, so a second connection has no effect.
    pub(super) fn connect(&self, runtime: &Arc<Runtime>, callees: Arc<dyn Callees>) {
        let runtime = Arc::downgrade(runtime);
        self.0.get_or_init(|| Connected { runtime, callees });
    }

    /// Finds a handler. None: no such handler runs here.
    pub(crate) fn find(&self, handler: &str, subject: &str) -> Option<Callee> {
        let Connected { runtime, callees } = self.0.get()?;
        Some(Callee { runtime: runtime.upgrade()?, release: callees.pick(handler, subject)? })
    }
}

/// A handler that can be called now.
pub(crate) struct Callee {
    runtime: Arc<Runtime>,
    pub(crate) release: Arc<LoadedRelease>,
}

impl Callee {
    /// Makes the call in a task of its own: the host function that waits for it runs on the stack of the
    /// calling guest, which has no room for a second call. No call waits for a call slot, so two handlers
    /// that call each other cannot block each other. If the caller ends, the call ends at its next wait.
    pub(crate) async fn call(
        self,
        call: Call,
        request: Request,
    ) -> Result<Result<Answered, Problem>, Failure> {
        let Self { runtime, release } = self;
        let run = async move { runtime.call::<Called>(&release, call, request).await };
        let task = tokio::spawn(run.in_current_span());
        let _ends_with_its_caller = AbortOnDrop(task.abort_handle());
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => Err(Failure::new(Kind::Host, "the node ended while the call ran")),
            },
        }
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
