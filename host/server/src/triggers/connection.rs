//! The life of connections, for handlers that care: opened, closed, touched, and what an address published meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};
use uuid::Uuid;

use super::{Triggers, told};
use switchboard_contract::connection::{Closed, Opened, Page, Touch};
use switchboard_contract::types::Push;
use switchboard_core::ids::{ConnectionId, UserId};
use switchboard_core::limits;
use switchboard_core::shutdown::ShutdownGuard;
use switchboard_core::timestamp;
use switchboard_fanout::Missing;
use switchboard_runtime::{Call, Failure, Kind};

impl Triggers {
    /// What the handlers want the client to have first. A handler that fails costs its own part of it. Waits for its turn:
    /// a crowd must not take all slots, and find none.
    pub async fn opened(&self, opened: Opened) -> Vec<Push> {
        let mut pushes = Vec::new();
        let connection = ConnectionId::parse(&opened.connection);
        let Some(_turn) = turn(&self.turns.openings, limits::OPENING_WAIT).await else {
            tracing::warn!(connection.id = %opened.connection, "not greeted: its turn did not come");
            return pushes;
        };
        for entry in self.registry.current().opened() {
            let release = Arc::clone(entry.pick(&opened.caller.user_id));
            let call =
                Call { id: Uuid::now_v7().to_string(), principal: Some(opened.caller.clone()), connection };
            let call_id = call.id.clone();
            let mut tries = Tries::default();
            let answer = loop {
                let answer = self.runtime.opened(&release, call.clone(), opened.clone()).await;
                if tries.end_with(&answer).await {
                    break answer;
                }
            };
            match answer {
                Ok(Ok(more)) => pushes.extend(more),
                Ok(Err(problem)) => {
                    tracing::warn!(handler.name = %entry.name, call = %call_id, code = %problem.code, "greeting refused");
                }
                Err(failure) => {
                    told(&release, &call_id, &failure);
                }
            }
        }
        pushes
    }

    /// Waits for its turn: when many connections end at once, their handlers are not all called at once.
    pub async fn closed(&self, closed: Closed) {
        if let Some(connection) = ConnectionId::parse(&closed.connection) {
            self.touches.forget(connection);
        }
        let Ok(_turn) = self.turns.closings.acquire().await else { return };
        for entry in self.registry.current().closed() {
            let release = Arc::clone(entry.pick(&closed.user_id));
            let call = background();
            let call_id = call.id.clone();
            let mut tries = Tries::default();
            let answer = loop {
                let answer = self.runtime.closed(&release, call.clone(), closed.clone()).await;
                if tries.end_with(&answer).await {
                    break answer;
                }
            };
            if let Err(failure) = answer {
                told(&release, &call_id, &failure);
            }
        }
    }

    /// Remembered until the next report, at most one entry a connection.
    pub fn touch(&self, connection: ConnectionId, user: &UserId, active: bool) {
        self.touches.add(connection, user, active);
    }
}

/// Connections that sent something since the last report.
#[derive(Default)]
pub(super) struct Touches(Mutex<HashMap<ConnectionId, (UserId, Option<u64>)>>);

impl Touches {
    fn add(&self, connection: ConnectionId, user: &UserId, active: bool) {
        let mut touched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, active_ms) = touched.entry(connection).or_insert_with(|| (user.clone(), None));
        if active {
            *active_ms = Some(timestamp::now_ms());
        }
    }

    /// It has ended: a report after `close` would bring it back to life.
    fn forget(&self, connection: ConnectionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection);
    }

    fn take(&self) -> Vec<Touch> {
        let touched = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        touched
            .into_iter()
            .map(|(connection, (user, active_ms))| Touch {
                connection: connection.to_string(),
                user_id: user.as_str().to_owned(),
                active_ms,
            })
            .collect()
    }
}

/// Places for calls that run at a time.
pub(super) struct Turns {
    openings: Semaphore,
    closings: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            openings: Semaphore::new(limits::OPENINGS_AT_ONCE_MAX),
            closings: Semaphore::new(limits::CLOSINGS_AT_ONCE_MAX),
        }
    }
}

