//! Group commit without a timer. The first call of a lane starts a batch at once; the calls that arrive while
//! this batch is in flight form the next batch.
//!
//! A batch is one transaction in one round trip. It belongs to the lane's task and to no call, so a caller
//! that goes away changes nothing for the other callers.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::ToSql;

use super::call_order::{Place, Rank};
use super::connection::{Prepared, TransactionFailure};
use super::failure::Failure;
use super::outbox::Published;
use super::roles::{PooledConnection, Roles};
use super::statement::Statement;
use super::value;
use switchboard_contract::postgres::{Collected, Error, Rows, Value};
use switchboard_core::ids::Digest;
use switchboard_core::limits;

#[derive(Clone)]
pub(super) struct Collector(Arc<Inner>);

struct Inner {
    roles: Roles,
    lanes: Mutex<Lanes>,
}

/// The lanes that have a task, with their queues.
#[derive(Default)]
struct Lanes(HashMap<Arc<Key>, VecDeque<Waiting>>);

/// Calls with the same key may share a transaction. The key needs no parameter types, because the statements
/// determine them.
#[derive(PartialEq, Eq)]
struct Key {
    generation: Digest,
    role: Arc<str>,
    statements: Vec<String>,
    columns: usize,
    lane: u32,
}

/// The text of the statements is not hashed, because a call on an idle lane looks its key up seven times, and
/// the SQL has kilobytes. A release has few groups of statements, and their sizes differ.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { generation, role, statements, columns, lane } = self;
        (generation, role, columns, lane).hash(state);
        statements.iter().for_each(|statement| statement.len().hash(state));
    }
}

/// The validated request of one call.
pub(super) struct Request {
    key: Key,
    row: Vec<Value>,
}

impl Request {
    pub(crate) fn parse(role: Arc<str>, generation: Digest, collected: Collected) -> Result<Self, Error> {
        let Collected { statements, row, lane } = collected;
        if !(1..=limits::COLLECT_STATEMENTS_MAX).contains(&statements.len()) {
            let most = limits::COLLECT_STATEMENTS_MAX;
            return Err(Error::Refused(format!("a collection has 1 to {most} statements")));
        }
        for statement in &statements {
            Statement::parse(statement).map_err(Error::Refused)?;
        }
        value::check_params(&row)?;
        Ok(Self { key: Key { generation, role, statements, columns: row.len(), lane }, row })
    }
}

/// A call that waits in the queue of its lane, or for the result of the batch that it is in.
struct Waiting {
    row: Vec<Value>,
    deadline: Instant,
    /// Set for a call that may overlap with other calls of its connection.
    place: Option<Arc<Place>>,
    /// The call before it of the same connection.
    before: Option<Arc<Place>>,
    /// True once the call is in a batch. The lane's task sets the flag first and then checks whether the
    /// caller still waits. The caller stops waiting first and then reads the flag. So either the task sees
    /// that the caller left, or the caller sees that its call was started.
    started: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<(Rows, Published), Error>>,
}

impl Waiting {
    fn start(self) -> Option<Self> {
        self.started.store(true, Ordering::SeqCst);
        if let Some(place) = &self.place {
            place.started();
        }
        (!self.answer.is_closed()).then_some(self)
    }

    /// Takes the call out of a batch that was not committed. `None` when the caller left.
    fn unstart(self) -> Option<Self> {
        self.started.store(false, Ordering::SeqCst);
        (!self.answer.is_closed()).then_some(self)
    }

    /// True when the call may be in a later batch than the calls before its half: it follows no running call
    /// of its connection, or it follows one of the calls in `half`.
    fn may_stay_in(&self, half: &[Self]) -> bool {
        let Some(before) = &self.before else { return true };
        let is_before = |other: &Self| other.place.as_ref().is_some_and(|place| Arc::ptr_eq(place, before));
        before.has_ended() || half.iter().any(is_before)
    }
}

