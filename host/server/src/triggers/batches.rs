//! Batches of connections without a timer. The first connection of a queue makes a call at once. The
//! connections that arrive while the calls of their queue are in flight form the next batch.
//!
//! This starts no task: the task of one connection of a batch makes the call of all of them. So a shutdown
//! that waits for the connections also waits for these calls.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use switchboard_core::limits::{CONNECTION_BATCH_MAX, CONNECTION_BATCHES_AT_ONCE_MAX};

/// The queues of connections, by `K`: what the connections of a batch have in common. `I` is the input of one
/// connection and `O` its result.
pub(super) struct Batches<K: Clone + Eq + Hash, I, O>(Arc<Queues<K, I, O>>);

type Queues<K, I, O> = Mutex<HashMap<K, Queue<K, I, O>>>;

/// A queue exists while it has calls in flight, and so whenever a connection waits.
struct Queue<K: Clone + Eq + Hash, I, O> {
    /// At most [`CONNECTION_BATCHES_AT_ONCE_MAX`].
    in_flight: usize,
    /// In the order of arrival. It has at most one entry for each connection that opens, or that has closed.
    waiting: VecDeque<Waiting<K, I, O>>,
    /// The number of the next entry.
    next: u64,
}

struct Waiting<K: Clone + Eq + Hash, I, O> {
    number: u64,
    input: I,
    /// `None` for the connection whose task makes the call.
    turn: Option<oneshot::Sender<Turn<K, I, O>>>,
}

/// The message that ends the wait of a connection for its batch.
enum Turn<K: Clone + Eq + Hash, I, O> {
    /// Its task makes the call of this batch, to which it belongs.
    Call(Batch<K, I, O>),
    /// The task of another connection has made the call.
    Result(O),
}

/// The end of a connection's wait.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome<O> {
    Result(O),
    /// The call of the connection's batch failed.
    Failed,
    /// The connection got into no batch in time.
    NoTurn,
}

impl<K: Clone + Eq + Hash, I, O> Default for Batches<K, I, O> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash, I, O> Batches<K, I, O> {
    /// Joins a batch of this key, and waits for the result of its call. Until `until` the connection waits
    /// for a batch; from then on its call has a deadline of its own. Either `call` is made here, with the
    /// inputs of a batch that has this one, or that of another connection is made. A call returns one result
    /// for each input, or `None` if it failed.
    pub(super) async fn join<F: Future<Output = Option<Vec<O>>>>(
        &self,
        key: K,
        input: I,
        until: Option<Instant>,
        call: impl FnOnce(Vec<I>) -> F,
    ) -> Outcome<O> {
        let (turn, mut own_turn) = oneshot::channel();
        let number = self.enter(&key, input, turn);
        let turn = match until {
            None => own_turn.await,
            Some(until) => match timeout_at(until, &mut own_turn).await {
                Ok(turn) => turn,
                Err(_) if self.leave(&key, number) => return Outcome::NoTurn,
                Err(_) => own_turn.await,
            },
        };
        match turn {
            Ok(Turn::Call(batch)) => batch.run(call).await,
            Ok(Turn::Result(result)) => Outcome::Result(result),
            Err(_) => Outcome::Failed,
        }
    }

    fn enter(&self, key: &K, input: I, turn: oneshot::Sender<Turn<K, I, O>>) -> u64 {
        let mut queues = self.0.lock();
        let queue = queues.entry(key.clone()).or_insert_with(|| Queue {
            in_flight: 0,
            waiting: VecDeque::new(),
            next: 0,
        });
        let number = queue.next;
        queue.next += 1;
        queue.waiting.push_back(Waiting { number, input, turn: Some(turn) });
        let is_free = queue.in_flight < CONNECTION_BATCHES_AT_ONCE_MAX;
        queue.in_flight += usize::from(is_free);
        drop(queues);
        if is_free {
            start_next(&self.0, key);
        }
        number
    }

    /// Takes a connection out of its queue. Returns false if it is in a batch.
    fn leave(&self, key: &K, number: u64) -> bool {
        let mut queues = self.0.lock();
        let Some(queue) = queues.get_mut(key) else { return false };
        match queue.waiting.binary_search_by_key(&number, |waiting| waiting.number) {
            Ok(place) => queue.waiting.remove(place).is_some(),
            Err(_) => false,
        }
    }
}