/// A handler that hangs has all places in the end: then nothing, after a while.
async fn turn(places: &Semaphore, wait: Duration) -> Option<SemaphorePermit<'_>> {
    timeout(wait, places.acquire()).await.ok()?.ok()
}

/// Nobody asks for such a call again: one that found no slot, and so did nothing, is tried again after a wait.
#[derive(Default)]
struct Tries(usize);

impl Tries {
    async fn end_with<T>(&mut self, answer: &Result<T, Failure>) -> bool {
        let is_busy = matches!(answer, Err(Failure { kind: Kind::Busy, .. }));
        match limits::SLOT_TRIES_APART_MS.get(self.0) {
            Some(wait) if is_busy => {
                self.0 += 1;
                tokio::time::sleep(Duration::from_millis(*wait)).await;
                false
            }
            _ => true,
        }
    }
}

pub(super) async fn report_touches(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let mut clock = tokio::time::interval(Duration::from_millis(limits::TOUCH_REPORT_MS));
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut losses = triggers.hub.losses();
    loop {
        tokio::select! {
            () = guard.begun() => return,
            _ = clock.tick() => {}
            // Redis may have lost every lease: whoever is here is told of, heard of lately or not.
            Ok(()) = losses.changed() => {
                triggers.hub.connections().iter().for_each(|(id, user)| triggers.touches.add(*id, user, false));
            }
        }
        let touches = triggers.touches.take();
        for part in touches.chunks(limits::TOUCHES_MAX) {
            for entry in triggers.registry.current().touched() {
                let call = background();
                let call_id = call.id.clone();
                let release = Arc::clone(entry.pick(&call_id));
                let node = triggers.node.to_string();
                let mut tries = Tries::default();
                let answer = loop {
                    let (call, node) = (call.clone(), node.clone());
                    let answer = triggers.runtime.touched(&release, call, node, part.to_vec()).await;
                    if tries.end_with(&answer).await {
                        break answer;
                    }
                };
                if let Err(failure) = answer {
                    told(&release, &call_id, &failure);
                }
            }
        }
    }
}

/// Drains the hub's mailbox of gaps. Each is one page; the hub asks again where there is more.
pub(super) async fn fill_gaps(triggers: Arc<Triggers>, mut guard: ShutdownGuard) {
    let Some(mut gaps) = triggers.hub.gaps() else {
        tracing::error!("the mailbox of gaps is drained elsewhere");
        return;
    };
    let mut filling = JoinSet::new();
    loop {
        tokio::select! {
            () = guard.begun() => return,
            Some(_) = filling.join_next() => {}
            missing = gaps.recv(), if filling.len() < limits::GAPS_AT_ONCE_MAX => match missing {
                Some(missing) => {
                    filling.spawn(fill(triggers.clone(), missing));
                }
                None => return,
            },
        }
    }
}

async fn fill(triggers: Arc<Triggers>, missing: Missing) {
    match page(&triggers, &missing).await {
        Some(page) => triggers.hub.fill(&missing, page),
        None => triggers.hub.give_up(&missing),
    }
}

async fn page(triggers: &Triggers, missing: &Missing) -> Option<Page> {
    let entry = triggers.registry.current().missed(missing.address()).cloned()?;
    let call = background();
    let call_id = call.id.clone();
    let release = Arc::clone(entry.pick(&call_id));
    match triggers.runtime.missed(&release, call, missing.gap()).await {
        Ok(Ok(page)) => Some(page),
        Ok(Err(problem)) => {
            tracing::warn!(handler.name = %entry.name, call = %call_id, code = %problem.code, "a gap stays open");
            None
        }
        Err(failure) => {
            told(&release, &call_id, &failure);
            None
        }
    }
}

/// A call that no user asked for.
fn background() -> Call {
    Call { id: Uuid::now_v7().to_string(), principal: None, connection: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn behind_calls_that_hang_a_wait_ends() {
        const SHORT: Duration = Duration::from_millis(20);
        let places = Semaphore::new(1);
        let held = turn(&places, SHORT).await.expect("a place");
        assert!(turn(&places, SHORT).await.is_none());
        drop(held);
        assert!(turn(&places, SHORT).await.is_some());
    }
}
