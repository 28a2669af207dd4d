//! `clock`: the system's time. It is the only clock of a handler, so that a replay is exact.

use serde::Serialize;

use super::CallState;
use super::call::Function;
use switchboard_contract::clock;
use switchboard_core::timestamp;

#[derive(Serialize)]
struct Args {}

impl clock::Host for CallState {
    async fn now_ms(&mut self) -> wasmtime::Result<u64> {
        let live = async { timestamp::now_ms() };
        self.middleware.call(Function::ClockNow, &Args {}, live).await
    }
}
