//! The only function that makes a store. A store holds one call's share of memory, time and backends, and
//! nothing of it outlives the call.

use wasmtime::{Store, UpdateDeadline};

use crate::engine::EngineEnv;
use crate::interfaces::CallState;

pub(super) fn build(env: &EngineEnv, mut state: CallState) -> Store<CallState> {
    // Without it nothing interrupts the guest.
    state.ticking = Some(env.ticker.tick());
    let host_bytes = state.terms.limits.host_bytes;
    let mut store = Store::new(&env.engine, state);
    // Without it a guest grows to the pool's ceiling, whatever its manifest says.
    store.limiter(|state| &mut state.memory);
    // The memory that one host call can make this process allocate while it reads the arguments. It exceeds
    // twice the budget, so that the middleware, with a reason, refuses arguments that are only over the
    // budget.
    store.set_hostcall_fuel(usize::try_from(host_bytes).unwrap_or(usize::MAX / 4) * 2 + 64 * 1024);
    // The next tick of the ticker. With a larger value, a guest would hold its thread for as many ticks.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| {
        let state = context.data_mut();
        let clock = state.middleware.clock.clone();
        clock.leave_guest(std::time::Instant::now())?;
        let turns = state.terms.turns.clone();
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(async move { clock.pause(&turns).await })))
    });
    store
}