impl Collector {
    pub(crate) fn new(roles: Roles) -> Self {
        Self(Arc::new(Inner { roles, lanes: Mutex::default() }))
    }

    /// Joins a batch of the request's lane, and waits for the result: the rows of the request, and the
    /// published shards of the whole batch. With a rank, the write keeps its place among the writes of its
    /// connection.
    pub(crate) async fn join(
        &self,
        request: Request,
        deadline: Instant,
        rank: Option<&mut Rank>,
    ) -> Result<(Rows, Published), Error> {
        let (answer, answered) = oneshot::channel();
        let started = Arc::new(AtomicBool::new(false));
        let (place, before) = rank.map(Rank::ask).map_or((None, None), |(own, before)| (Some(own), before));
        let row = request.row;
        let waiting =
            Waiting { row, deadline, place, before: before.clone(), started: started.clone(), answer };
        Write { key: Arc::new(request.key), waiting, collector: self.clone() }.submit(before);
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            // The lane's task panicked before it sent a result.
            Ok(Err(_)) => Err(Error::UnknownOutcome),
            Err(_) if started.load(Ordering::SeqCst) => Err(Error::UnknownOutcome),
            Err(_) => Err(Error::Deadline),
        }
    }
}

/// A write on its way into the queue of its lane.
pub(super) struct Write {
    key: Arc<Key>,
    waiting: Waiting,
    collector: Collector,
}

impl Write {
    /// Puts the write into the queue of its lane, and the parked writes after it that may follow at once. A
    /// write that must wait for the call before it is parked there.
    pub(super) fn submit(self, before: Option<Arc<Place>>) {
        let collector = self.collector.clone();
        collector.0.lanes.lock().submit(self, before);
    }
}

impl Lanes {
    /// See [`Write::submit`].
    fn submit(&mut self, write: Write, before: Option<Arc<Place>>) {
        let mut next = match before {
            None => Some(write),
            Some(before) => {
                let (lane, length) = self.position(&write.key);
                before.park(write, lane, length < limits::COLLECT_BATCH_MAX)
            }
        };
        while let Some(write) = next {
            next = self.push(write);
        }
    }

    /// Returns what identifies a lane while it has a queue (the address of its key in the map), and the
    /// length of this queue.
    fn position(&self, key: &Arc<Key>) -> (usize, usize) {
        let open = self.0.get_key_value(key);
        open.map_or((Arc::as_ptr(key).addr(), 0), |(open, queue)| (Arc::as_ptr(open).addr(), queue.len()))
    }

    /// Puts a write into the queue of its lane, and starts the lane's task if there is none. Returns the
    /// write of the next call of the same connection if it follows into the same batch.
    fn push(&mut self, write: Write) -> Option<Write> {
        let Write { key, waiting, collector } = write;
        let (lane, length) = self.position(&key);
        if length >= limits::COLLECT_QUEUE_MAX || length == 0 && self.is_full_for(&key) {
            let _ = waiting.answer.send(Err(Error::Busy));
            return None;
        }
        let place = waiting.place.clone();
        match self.0.get_mut(&key) {
            Some(queue) => queue.push_back(waiting),
            None => {
                self.0.insert(key.clone(), VecDeque::from([waiting]));
                let lane = LaneTask { key: key.clone(), collector: collector.0.clone() };
                collector.0.roles.work().spawn(lane.run_until_empty());
            }
        }
        place?.queued(lane, |next| next.key == key && length + 1 < limits::COLLECT_BATCH_MAX)
    }

    fn is_full_for(&self, key: &Key) -> bool {
        self.0.len() >= limits::COLLECT_LANES_MAX && !self.0.contains_key(key)
    }
}

/// The task that executes the batches of one lane, one after the other. While it exists, its lane is in the
/// map.
struct LaneTask {
    key: Arc<Key>,
    collector: Arc<Inner>,
}

