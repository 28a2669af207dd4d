//! The engine: the one place where wasmtime is configured, and the clock that interrupts guests. Which release runs, and
//! for how long, is not decided here.

use std::thread;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::interfaces::guest_clock::TICK;
use crate::interfaces::{self, CallState};
use crate::limits;

/// What an engine is for. Both must agree on everything that shapes machine code, or no artifact would load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Runs artifacts; can not compile, so that the serving process does not read hostile code.
    Serve,
    /// Compiles, in a process of its own; has no pool, whose reserved addresses would not fit the child's bound.
    Compile,
    /// Looks into an artifact that the first one refuses. No pool, so it takes whatever was compiled.
    Inspect,
}

/// Where guests run: an engine with its linker and its ticking clock.
pub(super) struct EngineEnv {
    pub engine: Engine,
    pub linker: Linker<CallState>,
}

impl EngineEnv {
    pub fn new() -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(Use::Serve))?;
        let mut linker = Linker::new(&engine);
        interfaces::link(&mut linker)?;
        start_ticker(&engine)?;
        Ok(Self { engine, linker })
    }
}

pub(super) fn config(used: Use) -> Config {
    let mut config = Config::new();
    // Guests are interrupted by the clock below. Without it a loop holds its thread for ever.
    config.epoch_interruption(true);
    // Plain exports only. With it every store would set up tables for concurrent tasks that nothing here uses.
    config.concurrency_support(false);
    // Rust keeps its data on a stack in linear memory; this one is for return addresses and spilled registers. Larger
    // costs memory in every call, much smaller and serde's recursion traps before its own limit of 128 levels.
    config.max_wasm_stack(64 * 1024);
    // Guest and the host functions it calls share this one. Too small and a host function overflows it, which ends the
    // process, so it leaves them 448 KiB: tokio-postgres under `opt-level = 1` needs some 30.
    config.async_stack_size(512 * 1024);
    // Names of functions come from the component's own name section; line tables are not in it.
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
    // One of each for every call. Fewer and calls fail for want of a slot although `CALLS_MAX` let them in; that is
    // what happens, as `busy`, to a node full of components with two memories.
    pool.total_component_instances(calls);
    pool.total_stacks(calls);
    pool.total_memories(calls);
    pool.total_tables(calls * 4);
    pool.total_core_instances(calls * 8);
    // What one release may want. `release::fits` refuses it with a sentence before these refuse it with an error.
    pool.max_memories_per_component(limits::MEMORIES_PER_INSTANCE_MAX);
    pool.max_tables_per_component(limits::TABLES_PER_INSTANCE_MAX);
    pool.max_core_instances_per_component(limits::CORE_INSTANCES_PER_INSTANCE_MAX);
    pool.table_elements(limits::TABLE_ELEMENTS_MAX);
    // The ceiling of `memory_mib`; more would let a guest grow past what any manifest can grant.
    pool.max_memory_size(limits::HANDLER_MEMORY_MIB_MAX as usize * 1024 * 1024);
    // After a call so much of its memory is cleared by hand and kept; the rest goes back to the kernel. This is the
    // difference between 28 and 11 microseconds a call: with less, every call faults its pages in again.
    pool.linear_memory_keep_resident(512 * 1024);
    pool.table_keep_resident(32 * 1024);
    pool.async_stack_keep_resident(64 * 1024);
    // Slots that keep those bytes, so at most some 150 MiB. Fewer and a burst finds cold slots; more only costs memory.
    pool.max_unused_warm_slots(256);
    // `pagemap_scan` stays off: in wasmtime 48 a dirty page that was swapped out is not cleared by it, and the next
    // call would read what this one wrote.
    pool
}

/// Ends with the engine: it holds a weak reference, and sleeps no longer than a tick.
fn start_ticker(engine: &Engine) -> wasmtime::Result<()> {
    let engine = engine.weak();
    // A plain thread: a task would tick only when a worker is free, and the guest it should interrupt may hold them all.
    thread::Builder::new().name("epoch".into()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    })?;
    Ok(())
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
            // The serving engine has no compiler to hash; what both hash is the rest, by an engine that has one.
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