/// Passes the next batch of a queue, in which a call counts as in flight, to the task of its first
/// connection. If no connection waits, this call is not in flight any more.
fn start_next<K: Clone + Eq + Hash, I, O>(all: &Arc<Queues<K, I, O>>, key: &K) {
    let mut queues = all.lock();
    let Some(queue) = queues.get_mut(key) else { return };
    let mut waiting = Vec::new();
    while waiting.len() < CONNECTION_BATCH_MAX
        && let Some(next) = queue.waiting.pop_front()
    {
        if next.turn.as_ref().is_some_and(|turn| !turn.is_closed()) {
            waiting.push(next);
        }
    }
    let Some(turn) = waiting.first_mut().and_then(|first| first.turn.take()) else {
        queue.in_flight -= 1;
        if queue.in_flight == 0 {
            queues.remove(key);
        }
        return;
    };
    drop(queues);
    // If the first connection has just gone, the batch is dropped here, and the others wait again.
    let _ = turn.send(Turn::Call(Batch { queues: all.clone(), key: key.clone(), waiting }));
}

/// A batch, whose call is in flight until it is dropped.
struct Batch<K: Clone + Eq + Hash, I, O> {
    queues: Arc<Queues<K, I, O>>,
    key: K,
    /// Empty once the call was made.
    waiting: Vec<Waiting<K, I, O>>,
}

impl<K: Clone + Eq + Hash, I, O> Batch<K, I, O> {
    async fn run<F: Future<Output = Option<Vec<O>>>>(mut self, call: impl FnOnce(Vec<I>) -> F) -> Outcome<O> {
        let waiting = std::mem::take(&mut self.waiting);
        let (inputs, turns): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.input, waiting.turn)).unzip();
        // Without a result, the others receive that their channel was closed.
        let results = call(inputs).await.filter(|results| results.len() == turns.len());
        let mut own = Outcome::Failed;
        for (turn, result) in turns.into_iter().zip(results.into_iter().flatten()) {
            match turn {
                // A connection that is gone needs no result.
                Some(turn) => drop(turn.send(Turn::Result(result))),
                None => own = Outcome::Result(result),
            }
        }
        own
    }
}