impl Drop for LaneTask {
    fn drop(&mut self) {
        // After a normal end the lane is closed already, and another call may have opened it again. After a
        // panic the lane is removed here, and its waiting calls see that their channels were closed.
        let mut lanes = self.collector.lanes.lock();
        let left = match lanes.0.get_key_value(&self.key) {
            Some((key, _)) if Arc::ptr_eq(key, &self.key) => lanes.0.remove(&self.key),
            _ => None,
        };
        drop(lanes);
        drop(left);
    }
}

impl LaneTask {
    async fn run_until_empty(self) {
        while let Some(latest_deadline) = self.latest_deadline() {
            // Take the batch only after the connection is there. Until then more calls may join, and a call
            // that leaves has a known outcome.
            let prepared = self.prepare(latest_deadline).await;
            let batch = self.take_batch();
            match prepared {
                Ok(prepared) if !batch.is_empty() => self.execute(prepared, batch).await,
                Ok(_) => {}
                Err(error) => send_error(batch, &error),
            }
        }
    }

    /// The latest deadline of the waiting calls. None when no call waits; the same step then closes the lane.
    fn latest_deadline(&self) -> Option<Instant> {
        let mut lanes = self.collector.lanes.lock();
        let queue = lanes.0.get_mut(&self.key)?;
        queue.retain(|waiting| !waiting.answer.is_closed());
        let latest_deadline = queue.iter().map(|waiting| waiting.deadline).max();
        if latest_deadline.is_none() {
            lanes.0.remove(&self.key);
        }
        latest_deadline
    }

    fn take_batch(&self) -> Vec<Waiting> {
        let mut lanes = self.collector.lanes.lock();
        let Some(queue) = lanes.0.get_mut(&self.key) else { return Vec::new() };
        let mut batch = Vec::with_capacity(queue.len().min(limits::COLLECT_BATCH_MAX));
        while batch.len() < limits::COLLECT_BATCH_MAX
            && let Some(waiting) = queue.pop_front()
        {
            batch.extend(waiting.start());
        }
        batch
    }

    async fn prepare(&self, deadline: Instant) -> Result<PreparedLane, Error> {
        let mut connection = self.collector.roles.acquire(&self.key.role, deadline).await?;
        let statements = timeout_at(deadline, connection.prepare_all(&self.key.statements)).await;
        let statements = statements.map_err(|_| Error::Deadline)?.map_err(Failure::uncommitted)?;
        Ok(PreparedLane { connection, statements })
    }

    /// Takes out of the second half of a split batch the calls that follow a running call of their
    /// connection, and parks them until it has ended. This call may write again after its answer, and its
    /// writes come first.
    fn park_followers(&self, second: Vec<Waiting>) -> Vec<Waiting> {
        let mut lanes = self.collector.lanes.lock();
        let mut stay = Vec::with_capacity(second.len());
        for waiting in second {
            if waiting.may_stay_in(&stay) {
                stay.push(waiting);
            } else if let Some(waiting) = waiting.unstart() {
                let (key, collector) = (self.key.clone(), Collector(self.collector.clone()));
                let before = waiting.before.clone();
                lanes.submit(Write { key, waiting, collector }, before);
            }
        }
        stay
    }

