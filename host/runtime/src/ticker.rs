//! The ticker: a thread that advances the engine's epoch while calls run, so that a guest that loops is
//! interrupted. Without calls it sleeps, because an idle node must not wake a thousand times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Thread};

use wasmtime::Engine;

use switchboard_core::limits;

/// The ticker of one engine.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    /// The number of running calls.
    calls: AtomicUsize,
    is_asleep: AtomicBool,
}

/// One running call. While it exists, the epoch advances.
pub(crate) struct Ticking(Arc<Shared>);

impl Ticker {
    /// Starts the thread. It holds a weak reference to the engine, and ends soon after the engine is dropped.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let (engine, shared) = (engine.weak(), Arc::<Shared>::default());
        let of_thread = shared.clone();
        // A plain thread, because a task runs only when a worker is free, and the guest to be interrupted may
        // hold them all.
        let thread = thread::Builder::new().name("epoch".into()).spawn(move || {
            let mut idle_ticks = 0;
            loop {
                thread::sleep(limits::EPOCH_TICK);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
                drop(engine);
                idle_ticks = if of_thread.calls.load(SeqCst) == 0 { idle_ticks + 1 } else { 0 };
                // It stays awake for a while, because waking it costs the next call a system call.
                if idle_ticks >= limits::EPOCH_IDLE_TICKS_MAX {
                    of_thread.sleep();
                    idle_ticks = 0;
                }
            }
        })?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Makes the epoch advance until the result is dropped.
    pub(crate) fn tick(&self) -> Ticking {
        self.shared.calls.fetch_add(1, SeqCst);
        if self.shared.is_asleep.swap(false, SeqCst) {
            self.thread.unpark();
        }
        Ticking(self.shared.clone())
    }
}

impl Shared {
    /// Sleeps until a call begins, and for at most [`limits::EPOCH_SLEEP_MAX`].
    fn sleep(&self) {
        // Set before the calls are counted again: a call that begins after that sees it, and wakes the
        // thread.
        self.is_asleep.store(true, SeqCst);
        if self.calls.load(SeqCst) == 0 {
            thread::park_timeout(limits::EPOCH_SLEEP_MAX);
        }
        self.is_asleep.store(false, SeqCst);
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, SeqCst);
    }
}
