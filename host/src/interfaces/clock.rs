//! `clock`: the system's time. The only clock a handler has, so that a replay is exact.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::CallState;
use super::call::Function;
use crate::contract::clock;

#[derive(Serialize)]
struct Args {}

impl clock::Host for CallState {
    async fn now_ms(&mut self) -> wasmtime::Result<u64> {
        let live = async {
            // Before 1970 there was no such machine.
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
        };
        self.border.call(Function::ClockNow, &Args {}, live).await
    }
}
