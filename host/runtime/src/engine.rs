//! The engine: the only place that configures wasmtime. It does not decide which release runs, or for how
//! long.

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::interfaces::{self, CallState};
use crate::ticker::Ticker;
use switchboard_core::limits;

/// The purpose of an engine. All of them must agree on everything that affects machine code. Otherwise no
/// artifact loads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Runs artifacts. It cannot compile, so that the serving process does not read hostile code.
    Serve,
    /// Compiles, in a child process. It has no pool, because the addresses that a pool reserves exceed the
    /// child's limit.
    Compile,
    /// Inspects an artifact that the serving engine refuses. It has no pool, so it accepts every compiled
    /// artifact.
    Inspect,
}

/// The environment in which guests run: an engine with its linker and its ticker.
pub(super) struct EngineEnv {
    pub engine: Engine,
    pub linker: Linker<CallState>,
    pub ticker: Ticker,
}

impl EngineEnv {
    pub(crate) fn new() -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(Use::Serve))?;
        let mut linker = Linker::new(&engine);
        interfaces::link(&mut linker)?;
        let ticker = Ticker::start(&engine)?;
        Ok(Self { engine, linker, ticker })
    }
}

pub(super) fn config(used: Use) -> Config {
    let mut config = Config::new();
    // The ticker interrupts guests. Without it, a guest that loops would hold its thread for ever.
    config.epoch_interruption(true);
    // The contract has plain exports only. With concurrency, every store would create tables that nothing
    // here uses.
    config.concurrency_support(false);
    config.max_wasm_stack(limits::GUEST_STACK_BYTES_MAX);
    config.async_stack_size(limits::CALL_STACK_BYTES_MAX);
    // The names in a backtrace come from the component's name section. Components have no line tables.
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    match used {
        Use::Serve => {
            config.enable_compiler(false);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
        }
        Use::Compile => {
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        }
        Use::Inspect => {
            config.enable_compiler(false);
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        }
    }
    config
}

fn pool() -> PoolingAllocationConfig {
    let calls = limits::CALLS_MAX;
    let mut pool = PoolingAllocationConfig::new();
    // One of each for every call. With fewer, calls that `CALLS_MAX` admits fail for lack of a slot. This
    // happens, as `busy`, to a node on which every component has two memories.
    pool.total_component_instances(calls);
    pool.total_stacks(calls);
    pool.total_memories(calls);
    pool.total_tables(calls * 4);
    pool.total_core_instances(calls * 8);
    // The maximum that one release may need. `release::fits` checks the same and gives a reason that a person
    // understands.
    pool.max_memories_per_component(limits::MEMORIES_PER_INSTANCE_MAX);
    pool.max_tables_per_component(limits::TABLES_PER_INSTANCE_MAX);
    pool.max_core_instances_per_component(limits::CORE_INSTANCES_PER_INSTANCE_MAX);
    pool.table_elements(limits::TABLE_ELEMENTS_MAX);
    // The maximum of `memory_mib`. With more, a guest could grow beyond what a manifest can grant.
    pool.max_memory_size(limits::HANDLER_MEMORY_MIB_MAX as usize * 1024 * 1024);
    // After a call, the pool clears this part of its memory and keeps it; the kernel takes the rest back.
    // With less, every call has page faults again: a call then takes 28 microseconds instead of 11.
    pool.linear_memory_keep_resident(512 * 1024);
    pool.table_keep_resident(32 * 1024);
    pool.async_stack_keep_resident(64 * 1024);
    pool.max_unused_warm_slots(limits::WARM_SLOTS_MAX);
    // `pagemap_scan` stays off. In wasmtime 48 it does not clear a dirty page that was swapped out, so the
    // next call would read data of this call.
    pool
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use super::*;

    #[test]
    fn serving_and_compiling_engines_shape_the_same_code() {
        let shape = |used| {
            let engine = Engine::new(&config(used)).unwrap();
            let mut hasher = DefaultHasher::new();
            // The serving engine has no compiler. So both hashes are of engines with a compiler and the other
            // settings.
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let mut serving = config(Use::Serve);
        serving.enable_compiler(true);
        let mut hasher = DefaultHasher::new();
        Engine::new(&serving).unwrap().precompile_compatibility_hash().hash(&mut hasher);
        assert_eq!(shape(Use::Compile), hasher.finish());
    }
}