    /// Executes a batch. When the server refuses it, the batch is split until the failing calls are alone.
    /// The halves keep their order.
    async fn execute(&self, prepared: PreparedLane, batch: Vec<Waiting>) {
        metrics::histogram!("switchboard_postgres_collected_calls").record(batch.len() as f64);
        let (mut prepared, mut pending) = (Some(prepared), vec![batch]);
        let mut prepared_again = false;
        while let Some(mut batch) = pending.pop() {
            let deadline = batch.iter().map(|waiting| waiting.deadline).max().unwrap_or_else(Instant::now);
            let mut prepared_lane = match prepared.take() {
                Some(lane) => lane,
                None => match self.prepare(deadline).await {
                    Ok(lane) => lane,
                    Err(error) => {
                        send_error(batch, &error);
                        continue;
                    }
                },
            };
            let outcome = timeout_at(deadline, prepared_lane.execute(&batch)).await;
            match outcome {
                // The connection is dropped during the transaction, which cancels it. COMMIT was already
                // sent, so the outcome is unknown.
                Err(_) => {
                    send_error(batch, &Error::UnknownOutcome);
                    continue;
                }
                Ok(Ok(rows)) => send_rows(rows, prepared_lane.connection.take_published(), batch),
                Ok(Err(TransactionFailure::NotCommitted(Failure::Stale))) if !prepared_again => {
                    prepared_again = true;
                    pending.push(batch);
                    continue;
                }
                Ok(Err(TransactionFailure::NotCommitted(Failure::Sql(_) | Failure::Conflict(_))))
                    if batch.len() > 1 =>
                {
                    let second = self.park_followers(batch.split_off(batch.len() / 2));
                    pending.extend([second, batch].into_iter().filter(|half| !half.is_empty()));
                }
                Ok(Err(TransactionFailure::NotCommitted(failure))) => {
                    send_error(batch, &failure.uncommitted())
                }
                Ok(Err(TransactionFailure::Unknown(failure))) => send_error(batch, &failure.committing()),
            }
            prepared = prepared_lane.connection.is_reusable().then_some(prepared_lane);
        }
    }
}

/// A connection on which the lane's statements are prepared.
struct PreparedLane {
    connection: PooledConnection,
    statements: Vec<Arc<Prepared>>,
}

impl PreparedLane {
    async fn execute(&mut self, batch: &[Waiting]) -> Result<Rows, TransactionFailure> {
        let columns = batch.first().map_or(0, |waiting| waiting.row.len());
        let numbers = std::iter::once(value::numbers_literal(batch.len()));
        let columns = (0..columns)
            .map(|column| value::array_literal(batch.iter().filter_map(|waiting| waiting.row.get(column))));
        let literals: Vec<value::Literal> = numbers.chain(columns).collect();
        let params: Vec<&(dyn ToSql + Sync)> = literals.iter().map(|literal| literal as _).collect();
        self.connection.transact(&self.statements, &params).await
    }
}

/// Sends each caller the rows with its number. The number itself is removed, because it only says which other
/// calls were in the batch.
fn send_rows(rows: Rows, published: Published, batch: Vec<Waiting>) {
    match split(rows, batch.len()) {
        Ok(parts) => {
            for (waiting, rows) in batch.into_iter().zip(parts) {
                // A caller that left needs no result.
                let _ = waiting.answer.send(Ok((rows, published)));
            }
        }
        Err(reason) => {
            tracing::error!("batch committed, but its results could not be matched to the callers: {reason}");
            send_error(batch, &Error::Refused(reason));
        }
    }
}

/// Splits the rows by their first column, which holds the number of the call (from 0).
fn split(rows: Rows, calls: usize) -> Result<Vec<Rows>, String> {
    let Rows { mut columns, cells, .. } = rows;
    if columns.is_empty() {
        return Err(
            "the last statement of a collection must return rows whose first column is the call's number"
                .to_owned(),
        );
    }
    let width = columns.len();
    columns.remove(0);
    let empty = || Rows { columns: columns.clone(), cells: Vec::new(), affected: 0 };
    let mut parts: Vec<Rows> = std::iter::repeat_with(empty).take(calls).collect();
    let mut cells = cells.into_iter();
    while let Some(number) = cells.next() {
        let part = match number {
            Value::Integer(number) => usize::try_from(number).ok().and_then(|number| parts.get_mut(number)),
            _ => None,
        };
        let Some(part) = part else {
            return Err(format!(
                "the last statement of a collection returned a row of number {number:?}, not 0 to {}",
                calls - 1
            ));
        };
        part.cells.extend(cells.by_ref().take(width - 1));
        part.affected += 1;
    }
    Ok(parts)
}

fn send_error(batch: Vec<Waiting>, error: &Error) {
    for waiting in batch {
        let _ = waiting.answer.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests;