impl<K: Clone + Eq + Hash, I, O> Drop for Batch<K, I, O> {
    fn drop(&mut self) {
        if let Some(queue) = self.queues.lock().get_mut(&self.key) {
            // The call was not made, because the task that had to make it is gone.
            while let Some(waiting) = self.waiting.pop() {
                queue.waiting.push_front(waiting);
            }
        }
        start_next(&self.queues, &self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, join_all};
    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    type Users = Batches<&'static str, u32, u32>;

    /// The calls that were made, and permits that let them end.
    struct Calls {
        made: mpsc::UnboundedSender<Vec<u32>>,
        may_end: Semaphore,
        in_flight: AtomicUsize,
        in_flight_max: AtomicUsize,
    }

    fn calls() -> (Arc<Calls>, mpsc::UnboundedReceiver<Vec<u32>>) {
        let (made, calls) = mpsc::unbounded_channel();
        let may_end = Semaphore::new(0);
        let (in_flight, in_flight_max) = Default::default();
        (Arc::new(Calls { made, may_end, in_flight, in_flight_max }), calls)
    }

    impl Calls {
        async fn call(self: Arc<Self>, inputs: Vec<u32>) -> Option<Vec<u32>> {
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.in_flight_max.fetch_max(now, Ordering::SeqCst);
            self.made.send(inputs.clone()).unwrap();
            self.may_end.acquire().await.unwrap().forget();
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            (!inputs.contains(&FAILS)).then(|| inputs.iter().map(|input| input * 10).collect())
        }
    }

    /// Fails the call of its batch.
    const FAILS: u32 = 666;

    fn join<'a>(users: &'a Users, calls: &Arc<Calls>, input: u32) -> BoxFuture<'a, Outcome<u32>> {
        let calls = calls.clone();
        users.join("release", input, None, move |inputs| calls.call(inputs)).boxed()
    }

    /// Polls the futures once, in their order.
    fn poll(joined: &mut [BoxFuture<'_, Outcome<u32>>]) -> Vec<Option<Outcome<u32>>> {
        joined.iter_mut().map(|joined| joined.now_or_never()).collect()
    }

    fn is_empty(users: &Users) -> bool {
        users.0.lock().is_empty()
    }

    #[tokio::test]
    async fn the_first_calls_begin_at_once_and_the_others_form_the_next_batches_in_order() {
        let (users, (calls, mut made)) = (Users::default(), calls());
        let count = 2 + 2 * CONNECTION_BATCH_MAX as u32 + 3;
        let mut joined: Vec<_> = (0..count).map(|input| join(&users, &calls, input)).collect();
        assert!(poll(&mut joined).iter().all(Option::is_none));
        calls.may_end.add_permits(100);
        let outcomes = join_all(joined).await;
        for (input, outcome) in (0..count).zip(outcomes) {
            assert_eq!(outcome, Outcome::Result(input * 10));
        }
        let mut batches = Vec::new();
        while let Ok(batch) = made.try_recv() {
            batches.push(batch);
        }
        let sizes: Vec<_> = batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 1, CONNECTION_BATCH_MAX, CONNECTION_BATCH_MAX, 3]);
        assert_eq!(batches.concat(), (0..count).collect::<Vec<_>>());
        assert_eq!(calls.in_flight_max.load(Ordering::SeqCst), CONNECTION_BATCHES_AT_ONCE_MAX);
        assert!(is_empty(&users));
    }

    #[tokio::test]
    async fn connections_of_different_releases_share_no_batch() {
        let (users, (calls, mut made)) = (Users::default(), calls());
        let to = |release, input| {
            let calls = calls.clone();
            users.join(release, input, None, move |inputs| calls.call(inputs)).boxed()
        };
        // As a canary splits users.
        let mut joined: Vec<_> =
            (0..8).map(|input| to(if input % 2 == 0 { "running" } else { "canary" }, input)).collect();
        poll(&mut joined);
        calls.may_end.add_permits(100);
        join_all(joined).await;
        let mut batches = 0;
        while let Ok(batch) = made.try_recv() {
            batches += 1;
            assert!(batch.iter().all(|input| input % 2 == batch[0] % 2), "{batch:?}");
        }
        assert_eq!(batches, 6);
        assert!(is_empty(&users));
    }

    #[tokio::test]
    async fn a_failed_call_fails_only_its_batch() {
        let (users, (calls, _made)) = (Users::default(), calls());
        let mut joined: Vec<_> = [1, 2, 3, FAILS, 5].map(|input| join(&users, &calls, input)).into();
        poll(&mut joined);
        calls.may_end.add_permits(3);
        let mut outcomes = join_all(joined).await;
        assert_eq!(outcomes.split_off(2), [Outcome::Failed, Outcome::Failed, Outcome::Failed]);
        assert_eq!(outcomes, [Outcome::Result(10), Outcome::Result(20)]);
        // A call with too few results counts as failed.
        let few = users.join("release", 1, None, |_| async { Some(Vec::new()) }).await;
        assert_eq!(few, Outcome::Failed);
        assert!(is_empty(&users));
    }

    #[tokio::test]
    async fn the_others_wait_again_when_the_task_that_makes_their_call_is_gone() {
        let (users, (calls, mut made)) = (Users::default(), calls());
        let mut joined: Vec<_> = (0..6).map(|input| join(&users, &calls, input)).collect();
        poll(&mut joined);
        assert_eq!((made.recv().await, made.recv().await), (Some(vec![0]), Some(vec![1])));
        // The first call ends, and 2 is to make the next call, with 3, 4 and 5. It goes before that, and 3
        // goes as well.
        calls.may_end.add_permits(1);
        assert_eq!(joined.remove(0).await, Outcome::Result(0));
        drop(joined.drain(1..3));
        poll(&mut joined);
        assert_eq!(made.recv().await, Some(vec![4, 5]));
        calls.may_end.add_permits(2);
        assert_eq!(join_all(joined).await, [10, 40, 50].map(Outcome::Result));
        assert!(is_empty(&users));
    }

    #[tokio::test]
    async fn a_call_whose_task_is_gone_fails_its_batch_and_lets_the_next_one_begin() {
        let (users, (calls, mut made)) = (Users::default(), calls());
        let mut joined: Vec<_> = (0..4).map(|input| join(&users, &calls, input)).collect();
        poll(&mut joined);
        calls.may_end.add_permits(1);
        assert_eq!(joined.remove(0).await, Outcome::Result(0));
        poll(&mut joined);
        for expected in [vec![0], vec![1], vec![2, 3]] {
            assert_eq!(made.recv().await, Some(expected));
        }
        drop(joined.remove(1));
        assert_eq!(joined.pop().unwrap().await, Outcome::Failed);
        drop(joined);
        assert!(is_empty(&users));
    }

    #[tokio::test]
    async fn the_wait_for_a_batch_is_bounded_and_a_call_that_began_is_not() {
        let (users, (calls, mut made)) = (Users::default(), calls());
        let until = Instant::now() + Duration::from_millis(20);
        let bounded = |input| {
            let calls = calls.clone();
            users.join("release", input, Some(until), move |inputs| calls.call(inputs)).boxed()
        };
        let mut joined: Vec<_> = (0..3).map(bounded).collect();
        poll(&mut joined);
        assert_eq!(joined.pop().unwrap().await, Outcome::NoTurn);
        assert!(Instant::now() >= until);
        calls.may_end.add_permits(2);
        assert_eq!(join_all(joined).await, [0, 10].map(Outcome::Result));
        assert_eq!((made.recv().await, made.recv().await), (Some(vec![0]), Some(vec![1])));
        assert!(made.try_recv().is_err() && is_empty(&users));
    }
}
