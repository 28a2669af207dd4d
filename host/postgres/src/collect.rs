//! Collection without a timer. The first call of a lane flies at once; what arrives during its flight is the next batch.
//! A flight is one transaction in one round trip, and it is nobody's call: it runs in its own task, so a caller that goes
//! away changes nothing for the others.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::ToSql;

use super::connection::{Prepared, Transacted};
use super::failure::Failure;
use super::roles::{Lease, Roles};
use super::session::check_params;
use super::statement::Statement;
use super::value;
use crate::contract::postgres::{Collected, Error, Rows, Value};
use crate::ids::Digest;
use crate::limits;

#[derive(Clone)]
pub(super) struct Collector(Arc<Inner>);

struct Inner {
    roles: Roles,
    lanes: Mutex<HashMap<Arc<Key>, VecDeque<Waiting>>>,
}

/// Calls with the same key may share a transaction. The types need no place in it: the statements give them.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    generation: Digest,
    role: Arc<str>,
    statements: Vec<String>,
    columns: usize,
    lane: u32,
}

/// One call's wish, checked.
pub(super) struct Request {
    key: Key,
    row: Vec<Value>,
}

impl Request {
    pub fn parse(role: Arc<str>, generation: Digest, collected: Collected) -> Result<Self, Error> {
        let Collected { statements, row, lane } = collected;
        if !(1..=limits::COLLECT_STATEMENTS_MAX).contains(&statements.len()) {
            let most = limits::COLLECT_STATEMENTS_MAX;
            return Err(Error::Refused(format!("a collection has 1 to {most} statements")));
        }
        for statement in &statements {
            Statement::parse(statement).map_err(Error::Refused)?;
        }
        check_params(&row)?;
        Ok(Self { key: Key { generation, role, statements, columns: row.len(), lane }, row })
    }
}

/// A call that waits for a flight or for the answer of one.
struct Waiting {
    row: Vec<Value>,
    deadline: Instant,
    /// Set before it is looked whether the caller is still there; who leaves looks after leaving. So either the flight
    /// sees that the caller left, or the caller sees that it flies.
    aboard: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<Rows, Error>>,
}

impl Waiting {
    fn board(self) -> Option<Self> {
        self.aboard.store(true, Ordering::SeqCst);
        (!self.answer.is_closed()).then_some(self)
    }
}

impl Collector {
    pub fn new(roles: Roles) -> Self {
        Self(Arc::new(Inner { roles, lanes: Mutex::default() }))
    }

    pub async fn join(&self, request: Request, deadline: Instant) -> Result<Rows, Error> {
        let (answer, answered) = oneshot::channel();
        let aboard = Arc::new(AtomicBool::new(false));
        let waiting = Waiting { row: request.row, deadline, aboard: aboard.clone(), answer };
        self.enqueue(request.key, waiting)?;
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            // The flight's task ended without a word.
            Ok(Err(_)) => Err(Error::UnknownOutcome),
            Err(_) if aboard.load(Ordering::SeqCst) => Err(Error::UnknownOutcome),
            Err(_) => Err(Error::Deadline),
        }
    }

    fn enqueue(&self, key: Key, waiting: Waiting) -> Result<(), Error> {
        let mut lanes = self.0.lock();
        if let Some(queue) = lanes.get_mut(&key) {
            if queue.len() >= limits::COLLECT_QUEUE_MAX {
                return Err(Error::Busy);
            }
            queue.push_back(waiting);
            return Ok(());
        }
        if lanes.len() >= limits::COLLECT_LANES_MAX {
            return Err(Error::Busy);
        }
        let key = Arc::new(key);
        lanes.insert(key.clone(), VecDeque::from([waiting]));
        let lane = Lane { key, collector: self.0.clone() };
        self.0.roles.work().spawn(lane.fly_until_empty());
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Key>, VecDeque<Waiting>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one task that flies a lane's batches, one after the other. While it exists its lane is in the map.
struct Lane {
    key: Arc<Key>,
    collector: Arc<Inner>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Closed already, and perhaps opened anew by another call, unless a flight panicked: then those who wait learn
        // it by their channels.
        let mut lanes = self.collector.lock();
        let left = match lanes.get_key_value(&self.key) {
            Some((key, _)) if Arc::ptr_eq(key, &self.key) => lanes.remove(&self.key),
            _ => None,
        };
        drop(lanes);
        drop(left);
    }
}

impl Lane {
    async fn fly_until_empty(self) {
        while let Some(patience) = self.patience() {
            // Boarding comes after the connection is there: until then more may join, and may leave without doubt.
            let ready = self.ready(patience).await;
            let batch = self.board();
            match ready {
                Ok(ready) if !batch.is_empty() => self.fly(ready, batch).await,
                Ok(_) => {}
                Err(error) => answer_all(batch, &error),
            }
        }
    }

