//! `wake`: the hint that the outbox has new events. Inside a transaction the hint waits for the COMMIT,
//! because before that a consumer cannot see the events.

use serde::Serialize;

use super::CallState;
use super::call::Function;
use super::stop::Stop;
use switchboard_contract::wake;
use switchboard_core::limits;
use switchboard_postgres::Session;

#[derive(Serialize)]
struct Args<'a> {
    shards: &'a [u32],
}

impl wake::Host for CallState {
    async fn outbox(&mut self, shards: Vec<u32>) -> wasmtime::Result<()> {
        if shards.len() > limits::WAKE_HINT_SHARDS_MAX {
            return Err(Stop::Broke(format!(
                "wake.outbox takes at most {} shards",
                limits::WAKE_HINT_SHARDS_MAX
            ))
            .into());
        }
        let span = self.middleware.span.clone();
        let (wakes, transactions) = (&self.backends.wakes, &mut self.transactions);
        let published = self.session.as_ref().map_or(0, Session::shards_published);
        let live = async {
            if transactions.is_open {
                transactions.wakes.extend(&shards);
            } else if let Some(wakes) = wakes {
                if let Some(span) = span {
                    span.woke(&shards);
                }
                wakes.set_with(&shards, published);
            }
        };
        self.middleware.call(Function::WakeOutbox, &Args { shards: &shards }, live).await
    }
}

impl CallState {
    pub(super) fn wake(&self, shards: &[u32]) {
        if let Some(wakes) = &self.backends.wakes
            && !shards.is_empty()
        {
            if let Some(span) = &self.middleware.span {
                span.woke(shards);
            }
            wakes.set_with(shards, self.session.as_ref().map_or(0, Session::shards_published));
        }
    }
}
