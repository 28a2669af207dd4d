//! Background threads, on which long calls continue.
//!
//! A call begins on the task of its caller, and a short call also ends there. A call that has been inside its
//! guest for `limits::LONG_CPU_AFTER` moves to a background thread. These threads have a lower priority, so a
//! guest that computes for long slows down the other calls of the node as little as possible.
//! `interfaces/turns.rs` decides which of the long calls may compute at a time: those that have a *turn*.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

/// The nice value of a background thread. The operating system gives such a thread a tenth of the time of a
/// normal one, and lets a normal one interrupt it at once. With 19, the largest value, a long call on a busy
/// machine would end at its deadline and not at its `cpu_ms`.
const NICE: i32 = 10;

/// A call that has moved to a background thread. It passes its result to its caller itself.
type MovedCall = Pin<Box<dyn Future<Output = ()> + Send>>;
/// The value of a call, or its panic.
type CallResult<T> = Result<T, Box<dyn Any + Send>>;

/// The background threads of a runtime, one for each turn. They start with the first long call and end when
/// the runtime is dropped.
pub(super) struct BackgroundThreads {
    count: usize,
    /// One queue for each thread. A call is in one queue at most, so all of them together hold at most
    /// `limits::CALLS_MAX` calls. Empty if no thread could be started.
    queues: OnceLock<Vec<mpsc::UnboundedSender<MovedCall>>>,
    /// Counts the moved calls, to distribute them over the threads in rotation.
    next: AtomicUsize,
}

impl BackgroundThreads {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, queues: OnceLock::new(), next: AtomicUsize::new(0) }
    }

    /// Runs a call to its end. Each time the call waits, this asks `is_long`; once that returns true, the
    /// call moves from the caller's task to a background thread. Dropping the returned future ends the call:
    /// at once on the caller's task, at its next wait on a background thread.
    ///
    /// # Panics
    /// If the call panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
        is_long: impl Fn() -> bool,
    ) -> T {
        let mut call = Box::pin(call);
        let on_this_task = poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if is_long() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(value) = on_this_task.await {
            return value;
        }
        let (mut to_caller, result) = oneshot::channel::<CallResult<T>>();
        let moved: MovedCall = Box::pin(async move {
            // The caller gets the panic of its call. It must not end the other calls of this thread.
            let mut call = AssertUnwindSafe(call).catch_unwind();
            let result = tokio::select! {
                biased;
                () = to_caller.closed() => return,
                result = &mut call => result,
            };
            // If the caller has gone at this moment, nobody waits for the value.
            let _ = to_caller.send(result);
        });
        if let Err(moved) = self.send(moved) {
            // No thread could be started. The call continues on the caller's task, at normal priority.
            moved.await;
        }
        match result.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => unreachable!("a background thread ends after the calls that were moved to it"),
        }
    }

    /// Passes a call to a thread, or returns it if there is no thread.
    fn send(&self, call: MovedCall) -> Result<(), MovedCall> {
        let queues = self.queues.get_or_init(|| start(self.count));
        if queues.is_empty() {
            return Err(call);
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed) % queues.len();
        queues[next].send(call).map_err(|refused| refused.0)
    }
}

/// Starts the threads. The calls keep the timers and sockets of the runtime from which this is called.
fn start(count: usize) -> Vec<mpsc::UnboundedSender<MovedCall>> {
    let runtime = Handle::current();
    let mut queues = Vec::new();
    for number in 0..count {
        let (queue, calls) = mpsc::unbounded_channel();
        let runtime = runtime.clone();
        let started = thread::Builder::new().name(format!("background-{number}")).spawn(move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                warn!(%error, "a background thread keeps the normal priority; long calls can slow down the others");
            }
            runtime.block_on(poll_all(calls));
        });
        match started {
            Ok(_) => queues.push(queue),
            Err(error) => {
                warn!(%error, "cannot start a background thread; long calls can slow down the others")
            }
        }
    }
    queues
}

/// Polls the calls of one thread, one after the other, until the last one has ended and no further one can
/// come.
async fn poll_all(mut queue: mpsc::UnboundedReceiver<MovedCall>) {
    let mut calls = FuturesUnordered::new();
    let mut open = true;
    while open || !calls.is_empty() {
        tokio::select! {
            next = queue.recv(), if open => match next {
                Some(call) => calls.push(call),
                None => open = false,
            },
            Some(()) = calls.next(), if !calls.is_empty() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_short_call_ends_on_the_callers_thread_and_a_long_one_on_a_background_thread() {
        let threads = BackgroundThreads::new(1);
        let here = thread_name();
        let call = || async {
            tokio::task::yield_now().await;
            thread_name()
        };
        assert_eq!(threads.run(call(), || false).await, here);
        assert_eq!(threads.run(call(), || true).await, "background-0");
        // A timer of the caller's runtime wakes the call on its new thread.
        let sleeps = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let nice = rustix::process::getpriority_process(None).expect("every thread has a priority");
            (thread_name(), nice)
        };
        assert_eq!(threads.run(sleeps, || true).await, ("background-0".to_owned(), NICE));
    }

    #[tokio::test]
    async fn a_long_call_ends_when_its_caller_is_gone() {
        let threads = BackgroundThreads::new(1);
        let (held, dropped) = oneshot::channel::<()>();
        let call = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        let mut run = Box::pin(threads.run(call, || true));
        assert!((&mut run).now_or_never().is_none());
        drop(run);
        assert!(dropped.await.is_err(), "the call was dropped on its thread");
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_no_other_call() {
        let threads = BackgroundThreads::new(1);
        let panics = async {
            tokio::task::yield_now().await;
            panic!("of this call");
        };
        let caught = AssertUnwindSafe(threads.run(panics, || true)).catch_unwind().await;
        assert!(caught.is_err());
        let next = async {
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(threads.run(next, || true).await, 7);
    }
}