    /// The latest deadline among the waiting; None when nobody waits, and then the lane is closed in the same step.
    fn patience(&self) -> Option<Instant> {
        let mut lanes = self.collector.lock();
        let queue = lanes.get_mut(&self.key)?;
        queue.retain(|waiting| !waiting.answer.is_closed());
        let patience = queue.iter().map(|waiting| waiting.deadline).max();
        if patience.is_none() {
            lanes.remove(&self.key);
        }
        patience
    }

    fn board(&self) -> Vec<Waiting> {
        let mut lanes = self.collector.lock();
        let Some(queue) = lanes.get_mut(&self.key) else { return Vec::new() };
        let mut batch = Vec::with_capacity(queue.len().min(limits::COLLECT_BATCH_MAX));
        while batch.len() < limits::COLLECT_BATCH_MAX
            && let Some(waiting) = queue.pop_front()
        {
            batch.extend(waiting.board());
        }
        batch
    }

    async fn ready(&self, deadline: Instant) -> Result<Ready, Error> {
        let mut lease = self.collector.roles.acquire(&self.key.role, deadline).await?;
        let statements = timeout_at(deadline, lease.prepare_all(&self.key.statements)).await;
        let statements = statements.map_err(|_| Error::Deadline)?.map_err(Failure::uncommitted)?;
        Ok(Ready { lease, statements })
    }

    /// Splits a batch that the server refuses until the culprits are alone. The halves keep their order.
    async fn fly(&self, ready: Ready, batch: Vec<Waiting>) {
        metrics::histogram!("switchboard_postgres_collected_calls").record(batch.len() as f64);
        let (mut ready, mut pending) = (Some(ready), vec![batch]);
        let mut prepared_again = false;
        while let Some(mut batch) = pending.pop() {
            let deadline = batch.iter().map(|waiting| waiting.deadline).max().unwrap_or_else(Instant::now);
            let mut craft = match ready.take() {
                Some(craft) => craft,
                None => match self.ready(deadline).await {
                    Ok(craft) => craft,
                    Err(error) => {
                        answer_all(batch, &error);
                        continue;
                    }
                },
            };
            let flown = timeout_at(deadline, craft.fly(&batch)).await;
            match flown {
                // The lease is dropped in the middle, which cancels; COMMIT was sent with the rest.
                Err(_) => {
                    answer_all(batch, &Error::UnknownOutcome);
                    continue;
                }
                Ok(Ok(rows)) => hand_out(rows, batch),
                Ok(Err(Transacted::NotCommitted(Failure::Stale))) if !prepared_again => {
                    prepared_again = true;
                    pending.push(batch);
                    continue;
                }
                Ok(Err(Transacted::NotCommitted(Failure::Sql(_) | Failure::Conflict(_))))
                    if batch.len() > 1 =>
                {
                    let second = batch.split_off(batch.len() / 2);
                    pending.extend([second, batch]);
                }
                Ok(Err(Transacted::NotCommitted(failure))) => answer_all(batch, &failure.uncommitted()),
                Ok(Err(Transacted::Unknown(failure))) => answer_all(batch, &failure.committing()),
            }
            ready = craft.lease.is_reusable().then_some(craft);
        }
    }
}

/// A connection with the lane's statements prepared on it.
struct Ready {
    lease: Lease,
    statements: Vec<Arc<Prepared>>,
}

impl Ready {
    async fn fly(&mut self, batch: &[Waiting]) -> Result<Rows, Transacted> {
        let columns = batch.first().map_or(0, |waiting| waiting.row.len());
        let numbers = std::iter::once(value::numbers_literal(batch.len()));
        let columns = (0..columns)
            .map(|column| value::array_literal(batch.iter().filter_map(|waiting| waiting.row.get(column))));
        let literals: Vec<value::Literal> = numbers.chain(columns).collect();
        let params: Vec<&(dyn ToSql + Sync)> = literals.iter().map(|literal| literal as _).collect();
        self.lease.transact(&self.statements, &params).await
    }
}

/// Each caller gets the rows with its number, without the number: that says only who else was in the batch.
fn hand_out(rows: Rows, batch: Vec<Waiting>) {
    match split(rows, batch.len()) {
        Ok(parts) => {
            for (waiting, rows) in batch.into_iter().zip(parts) {
                // Whoever left needs no answer.
                let _ = waiting.answer.send(Ok(rows));
            }
        }
        Err(reason) => {
            tracing::error!("a collection was committed, but its answer belongs to nobody: {reason}");
            answer_all(batch, &Error::Refused(reason));
        }
    }
}

/// By the first column, which numbers the calls from 0.
fn split(rows: Rows, calls: usize) -> Result<Vec<Rows>, String> {
    let Rows { mut columns, cells, .. } = rows;
    if columns.is_empty() {
        return Err(
            "the last statement of a collection returns nothing: its first column is the number".to_owned()
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

fn answer_all(batch: Vec<Waiting>, error: &Error) {
    for waiting in batch {
        let _ = waiting.answer.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;
